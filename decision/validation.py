"""Values checked against their types, and msgspec's complaints as errors that name the field: the one place for both.

A `Checked` struct checks itself however it is made: decoded, built in Python, or by `msgspec.structs.replace`. Bounds
are read off its annotations (``Annotated[float, msgspec.Meta(gt=0)]``), floats are finite, and what its fields must
satisfy together is written in a method ``_relations`` of the class, which no subclass can lose.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, final, get_args, get_origin

import msgspec

from decision.errors import FieldError, Words, either

T = TypeVar("T")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_TOO_LONG = {
    "Integer value out of range": "a number of at most 4,300 digits",  # Python reads no more of them
    "Number out of range": "a number below 1.8e308",
}
"""What fits, by what msgspec says of a number that cannot be held."""
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_PLACE = re.compile(r"(.*) - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_preparing = threading.Lock()
_prepared = set[Any]()
ABSENT: Any = object()
"""In place of a value that could not be read."""
_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
    dict: "an object",
    datetime: "a time such as 2026-01-31T12:00:00Z",
    msgspec.Raw: "a JSON value",
}


class Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A struct whose fields fit their annotations from the moment it is made.

    Raises:
        FieldError: a field is outside its bounds, of another type, or no finite number.
    """

    @final
    def __post_init__(self) -> None:
        for name, kind in _annotations(type(self)):
            check_value(name, getattr(self, name), kind)
        for kind in reversed(type(self).__mro__):
            relations: Callable[[Any], None] | None = vars(kind).get("_relations")
            if relations is not None:
                relations(self)


@cache  # to resolve a class's annotations costs a hundred times as much as to check a value
def _annotations(kind: type[Checked]) -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in msgspec.structs.fields(prepared(kind))]


def check_value(field: str, value: object, annotation: Any) -> None:
    """Refuse a value that does not fit its annotation.

    Raises:
        FieldError: naming `field`.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(field, wanted=_finite(in_words(annotation)), got=value)
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise field_error(error, annotation, value, whole="").under(field) from error


def convert(value: object, kind: type[T], *, strict: bool = True, whole: str = "") -> T:
    """Return `value`, plain dictionaries and lists, as a `kind`.

    Args:
        value: what to convert.
        kind: the type, for example a struct.
        strict: take no text for a number.
        whole: name of the value itself in errors.

    Raises:
        FieldError: it does not fit; names the field, what fits, and what was probably meant.
    """
    try:
        return msgspec.convert(value, prepared(kind), strict=strict)
    except msgspec.ValidationError as error:
        raise field_error(error, kind, value, whole=whole) from error


def prepared(kind: type[T]) -> type[T]:
    """Return `kind`, ready to be decoded by several threads at once.

    msgspec works out what a struct holds at its first decoding, and has another thread find it half done: that thread
    ends the process (msgspec 0.22). So one thread at a time does what is the first for its type.
    """
    if kind not in _prepared:
        with _preparing:
            msgspec.json.Decoder(kind)
            _prepared.add(kind)
    return kind


def field_error(error: Exception, kind: Any = None, value: Any = ABSENT, *, whole: str = "body") -> FieldError:
    """Return a complaint of msgspec's as an error that names the field.

    Args:
        error: msgspec's, or another decoder's about the whole.
        kind: the type that was asked for; without it, words are msgspec's own and nothing is suggested.
        value: what did not fit, as plain dictionaries and lists, where it could be read.
        whole: name of the value itself.
    """
    found = _PLACE.fullmatch(str(error))
    text, path = found.groups() if found else (str(error), "")
    where = path.lstrip(".")
    if isinstance(error.__cause__, FieldError):
        return error.__cause__.under(where)
    if missing := _MISSING.fullmatch(text):
        return FieldError.missing(_joined(where, missing[1]))
    if unknown := _UNKNOWN.fullmatch(text):
        return FieldError.unknown(_joined(where, unknown[1]), _names_of(_type_at(kind, path)))
    if not isinstance(error, msgspec.ValidationError):
        return FieldError(where or whole, wanted="valid JSON", got=error)
    if fits := _TOO_LONG.get(text):
        return FieldError(where or whole, wanted=fits, got=Words("a longer one"))
    expected, got = _type_at(kind, path), _value_at(value, path)
    allowed = _allowed(expected)
    if allowed and got is not ABSENT:
        return FieldError.choice(where or whole, allowed, got)
    wanted = in_words(expected) if expected is not None else text.removeprefix("Expected ").partition(", got")[0]
    if isinstance(got, float) and not math.isfinite(got):
        wanted = _finite(wanted)
    return FieldError(where or whole, wanted=wanted.replace("`", ""), got=_shown(got, text))


def in_words(annotation: Any) -> str:
    """Return what fits an annotation, in words that complete "must be ..."."""
    kind, bounds = _plain(annotation)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(in_words(member) for member in get_args(kind) if member is not NoneType))
    if origin is Literal:
        return either([str(value) for value in get_args(kind)])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "a table" if issubclass(kind, Checked) else "an object"
    if origin in (list, tuple):
        inner = get_args(kind)[0]
        most = f"at most {bounds.max_length} of " if bounds.max_length is not None else ""
        return f"a list of {most}{_several(inner)}"
    name = _NAMES.get(origin or kind, "a value that fits")
    if kind is str:
        return f"{name}{_length_in_words(bounds)}"
    limits = limits_in_words(annotation)
    return f"{name} {limits}" if limits else name


def limits_in_words(annotation: Any) -> str:
    """Return the bounds of a number's annotation, as in ``above 0 and at most 1``; "" without."""
    bounds = _plain(annotation)[1]
    if bounds.ge is not None and bounds.le is not None:
        return f"between {_number(bounds.ge)} and {_number(bounds.le)}"
    words = (("above", bounds.gt), ("at least", bounds.ge), ("below", bounds.lt), ("at most", bounds.le))
    return " and ".join(f"{word} {_number(limit)}" for word, limit in words if limit is not None)


