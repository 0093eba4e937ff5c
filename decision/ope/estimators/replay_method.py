"""Replay: the mean reward of the rows on which the policy would have done the same (Li, Chu, Langford, Wang 2011).

Meant for logs drawn uniformly, where it is unbiased (arXiv 1003.5956, theorem 2); on any other log it answers for the
logging policy's contexts, not the evaluation policy's, and says so. A stochastic policy matches with its probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from decision.batch import Floats
from decision.ope.estimate import Estimate
from decision.ope.estimators.registry import OwnSums
from decision.ope.rows import Rows
from decision.ope.sums.exact import Exact, added, exact_sum, rounded
from decision.ope.sums.moments import Moments


@dataclass(frozen=True, slots=True)
class MatchingSums:
    """Sums of the matched share and of its rewards; `+` merges shards.

    Attributes:
        moments: of the columns ``pi(a_i)`` and ``pi(a_i) r``.
        uneven: sum of ``|K p - 1|``, 0 for a log drawn uniformly.
    """

    moments: Moments
    uneven: Exact

    @staticmethod
    def of(rows: Rows) -> MatchingSums:
        """Return the sums of the rows."""
        matched = rows.target[rows.chosen]
        uneven = np.abs(np.diff(rows.offsets) * rows.propensity - 1.0)
        columns = [matched, matched * rows.reward]
        return MatchingSums(Moments.of(columns, rows.weight, rows.counts), exact_sum(uneven))

    def __add__(self, other: MatchingSums) -> MatchingSums:
        return MatchingSums(self.moments + other.moments, added(self.uneven, other.uneven))


def matching(sums: MatchingSums, *, level: float = 0.95) -> Estimate | None:
    """Return the estimate, or None when no row matches."""
    matched, reward = sums.moments.totals
    if matched <= 0:
        return None
    value = reward / matched
    found = sums.moments.estimate(float(value), np.array([-value, 1.0]) / matched, level)
    if rounded(sums.uneven) > 1e-6 * sums.moments.support.n:
        found = replace(found, reasons=(*found.reasons, "the log was not drawn uniformly, as matching needs"))
    return found


def _columns(rows: Rows) -> dict[str, Floats]:
    matched = rows.target[rows.chosen]
    return {"match": matched, "match_reward": matched * rows.reward}


ESTIMATOR = OwnSums(
    lambda rows, low, high: MatchingSums.of(rows),
    matching,
    columns=_columns,
    replicate=lambda drawn: drawn["match_reward"] / drawn["match"],
    biased=True,
)
