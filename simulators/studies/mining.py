"""Study of mining: does a pair that the panel would uphold come up among the first that auditors are shown?

Windows of people are scored by a learner that is blind to fairness. Of the windows that hold a true violation, counted
is how often a ranking puts one at rank 1, among the first 5 and among the first 20. The learned metric has seen the
judgements of a panel on pairs of other windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.fairness.learners.experts import approval
from decision.fairness.mining import Metric, Pairs, all_pairs, learn_metric, rank_by_metric, rank_by_ratio
from decision.fairness.panel import threshold
from simulators.environments.auditors import People, Stage, acceptable_gaps, predict

RANKS = {"hit_1": 1, "any_5": 5, "any_20": 20}
JUDGEMENTS = 1_000  # single judgements, so 200 pairs
PANEL, PEOPLE = 5, 40
# Of each window one pair is mined and one is drawn at random: pairs of many windows teach more than many pairs of few.
_MINED, _AT_RANDOM, _REFIT = 1, 1, 10
_PENALTY = 3e-5  # chosen on seeds 10 to 15, which the study does not report


class Window(NamedTuple):
    """One window.

    Attributes:
        pairs: every pair, described by the features that a miner may use.
        upheld: [p] whether the panel would uphold it.
        votes: [p] share of the panel that sees a violation.
    """

    pairs: Pairs
    upheld: Floats
    votes: Floats


def hits(
    scene: Stage,
    people: People,
    weights: Floats,
    rng: np.random.Generator,
    *,
    alpha: float,
    quorum: float,
    floor: float,
    windows: int,
) -> dict[str, list[list[bool]]]:
    """Return per ranking and violating window whether it was right at each of `RANKS`.

    Args:
        scene: hypotheses and auditors.
        people: the data set.
        weights: [N] of the learner whose probabilities are audited.
        rng: draws of windows and panels.
        alpha: sensitivity.
        quorum: share of the panel that must agree.
        floor: smallest probability of approval.
        windows: how many are tried; those without a violation do not count.
    """

    def draw() -> Window:
        return _window(scene, people, weights, rng, alpha=alpha, quorum=quorum, floor=floor)

    metric = _learned(draw, rng)
    found: dict[str, list[list[bool]]] = {}
    for _ in range(windows):
        window = draw()
        if not window.upheld.any():
            continue
        for name, order in _rankings(window.pairs, metric, rng).items():
            found.setdefault(name, []).append([bool(window.upheld[order[:rank]].any()) for rank in RANKS.values()])
    return found


def _rankings(pairs: Pairs, metric: Metric, rng: np.random.Generator) -> dict[str, Ints]:
    distance = np.sqrt((pairs.difference**2).mean(1))
    return {
        "ratio": rank_by_ratio(pairs),
        "learned_metric": rank_by_metric(pairs, metric),
        "nearest": np.argsort(distance, kind="stable"),
        "largest_gap": np.argsort(-pairs.gap, kind="stable"),
        "random": rng.permutation(pairs.gap.size),
    }


def _learned(draw: Callable[[], Window], rng: np.random.Generator) -> Metric:
    """Judge pairs as a service would: the top ones by ratio, then by what has been learned, and some at random."""
    parts: list[Pairs] = []
    votes: list[Floats] = []
    metric: Metric | None = None
    for number in range(JUDGEMENTS // (PANEL * (_MINED + _AT_RANDOM))):
        pairs, _, seen = draw()
        order = rank_by_ratio(pairs) if metric is None else rank_by_metric(pairs, metric)
        chosen = np.concatenate([order[:_MINED], rng.choice(pairs.gap.size, _AT_RANDOM, replace=False)])
        favoured, disfavoured = pairs.favoured[chosen], pairs.disfavoured[chosen]
        parts.append(Pairs(favoured, disfavoured, pairs.gap[chosen], pairs.difference[chosen]))
        votes.append(seen[chosen])
        if number % _REFIT == _REFIT - 1:
            metric = _fit(parts, votes)
    return _fit(parts, votes)


def _fit(parts: list[Pairs], votes: list[Floats]) -> Metric:
    joined = Pairs(
        np.concatenate([part.favoured for part in parts]),
        np.concatenate([part.disfavoured for part in parts]),
        np.concatenate([part.gap for part in parts]),
        np.concatenate([part.difference for part in parts]),
    )
    return learn_metric(joined, np.concatenate(votes), penalty=_PENALTY)


def _window(
    scene: Stage,
    people: People,
    weights: Floats,
    rng: np.random.Generator,
    *,
    alpha: float,
    quorum: float,
    floor: float,
) -> Window:
    shown = people.features[rng.choice(scene.rest, PEOPLE, replace=False)]
    pi = approval(predict(scene.rules, shown), weights, floor=floor)
    panel = scene.auditors[rng.choice(scene.auditors.shape[0], PANEL, replace=False)]
    accepted = acceptable_gaps(shown, panel)
    pairs = all_pairs(shown[:, people.protected < 2], pi)
    at = accepted[pairs.favoured, pairs.disfavoured]
    limit = threshold(at, alpha=alpha, quorum=quorum)
    return Window(pairs, (pairs.gap > limit).astype(np.float64), (pairs.gap[:, None] > at + alpha).mean(1))
