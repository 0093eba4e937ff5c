"""Event ids for requests that bring none: UUIDv7 (RFC 9562), which sort by time."""

from __future__ import annotations

import os


class _Entropy:
    """Random bytes from the system, fetched by the thousand: each fetch gives up the interpreter's lock."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._bytes):
            self._bytes, self._at = os.urandom(10_000), 0
        taken = self._bytes[self._at : self._at + count]
        self._at += count
        return taken


_entropy = _Entropy()


def uuid7(now: float) -> str:
    """Return a UUIDv7 of the time `now`, in seconds since 1970."""
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(_entropy.take(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
