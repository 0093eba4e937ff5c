"""Floors, mixtures and the validator that stands before every draw."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.ragged import group_sum, spread

TOLERANCE = 1e-9


def with_floor(pmf: Floats, offsets: Ints, share: float) -> Floats:
    """Return [m] ``(1 - share) * pmf + share / K``: a stratum of uniform draws inside the policy.

    Args:
        pmf: [m] probabilities, flat.
        offsets: [n + 1].
        share: of uniform draws, in [0, 1].

    Raises:
        FieldError: `share` is outside [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise FieldError("floor", wanted="a number in [0, 1]", got=share)
    return (1.0 - share) * pmf + spread(share / np.diff(offsets), offsets)


def with_floor_few(pmf: list[float], share: float) -> list[float]:
    """Return the probabilities of one decision between a few actions, bit for bit those of `with_floor`.

    Raises:
        FieldError: `share` is outside [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise FieldError("floor", wanted="a number in [0, 1]", got=share)
    kept, each = 1.0 - share, share / len(pmf)
    return [kept * p + each for p in pmf]


def mixture(pmf: Floats, other: Floats, weight: float | Floats) -> Floats:
    """Return [m] ``(1 - weight) * pmf + weight * other``, the marginal of a coin with probability `weight`."""
    return (1.0 - weight) * pmf + weight * other


def check_one(pmf: list[float]) -> None:
    """Refuse what is no distribution of one decision; `pmf` ([k]) as `check_pmf` would judge it.

    Raises:
        FieldError: as `check_pmf`.
    """
    # min() and sum() run in C; a NaN makes the sum NaN, which fails the second comparison.
    if not (min(pmf) >= 0.0 and abs(sum(pmf) - 1.0) <= TOLERANCE):
        check_pmf(np.array(pmf), np.array((0, len(pmf))))


def check_pmf(pmf: Floats, offsets: Ints) -> None:
    """Refuse what is no distribution.

    Raises:
        FieldError: a probability is negative or not finite, or a decision's do not sum to 1 within 1e-9.
    """
    if not pmf.size:
        return
    if not np.isfinite(pmf).all() or float(pmf.min()) < 0.0:
        raise FieldError("pmf", wanted="finite, non-negative probabilities", got=pmf)
    error = np.abs(group_sum(pmf, offsets) - 1.0)
    if float(error.max()) > TOLERANCE:
        raise FieldError("pmf", wanted="probabilities that sum to 1", got=float(1.0 + error.max()))