def _plain(annotation: Any) -> tuple[Any, msgspec.Meta]:
    """Return the type under an ``Annotated`` and its limits."""
    if get_origin(annotation) is Annotated:
        kind, *metas = get_args(annotation)
        limits = [meta for meta in metas if isinstance(meta, msgspec.Meta)]
        return kind, limits[0] if limits else msgspec.Meta()
    return annotation, msgspec.Meta()


def _members(annotation: Any) -> list[Any]:
    kind = _plain(annotation)[0]
    return (
        [m for member in get_args(kind) for m in _members(member)] if get_origin(kind) in (Union, UnionType) else [kind]
    )


def _type_at(kind: Any, path: str) -> Any:
    """Return the annotation at a path of msgspec's below `kind`, None where it cannot be told."""
    for name, _ in _STEP.findall(path):
        following: Any = None
        for member in _members(kind):
            if name and isinstance(member, type) and issubclass(member, msgspec.Struct):
                fields = {field.encode_name: field.type for field in msgspec.structs.fields(member)}
                following = fields.get(name, following)
            elif not name and get_args(member):
                following = get_args(member)[-1 if get_origin(member) is dict else 0]
        kind = following
    return kind


def _value_at(value: Any, path: str) -> Any:
    for name, index in _STEP.findall(path):
        if name and isinstance(value, Mapping):
            value = cast("Mapping[str, Any]", value).get(name, ABSENT)
        elif index.isdecimal() and isinstance(value, list | tuple) and int(index) < len(cast("list[Any]", value)):
            value = value[int(index)]
        else:
            return ABSENT
    return value


def _names_of(kind: Any) -> list[str]:
    structs = [member for member in _members(kind) if isinstance(member, type) and issubclass(member, msgspec.Struct)]
    return [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]


def _allowed(kind: Any) -> list[str]:
    return [str(value) for member in _members(kind) if get_origin(member) is Literal for value in get_args(member)]


def _shown(got: Any, text: str) -> object:
    if got is None:
        return Words("null")
    if isinstance(got, bool):
        return Words("true" if got else "false")
    if isinstance(got, list | tuple):
        return Words("a list")
    if isinstance(got, Mapping):
        return Words("an object")
    if got is not ABSENT:
        return got
    came = text.partition(", got ")[2].strip("`")
    return Words(f"of type {came}") if came else Words("another value")


def _finite(wanted: str) -> str:
    return wanted.replace("a number", "a finite number")


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _several(kind: Any) -> str:
    several: dict[Any, str] = {str: "texts", int: "whole numbers", float: "numbers"}
    plain = _plain(kind)[0]
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return "tables" if issubclass(plain, Checked) else "objects"
    return several.get(plain, "values")


def _length_in_words(bounds: msgspec.Meta) -> str:
    least, most = bounds.min_length, bounds.max_length
    if most is None:
        return ""
    return f" of {least} to {most} characters" if least else f" of at most {most} characters"


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")
