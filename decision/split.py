"""Hash splits of decisions: which fold an event belongs to, the same in every run and on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints


def uniforms_of(event_ids: Sequence[str], salt: str) -> Floats:
    """Return [n] numbers in [0, 1), one per event id, independent of the draw's seeds."""
    prefix = f"split\x00{salt}\x00"
    words = [hashlib.blake2b((prefix + e).encode(), digest_size=8).digest() for e in event_ids]
    return (np.frombuffer(b"".join(words), dtype=">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def in_share(event_ids: Sequence[str], salt: str, share: float) -> NDArray[np.bool_]:
    """Return [n] whether each event falls into the first `share` (in [0, 1]) of the unit interval."""
    return uniforms_of(event_ids, salt) < share


def fold_of(event_ids: Sequence[str], salt: str, folds: int) -> Ints:
    """Return [n] folds in 0..folds-1."""
    return np.floor(uniforms_of(event_ids, salt) * folds).astype(np.int64)
