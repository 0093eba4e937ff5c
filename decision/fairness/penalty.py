"""A policy's oracle fitted with upheld pairs as costs: the Lagrangian of "treat these two alike".

For an oracle of expected rewards f and upheld pairs (x_i, x_j) the objective is

    sum (f(x, a) - r)^2  +  C / 2 * sum_pairs sum_a (f(x_i, a) - f(x_j, a))^2,

whose second sum is ``C * (f(x_i, a) - m)^2 + C * (f(x_j, a) - m)^2`` at its best target m, the mean. So a report is
weighted rows with a common target, which every oracle can learn from; targets and fit are found in turn (alternating
minimisation), and C rises while a pair's gap stays above what its panel accepts (dual ascent, Bechavod and Roth 2023
for the cost on reports, arXiv 2206.04475). Equal scores are equal probabilities under every exploration rule.

A target between the ends of the reward range is two rows, one at each end, weighted by how near it lies: the same
expected loss, and oracles of 0/1 rewards (logistic loss) learn from it as others do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.policy import OraclePolicy
from decision.protocols import Oracle

HIGHEST = 1e8
"""Largest multiplier: beyond it ordinary rows count for nothing."""


@dataclass(frozen=True, slots=True)
class UpheldPairs:
    """p pairs that a panel upheld, the favoured person first.

    Attributes:
        first: [p] the favoured people, as decisions.
        second: [p] the disfavoured.
        action_first: [p] flat row of the compared action in `first`.
        action_second: [p] the same in `second`.
        limit: [p] largest gap the panel accepts.
    """

    first: Batch
    second: Batch
    action_first: Ints
    action_second: Ints
    limit: Floats

    def __len__(self) -> int:
        return len(self.first)

    def __post_init__(self) -> None:
        sizes = {len(self.first), len(self.second), self.action_first.size, self.action_second.size, self.limit.size}
        if len(sizes) != 1:
            raise FieldError("pairs", wanted="as many of each", got=sorted(sizes))


class FairFit(NamedTuple):
    """What came of it.

    Attributes:
        oracle: the fitted oracle.
        cost: the multiplier it was fitted with; 0 when the pairs asked for nothing.
        gaps: [p] gaps of the pairs under it.
        rounds: fits that were needed.
    """

    oracle: Oracle
    cost: float
    gaps: Floats
    rounds: int

    def metrics(self) -> dict[str, float]:
        """Return the numbers, named for a tracking store."""
        largest = float(np.abs(self.gaps).max()) if self.gaps.size else 0.0
        return {
            "train.fairness_pairs": float(self.gaps.size),
            "train.fairness_cost": self.cost,
            "train.fairness_largest_gap": largest,
            "train.fairness_fits": float(self.rounds),
        }


def gaps(policy: OraclePolicy, pairs: UpheldPairs) -> Floats:
    """Return [p] differences of the two people's probabilities of the compared action."""
    if not len(pairs):
        return np.zeros(0)
    return policy.pmf(pairs.first)[pairs.action_first] - policy.pmf(pairs.second)[pairs.action_second]


def fit_with_pairs(
    oracle: Oracle,
    again: Callable[[Interactions], Oracle],
    pairs: UpheldPairs,
    exploration: Exploration,
    *,
    cost: float,
    raise_by: float = 8.0,
    rounds: int = 10,
) -> FairFit:
    """Return an oracle that treats the pairs as alike as their panels ask, as far as that can be had.

    Args:
        oracle: fitted without the pairs; returned as it is when no gap exceeds its limit.
        again: fits a cold oracle to the same interactions and the rows it is given.
        pairs: upheld pairs.
        exploration: rule that turns scores into probabilities, in which gaps are measured.
        cost: the multiplier C at the start, > 0, in ordinary rows per pair and action.
        raise_by: factor of the multiplier after a round in which a gap stayed too large.
        rounds: fits with pairs at most; the one with the least excess is returned.
    """
    current = FairFit(oracle, 0.0, gaps(OraclePolicy(oracle, exploration), pairs), 1)
    best = current
    for number in range(rounds):
        if not _excess(best.gaps, pairs) or cost > HIGHEST:
            break
        rows = pair_rows(pairs, current.oracle, cost, low=exploration.low, high=exploration.high)
        oracle = again(rows)
        current = FairFit(oracle, cost, gaps(OraclePolicy(oracle, exploration), pairs), number + 2)
        if _excess(current.gaps, pairs) < _excess(best.gaps, pairs):
            best = current
        cost *= raise_by
    return best._replace(rounds=current.rounds)


