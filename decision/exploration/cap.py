"""A cap on what features that a caller supplies can do: probabilities near those of a policy that does not see them.

    p(a) = min(f(a), K t(a)) + (1 - sum_b min(f(b), K t(b))) t(a),       hence  p(a) <= (K + 1) t(a)

f is the distribution that reads everything, t the trusted one, of a policy that was trained without the features that
the caller supplies. Whoever writes these features moves f as he likes, and does not move t: so he raises an action to
at most K + 1 times what it has without his word, whatever he writes. The attack is that of Bai et al. (2025, "RAT:
Adversarial Attacks on Deep Reinforcement Agents for Targeted Behaviors", AAAI), who perturb what a policy observes
until it does what they want; the cap is ours. Where f never passes K t, p is f.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from decision.batch import Features, Floats, Ints
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.ragged import group_sum, ragged_offsets, spread, sum_of

_ENDS = "=.[#"


def capped(full: Floats, trusted: Floats, offsets: Ints, *, cap: float) -> Floats:
    """Return [m] probabilities p, with p <= (cap + 1) trusted, exactly, in floating-point numbers too.

    Args:
        full: [m] probabilities f of the policy that sees everything.
        trusted: [m] probabilities t of the one that does not see what the caller supplies.
        offsets: [n + 1].
        cap: K, 0 or more; 0 is `trusted` itself.

    Raises:
        FieldError: `cap` is negative or no finite number.
    """
    _check(cap)
    kept = np.minimum(full, cap * trusted)
    left = np.maximum(1.0 - group_sum(kept, offsets), 0.0)
    return np.minimum(kept + spread(left, offsets) * trusted, (cap + 1.0) * trusted)


def capped_few(full: list[float], trusted: list[float], *, cap: float) -> list[float]:
    """Return the probabilities of one decision between a few actions, bit for bit those of `capped`.

    Args:
        full: [k] as there.
        trusted: [k] as there.
        cap: as there.

    Raises:
        FieldError: as there.
    """
    _check(cap)
    kept = [min(f, cap * t) for f, t in zip(full, trusted, strict=True)]
    left, most = max(1.0 - sum_of(kept), 0.0), cap + 1.0
    return [min(p + left * t, most * t) for p, t in zip(kept, trusted, strict=True)]


def is_supplied(name: str, supplied: Collection[str]) -> bool:
    """Return whether a flattened feature is, or is part of, one of those in `supplied`.

    ``age`` is the number ``age``, the category ``age=old``, and all that stands below it: ``age.group``, ``age[0]``. So
    it does not matter as what kind of value a caller sends it.
    """
    return any(
        name.startswith(path) and (len(name) == len(path) or name[len(path)] in _ENDS) for path in supplied if path
    )


def without_supplied(rows: Sequence[Features], supplied: Collection[str]) -> Sequence[Features]:
    """Return [r] contexts without the features in `supplied`, in the form in which they came."""
    if not isinstance(rows, FeatureRows):
        begins = tuple(supplied)  # compared in C: most names are nobody's
        return [
            {n: value for n, value in row.items() if not (n.startswith(begins) and is_supplied(n, supplied))}
            for row in rows
        ]
    trusted = np.array([not is_supplied(name, supplied) for name in rows.names], dtype=np.bool_)
    if trusted.all():
        return rows
    kept = trusted[rows.name]
    owner = np.repeat(np.arange(rows.distinct), np.diff(rows.offsets))
    sizes = np.bincount(owner[kept], minlength=rows.distinct).astype(np.int64)
    return FeatureRows(rows.names, rows.name[kept], rows.value[kept], ragged_offsets(sizes), rows.rows)


def _check(cap: float) -> None:
    if not 0.0 <= cap < np.inf:
        raise FieldError("cap", wanted="a finite number of 0 or more", got=cap)
