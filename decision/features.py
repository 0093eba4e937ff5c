"""From the JSON of a request to flattened features, and the limits that hold there.

Numbers stay numbers, strings become ``name=value`` -> 1, booleans 0 or 1, nested objects join names with ".",
lists of numbers get their index as name, lists of strings are sets of categories, lists of objects are namespaces side
by side. Missing and null features are absent: a linear model reads them as 0, a tree as missing. A name that begins
with "_" is no feature, as in Vowpal Wabbit. Names that meet are told apart: in ``{"items": [{"qty": 3}, {"qty": 5}]}``
the second number is ``items.qty#2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, NamedTuple, cast

from decision.batch import Features
from decision.errors import FieldError, Words

VERSION = 2
"""Of the rules of flattening: who keeps flattened features keeps it beside them, and flattens again under another.

Under version 1 names that begin with "_" were features, and of names that met the last one alone was kept."""
MAX_FEATURES = 2_000
MAX_NAME_CHARS = 256
MAX_TEXT_CHARS = 1_024
MAX_DEPTH = 4
MAX_NUMBER = 1e15
"""Largest size of a number: whole ones are exact up to here, and squares of products stay far from overflow."""
PREFIX = "feature."
"""What the names of looked-up features begin with, at decision time and in training alike."""

_Path = tuple[str | int, ...]


class _Rules(NamedTuple):
    """How values are read.

    Attributes:
        hidden: first character of names that are no features; "__", which none is, hides none.
        cut: take a number beyond the limit as the limit, and of too many features the first, rather than refuse them.
    """

    hidden: str
    cut: bool


_RULES = {
    (version, cut): _Rules("__" if version < 2 else "_", cut) for version in (1, VERSION) for cut in (False, True)
}


def looked_up(value: Mapping[str, Any], *, version: int = VERSION) -> Features:
    """Return the flattened features that were looked up for a subject, their names set apart from the context's.

    Nobody who asks can mend what a store holds: a number beyond the limit is taken as the limit, and what is no finite
    number is absent.

    Args:
        value: the lookup's answer as decoded from JSON.
        version: of the rules.

    Raises:
        FieldError: as `flatten`.
    """
    finite = {name: item for name, item in value.items() if not isinstance(item, float) or math.isfinite(item)}
    return {
        PREFIX + name: number for name, number in flatten(finite, field="feature", version=version, cut=True).items()
    }


def flatten(value: Mapping[str, Any], *, field: str, version: int = VERSION, cut: bool = False) -> Features:
    """Return the flattened features of the JSON object `value`.

    Args:
        value: the object as decoded from JSON.
        field: path of the object in the request, for error messages.
        version: of the rules.
        cut: for what is on record already: take a number beyond the limit as the limit, and of too many features the
            first.

    Raises:
        FieldError: a value is not a number of at most 1e15, text, boolean, null, list or object, or a limit is passed.
    """
    out: Features = {}
    rules = _RULES[version, cut]
    if _walk(value, "", field, 0, out, rules) > len(out) and version > 1:
        out = _told_apart(value, rules)
    if len(out) > MAX_FEATURES:
        if not cut:
            raise FieldError(field, wanted=f"at most {MAX_FEATURES} features", got=len(out))
        out = dict(islice(out.items(), MAX_FEATURES))
    return out


def merged(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a list of objects of features, as Personalizer's requests and logs have them, as one object.

    Nothing is lost: a name that recurs becomes a list, and objects of one name that have no name in common become one.
    """
    one: dict[str, Any] = {}
    for entry in entries:
        for name, value in entry.items():
            kept = one.get(name)
            if isinstance(kept, dict) and isinstance(value, dict) and not kept.keys() & value.keys():
                one[name] = {**kept, **value}
            elif name in one:
                one[name] = [*(kept if isinstance(kept, list) else [kept]), value]
            else:
                one[name] = value
    return one


