"""From the JSON of a request to flattened features, and the limits that hold there.

Numbers stay numbers, strings become ``name=value`` -> 1, booleans 0 or 1, nested objects join names with ".",
lists of numbers get their index as name, lists of strings are sets of categories. Missing and null features are
absent: a linear model reads them as 0, a tree as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from decision.batch import Features
from decision.errors import FieldError, Words

VERSION = 1
"""Of the rules of flattening: who keeps flattened features keeps it beside them, and flattens again under another."""
MAX_FEATURES = 2_000
MAX_NAME_CHARS = 256
MAX_TEXT_CHARS = 1_024
MAX_DEPTH = 4
PREFIX = "feature."
"""What the names of looked-up features begin with, at decision time and in training alike."""
_EXACT = 1 << 53


def looked_up(value: Mapping[str, Any]) -> Features:
    """Return the flattened features that were looked up for a subject, their names set apart from the context's.

    Args:
        value: the lookup's answer as decoded from JSON.

    Raises:
        FieldError: as `flatten`.
    """
    return {PREFIX + name: number for name, number in flatten(value, field="feature").items()}


def flatten(value: Mapping[str, Any], *, field: str) -> Features:
    """Return the flattened features of the JSON object `value`.

    Args:
        value: the object as decoded from JSON.
        field: path of the object in the request, for error messages.

    Raises:
        FieldError: a value is not a finite number, text, boolean, null, list or object, or a limit is passed.
    """
    out: Features = {}
    _walk(value, "", field, 0, out)
    if len(out) > MAX_FEATURES:
        raise FieldError(field, wanted=f"at most {MAX_FEATURES} features", got=len(out))
    return out


def _walk(value: Mapping[str, Any], prefix: str, field: str, depth: int, out: Features) -> None:
    for key, item in value.items():
        # The common cases first: this runs for every feature of every request.
        kind = type(item)
        if kind is float and item - item == 0.0 and len(key) <= MAX_NAME_CHARS:
            out[prefix + key] = item
        elif kind is str and len(item) <= MAX_TEXT_CHARS and len(key) <= MAX_NAME_CHARS:
            out[f"{prefix}{key}={item}"] = 1.0
        elif kind is int and -_EXACT < item < _EXACT and len(key) <= MAX_NAME_CHARS:
            out[prefix + key] = float(item)
        else:
            _put(item, prefix + key, f"{field}.{key}", depth, out)


def _put(item: Any, name: str, field: str, depth: int, out: Features) -> None:
    if len(name) > MAX_NAME_CHARS:
        raise FieldError(field[:80], wanted=f"a name of at most {MAX_NAME_CHARS} characters", got=len(name))
    if item is None:
        return
    if isinstance(item, str):
        if len(item) > MAX_TEXT_CHARS:
            raise FieldError(field, wanted=f"text of at most {MAX_TEXT_CHARS} characters", got=len(item))
        out[f"{name}={item}"] = 1.0
    elif isinstance(item, bool | int | float):
        try:
            number = float(item)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise FieldError(field, wanted="a finite number", got=item)
        out[name] = number
    elif isinstance(item, dict):
        if depth >= MAX_DEPTH:
            raise FieldError(field, wanted=f"nested at most {MAX_DEPTH} deep", got=Words("nested deeper"))
        _walk(cast("dict[str, Any]", item), f"{name}.", field, depth + 1, out)
    elif isinstance(item, list):
        items = cast("list[Any]", item)
        if len(items) > MAX_FEATURES:
            raise FieldError(field, wanted=f"at most {MAX_FEATURES} entries", got=len(items))
        for index, entry in enumerate(items):
            if isinstance(entry, str):
                _put(entry, name, f"{field}[{index}]", depth, out)
            elif isinstance(entry, dict):
                if depth >= MAX_DEPTH:
                    raise FieldError(field, wanted=f"nested at most {MAX_DEPTH} deep", got=Words("nested deeper"))
                _walk(cast("dict[str, Any]", entry), f"{name}.", f"{field}[{index}]", depth + 1, out)
            else:
                _put(entry, f"{name}[{index}]", f"{field}[{index}]", depth, out)
    else:
        raise FieldError(field, wanted="a number, text, boolean, null, list or object", got=item)
