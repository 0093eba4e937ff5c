"""Ids that the client makes where the application gives none."""

from __future__ import annotations

import os
import time


def uuid7() -> str:
    """Return a UUIDv7 (RFC 9562), as the service makes them: they sort by time, so the service's index stays small."""
    value = (int(time.time() * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