def _walk(value: Mapping[str, Any], prefix: str, field: str, depth: int, out: Features, rules: _Rules) -> int:
    """Add the features of `value` to `out` and return how many came: more than are there, where names met."""
    hidden, most, least = rules.hidden, MAX_NUMBER, -MAX_NUMBER
    came = len(value)
    for key, item in value.items():
        # The common cases first: this runs for every feature of every request.
        kind = type(item)
        if key < "`" and key[:1] == hidden:  # most keys begin with a small letter, and one comparison says so
            came -= 1
        elif kind is float and least <= item <= most and len(key) <= MAX_NAME_CHARS:
            out[prefix + key] = item
        elif kind is str and len(item) <= MAX_TEXT_CHARS and len(key) <= MAX_NAME_CHARS:
            out[f"{prefix}{key}={item}"] = 1.0
        elif kind is int and least <= item <= most and len(key) <= MAX_NAME_CHARS:
            out[prefix + key] = float(item)
        else:
            came += _put(item, prefix + key, f"{field}.{key}", depth, out, rules) - 1
    return came


def _put(item: Any, name: str, field: str, depth: int, out: Features, rules: _Rules) -> int:
    if len(name) > MAX_NAME_CHARS:
        raise FieldError(field[:80], wanted=f"a name of at most {MAX_NAME_CHARS} characters", got=len(name))
    if item is None:
        return 0
    if isinstance(item, str):
        if len(item) > MAX_TEXT_CHARS:
            raise FieldError(field, wanted=f"text of at most {MAX_TEXT_CHARS} characters", got=len(item))
        out[f"{name}={item}"] = 1.0
        return 1
    if isinstance(item, bool | int | float):
        out[name] = _number(item, field, rules)
        return 1
    if isinstance(item, dict):
        return _walk(_nested(item, depth, field), f"{name}.", field, depth + 1, out, rules)
    if not isinstance(item, list):
        raise FieldError(field, wanted="a number, text, boolean, null, list or object", got=item)
    items = cast("list[Any]", item)
    if len(items) > MAX_FEATURES:
        raise FieldError(field, wanted=f"at most {MAX_FEATURES} entries", got=len(items))
    came = 0
    for index, entry in enumerate(items):
        where = f"{field}[{index}]"
        if isinstance(entry, str):
            came += _put(entry, name, where, depth, out, rules)
        elif isinstance(entry, dict):
            came += _walk(_nested(entry, depth, field), f"{name}.", where, depth + 1, out, rules)
        else:
            came += _put(entry, f"{name}[{index}]", where, depth, out, rules)
    return came


def _number(item: float, field: str, rules: _Rules) -> float:
    try:
        number = float(item)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(field, wanted="a finite number", got=item)
    if abs(number) <= MAX_NUMBER:
        return number
    if not rules.cut:
        raise FieldError(field, wanted="a number between -1e15 and 1e15 (an id is text)", got=item)
    return math.copysign(MAX_NUMBER, number)


def _nested(item: Any, depth: int, field: str) -> dict[str, Any]:
    if depth >= MAX_DEPTH:
        raise FieldError(field, wanted=f"nested at most {MAX_DEPTH} deep", got=Words("nested deeper"))
    return cast("dict[str, Any]", item)


def _told_apart(value: Mapping[str, Any], rules: _Rules) -> Features:
    """Return the features of a `value` in which names meet, each under a name of its own.

    In the order of their paths the first keeps the name and later ones are numbered, however the object is ordered. A
    category that is named twice is in its set once.
    """
    categories: set[str] = set()
    met: dict[str, list[tuple[_Path, float]]] = {}
    for name, path, number in _entries(value, "", (), rules):
        known = met.setdefault(name, [])
        if number is None:
            categories.add(name)
        else:
            known.append((path, number))
    taken = set(met)
    out: Features = {}
    for name, entries in met.items():
        if name in categories:
            out[name] = 1.0
        following = count(2)
        for _, number in sorted(entries):
            own = name
            while own in out or (own is not name and own in taken):
                own = f"{name}#{next(following)}"
            out[own] = number
    return out


def _entries(item: Any, name: str, path: _Path, rules: _Rules) -> Iterator[tuple[str, _Path, float | None]]:
    """Yield name, path and number of every feature, None for a category's; the limits were seen to."""
    if isinstance(item, str):
        yield f"{name}={item}", path, None
    elif isinstance(item, bool | int | float):
        yield name, path, _number(item, name, rules)
    elif isinstance(item, Mapping):
        for key, inner in cast("Mapping[str, Any]", item).items():
            if key[:1] != rules.hidden:
                yield from _entries(inner, f"{name}.{key}" if path else key, (*path, key), rules)
    elif item is not None:
        for index, inner in enumerate(cast("list[Any]", item)):
            plain = isinstance(inner, str | dict)
            yield from _entries(inner, name if plain else f"{name}[{index}]", (*path, index), rules)
