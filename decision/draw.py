"""The draw: event id -> seed -> uniform -> action, the same in every process, forever.

The seed is derived from the event id, so anyone who holds the log can repeat each draw and compare. Seeds have
53 bits: they survive JSON readers that hold numbers as doubles, and every seed maps to its own double in [0, 1).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

SEED_BITS = 53
_SCALE = 2.0**-SEED_BITS


def seed_of(loop: str, event_id: str, slot: str = "") -> int:
    """Return the draw's seed in [0, 2^53), derived from the three ids by BLAKE2b."""
    digest = hashlib.blake2b(f"{loop}\x00{event_id}\x00{slot}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def uniform_of(seed: int) -> float:
    """Return the uniform variate in [0, 1) that `seed` stands for."""
    return seed * _SCALE


def draw(pmf: NDArray[np.float64] | list[float], seed: int) -> int:
    """Return the index drawn from `pmf` by inversion.

    Args:
        pmf: [k] non-negative, sums to 1 up to rounding.
        seed: in [0, 2^53).

    Returns:
        Index in [0, k) of an action with positive probability.
    """
    u = uniform_of(seed)
    total = 0.0
    last = 0
    # Plain additions in the order offered: the same floating-point sums wherever this is repeated.
    for index, p in enumerate(pmf):
        if p > 0.0:
            total += p
            last = index
            if u < total:
                return index
    return last
