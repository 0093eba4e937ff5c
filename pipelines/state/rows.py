"""What stands under a key of State, as the struct that was kept there; a row that was damaged is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from decision.validation import prepared
from pipelines.state.failures import DamagedRowError

T = TypeVar("T")


def read_json(key: str, value: bytes, kind: type[T]) -> T:
    """Return the struct that stands under `key` as JSON.

    Raises:
        DamagedRowError: it does not fit.
    """
    return _read(key, value, kind, msgspec.json.decode)


def read_packed(key: str, value: bytes, kind: type[T]) -> T:
    """Return the struct that stands under `key` as MessagePack.

    Raises:
        DamagedRowError: it does not fit.
    """
    return _read(key, value, kind, msgspec.msgpack.decode)


def _read(key: str, value: bytes, kind: type[T], decode: Callable[..., Any]) -> T:
    try:
        return decode(value, type=prepared(kind))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRowError(key, str(error)) from error
