"""Which events of a log were seen before, in eight bytes an event."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_NEW = 65_536


class Repeats:
    """Remembers events by hashes of 64 bits: of ten million events, two have the same one in a log of millions."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: list[NDArray[np.uint64]] = []  # each sorted, the largest first

    def first(self, event_id: str) -> bool:
        """Remember an event and return whether it had not been seen."""
        code = int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "little")
        if code in self._new or any(_holds(codes, code) for codes in self._old):
            return False
        self._new.add(code)
        if len(self._new) == _NEW:
            self._settle()
        return True

    def _settle(self) -> None:
        codes = np.sort(np.fromiter(self._new, np.uint64, len(self._new)))
        self._new = set()
        while self._old and self._old[-1].size <= codes.size:
            codes = np.sort(np.concatenate([self._old.pop(), codes]))
        self._old.append(codes)


def _holds(codes: NDArray[np.uint64], code: int) -> bool:
    at = int(np.searchsorted(codes, np.uint64(code)))
    return at < codes.size and int(codes[at]) == code
