"""Self-normalised doubly robust: the correction divided by the mean weight (Thomas and Brunskill 2016, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import OwnSums
from decision.ope.rows import Rows
from decision.ope.sums.moments import Moments


@dataclass(frozen=True, slots=True)
class SndrSums:
    """Sums of 1, w, ``d = sum_a pi(a) q(a)`` and ``e = w (r - q)`` and of their products; `+` merges shards.

    Attributes:
        moments: of the columns 1, w, d and e.
    """

    moments: Moments

    @staticmethod
    def of(rows: Rows) -> SndrSums:
        """Return the sums of the rows.

        Raises:
            FieldError: there is no reward model.
        """
        rows.model()
        columns = [np.ones(len(rows)), rows.weight, rows.direct, rows.weight * rows.residual]
        return SndrSums(Moments.of(columns, rows.weight, rows.counts))

    def __add__(self, other: SndrSums) -> SndrSums:
        return SndrSums(self.moments + other.moments)


def sndr(sums: SndrSums, *, level: float = 0.95) -> Estimate | None:
    """Return ``sum d / n + sum e / sum w``, or None when every weight is 0: the log has no support at all."""
    n, weight, direct, error = sums.moments.totals
    if weight <= 0:
        return None
    value = direct / n + error / weight
    gradient = np.array([-direct / n**2, -error / weight**2, 1.0 / n, 1.0 / weight])
    return sums.moments.estimate(float(value), gradient, level)


ESTIMATOR = OwnSums(
    lambda rows, low, high: SndrSums.of(rows),
    sndr,
    columns=lambda rows: {"error": rows.weight * rows.residual},
    replicate=lambda drawn: drawn["dm"] / drawn["one"] + drawn["error"] / drawn["weight"],
    needs=("model",),
)
