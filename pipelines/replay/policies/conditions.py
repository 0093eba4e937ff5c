"""Conditions of rules: a small language that compares features and does nothing else.

::

    either     = both {"or" both}
    both       = one {"and" one}
    one        = "not" one | "(" either ")" | name [comparison]
    comparison = ("==" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "[" value {"," value} "]"
    value      = text in quotes | number | true | false | name

A name is a field of the context, by dots where it lies deeper (``user.age``), or ``action.id`` and ``action.NAME``: a
feature of the action that is looked at. A name that has other characters than letters, digits and _ stands in
backquotes. A name alone holds where its value is true. What is missing equals nothing, and is neither less nor more.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decision.errors import FieldError, Words

MAX_CHARS = 2_000
_MAX_DEPTH = 20
_ACTION = "action"
_TOKENS = re.compile(
    r"""\s*(?:
      (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)(?![\w.])
    | (?P<text>"[^"\\]*"|'[^'\\]*')
    | (?P<name>(?:[^\W\d]\w*|`[^`]+`)(?:\.(?:\w+|`[^`]+`))*)
    | (?P<mark>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = ("and", "or", "not", "in", "true", "false")

Test = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
"""Of a context and an action's features, with its id as ``id``."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read.

    Attributes:
        text: as it was written.
        holds: whether it holds in a context, for an action.
        context: fields of the context that it reads, by dots.
        action: features of the action that it reads; "id" is its id.
    """

    text: str
    holds: Test
    context: tuple[str, ...]
    action: tuple[str, ...]


def condition(text: str, field: str) -> Condition:
    """Return the condition that `text` says.

    Raises:
        FieldError: naming `field`, it cannot be read; the message says where.
    """
    if len(text) > MAX_CHARS:
        raise FieldError(field, wanted=f"a condition of at most {MAX_CHARS} characters", got=len(text))
    reader = _Reader(text, field)
    holds = reader.either(0)
    reader.end()
    named = dict.fromkeys(reader.named)
    return Condition(
        text,
        holds,
        tuple(".".join(path) for path in named if path[0] != _ACTION),
        tuple(".".join(path[1:]) for path in named if path[0] == _ACTION),
    )


class _Reader:
    """Reads a condition from left to right."""

    def __init__(self, text: str, field: str) -> None:
        self.text, self.field = text, field
        self.tokens: list[tuple[str, str, int]] = []
        self.named: list[tuple[str, ...]] = []
        self.at = 0
        place = 0
        while text[place:].strip():
            found = _TOKENS.match(text, place)
            if found is None:
                raise self._error("names, numbers, text in quotes and comparisons", place)
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind], found.start(kind)))
            place = found.end()

    def either(self, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise FieldError(self.field, wanted=f"at most {_MAX_DEPTH} brackets inside one another", got=Words("more"))
        parts = [self.both(depth)]
        while self.takes("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else lambda context, action: any(part(context, action) for part in parts)

    def both(self, depth: int) -> Test:
        parts = [self.one(depth)]
        while self.takes("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else lambda context, action: all(part(context, action) for part in parts)

    def one(self, depth: int) -> Test:
        if self.takes("not"):
            if depth >= _MAX_DEPTH:
                raise FieldError(self.field, wanted=f"at most {_MAX_DEPTH} `not` in a row", got=Words("more"))
            inner = self.one(depth + 1)
            return lambda context, action: not inner(context, action)
        if self.takes("("):
            inside = self.either(depth + 1)
            self.needs(")")
            return inside
        left = self.name()
        for mark in ("==", "!="):
            if self.takes(mark):
                right = self.value()
                same = mark == "=="
                return lambda context, action: _equal(left(context, action), right(context, action)) == same
        for mark, compare in _COMPARED.items():
            if self.takes(mark):
                return self._ordered(left, mark, compare, self.value())
        negated = self.takes("not")
        if self.takes("in"):
            return self._among(left, negated)
        if negated:
            raise self._error("`in` after `not`", self._place())
        return lambda context, action: left(context, action) is True

    def _among(self, left: Test, negated: bool) -> Test:
        self.needs("[")
        values = [self.value()]
        while self.takes(","):
            values.append(self.value())
        self.needs("]")
        return lambda context, action: (
            any(_equal(left(context, action), value(context, action)) for value in values) != negated
        )

    def _ordered(self, left: Test, mark: str, compare: Callable[[Any, Any], bool], right: Test) -> Test:
        def holds(context: Mapping[str, Any], action: Mapping[str, Any]) -> bool:
            a, b = left(context, action), right(context, action)
            if a is None or b is None:
                return False
            if _kind(a) != _kind(b) or _kind(a) not in ("number", "text"):
                got = Words(f"{a!r} {mark} {b!r} ({_kind(a)} and {_kind(b)})")
                raise FieldError(self.field, wanted="an order of two numbers or two texts", got=got)
            return compare(a, b)

        return holds

    def name(self) -> Test:
        kind, text, place = self._next()
        if kind != "name" or text in _WORDS:
            raise self._error("the name of a feature", place)
        path = [part.strip("`") for part in re.findall(r"`[^`]+`|[^.`]+", text)]
        if path[0] == "context" and len(path) > 1:
            path = path[1:]
        if path == [_ACTION]:
            raise self._error("action.id or action.NAME", place)
        self.named.append(tuple(path))
        if path[0] == _ACTION:
            return lambda context, action: _within(action, path[1:])
        return lambda context, action: _within(context, path)

    def value(self) -> Test:
        kind, text, place = self._next()
        if kind == "name" and text not in ("true", "false"):
            self.at -= 1
            return self.name()
        if kind == "mark":
            raise self._error("a value", place)
        found: Any = text[1:-1] if kind == "text" else text == "true" if kind == "name" else float(text)
        return lambda context, action: found

    def takes(self, word: str) -> bool:
        if (
            self.at < len(self.tokens)
            and self.tokens[self.at][0] in ("mark", "name")
            and self.tokens[self.at][1] == word
        ):
            self.at += 1
            return True
        return False

    def needs(self, mark: str) -> None:
        if not self.takes(mark):
            raise self._error(f"`{mark}`", self._place())

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self._error("`and`, `or`, a comparison or the end", self._place())

    def _next(self) -> tuple[str, str, int]:
        if self.at >= len(self.tokens):
            raise self._error("more", len(self.text))
        self.at += 1
        return self.tokens[self.at - 1]

    def _place(self) -> int:
        return self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)

    def _error(self, wanted: str, place: int) -> FieldError:
        there = self.text[place:].strip()[:20]
        got = f"{there!r} at character {place + 1}" if there else "its end"
        return FieldError(self.field, wanted=wanted, got=Words(got), says=f"wants {wanted}, found {got}: {self.text!r}")


def _within(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else type(value).__name__


def _equal(a: Any, b: Any) -> bool:
    # In Python 1 equals true.
    return a is not None and _kind(a) == _kind(b) and a == b