def pair_rows(pairs: UpheldPairs, oracle: Oracle, cost: float, *, low: float, high: float) -> Interactions:
    """Return the rows that stand for the pairs: both people, every shared action, at the mean of the present scores.

    Args:
        pairs: one or more.
        oracle: whose scores they are.
        cost: C, the summed weight of the rows of one person and action.
        low: smallest reward.
        high: largest reward.
    """
    scores = oracle.predict(pairs.first), oracle.predict(pairs.second)
    rows: tuple[list[int], list[int]] = [], []
    chosen: tuple[list[int], list[int]] = [], []
    targets: list[float] = []
    for pair in range(len(pairs)):
        first, second = _by_id(pairs.first, pair), _by_id(pairs.second, pair)
        # The compared action is charged in any case, also where its two rows have different ids.
        compared = (int(pairs.action_first[pair]), int(pairs.action_second[pair]))
        matched = [(first[action], second[action]) for action in first if action in second]
        for one, other in dict.fromkeys([compared, *matched]):
            for side, flat in enumerate((one, other)):
                rows[side].append(pair)
                chosen[side].append(flat)
            mean = float(scores[0][one] + scores[1][other]) / 2.0
            targets.append(min(max((mean - low) / (high - low), 0.0), 1.0))
    share = np.array(targets)
    parts: list[Interactions] = []
    for side, batch in enumerate((pairs.first, pairs.second)):
        for reward, weight in ((high, cost * share), (low, cost * (1.0 - share))):
            at, flat = np.array(rows[side], dtype=np.int64), np.array(chosen[side], dtype=np.int64)
            counts = weight > 0
            parts.append(_rows(batch, at[counts], flat[counts], reward, weight[counts]))
    return concatenate(parts)


def concatenate(parts: list[Interactions]) -> Interactions:
    """Return the interactions one after another."""
    batches = [part.batch for part in parts]
    starts = np.cumsum([0] + [len(batch.actions) for batch in batches])
    batch = Batch(
        contexts=[context for each in batches for context in each.contexts],
        actions=[action for each in batches for action in each.actions],
        action_ids=[action for each in batches for action in each.action_ids],
        offsets=np.concatenate(
            [[0], *(each.offsets[1:] + start for each, start in zip(batches, starts[:-1], strict=True))]
        ).astype(np.int64),
    )
    return Interactions(
        batch=batch,
        chosen=np.concatenate([part.chosen + start for part, start in zip(parts, starts[:-1], strict=True)]),
        propensity=np.concatenate([part.propensity for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        pmf=np.concatenate([part.pmf for part in parts]),
        weight=np.concatenate([part.weights for part in parts]),
    )


def _excess(found: Floats, pairs: UpheldPairs) -> float:
    """Return by how much the gaps exceed their limits, in either direction: a gap turned round is one as well."""
    return float(np.maximum(np.abs(found) - pairs.limit, 0.0).sum())


def _by_id(batch: Batch, row: int) -> dict[str, int]:
    start, stop = int(batch.offsets[row]), int(batch.offsets[row + 1])
    return {batch.action_ids[flat]: flat for flat in range(start, stop)}


def _rows(batch: Batch, rows: Ints, chosen: Ints, reward: float, weight: Floats) -> Interactions:
    taken = batch.take(rows)
    sizes = np.diff(taken.offsets)
    flat = chosen - batch.offsets[rows] + taken.offsets[:-1]
    pmf = np.repeat(1.0 / sizes, sizes)
    return Interactions(taken, flat, 1.0 / sizes, np.full(rows.size, reward), pmf, weight)
