"""How a policy's answers agree with what a log says was answered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats, Ints
from decision.exploration.greedy import greedy
from decision.protocols import Policy
from pipelines.interactions.arrays import asked_of, to_interactions

_EVEN = 1e-9


class Agreed(msgspec.Struct, frozen=True, kw_only=True):
    """How a policy agrees with a log.

    Attributes:
        policy: the policy in words.
        decisions: how many were compared.
        propensity: mean probability of the drawn action, as logged.
        probability: the same by the policy.
        distributed: decisions whose whole distribution is logged.
        distance: of these, the mean share of the probability that lies on other actions, from 0 to 1.
        decided: of these, those whose log prefers some actions to others.
        same_best: of those, the share in which the policy's best action is one that the log prefers; among k that are
            equally good to the policy each counts 1 / k.
    """

    policy: str
    decisions: int
    propensity: float | None
    probability: float | None
    distributed: int
    distance: float | None
    decided: int
    same_best: float | None


class Answers:
    """Sums of a policy's agreement with the rows of a log.

    Args:
        policy: whose answers are compared.
        name: the policy in words.
        mixed: what becomes of its probabilities before one is drawn: ([m] probabilities, [n + 1] offsets) -> [m].
    """

    def __init__(self, policy: Policy, name: str, mixed: Callable[[Floats, Ints], Floats] | None = None) -> None:
        self._policy, self._name, self._mixed = policy, name, mixed
        self._rows = self._distributed = self._decided = 0
        self._logged = self._ours = self._distance = self._same = 0.0

    def add(self, table: pa.Table) -> None:
        """Compare rows in the lake's columns, whose features can be read."""
        log = asked_of(self._policy, table, to_interactions(table))
        offsets = log.batch.offsets
        pmf = self._policy.pmf(log.batch)
        pmf = pmf if self._mixed is None else self._mixed(pmf, offsets)
        starts = offsets[:-1]
        self._rows += len(log)
        self._logged += float(log.propensity.sum())
        self._ours += float(pmf[log.chosen].sum())
        known = table["pmf"].is_valid().to_numpy()
        logged = np.where(np.isnan(log.pmf), 0.0, log.pmf)
        distance = np.add.reduceat(np.abs(pmf - logged), starts) / 2.0
        self._distributed += int(known.sum())
        self._distance += float(distance[known].sum())
        most = np.maximum.reduceat(logged, starts)
        decided = known & (most - np.minimum.reduceat(logged, starts) > _EVEN)
        preferred = logged >= np.repeat(most, np.diff(offsets)) - _EVEN
        same = np.add.reduceat(np.where(preferred, greedy(pmf, offsets), 0.0), starts)
        self._decided += int(decided.sum())
        self._same += float(same[decided].sum())

    def agreed(self) -> Agreed:
        """Return how the policy agrees with all rows."""
        return Agreed(
            policy=self._name,
            decisions=self._rows,
            propensity=_mean(self._logged, self._rows),
            probability=_mean(self._ours, self._rows),
            distributed=self._distributed,
            distance=_mean(self._distance, self._distributed),
            decided=self._decided,
            same_best=_mean(self._same, self._decided),
        )


def _mean(total: float, number: int) -> float | None:
    return total / number if number else None
