"""Study: panels of auditors steering a learner that sees outcomes only for those it approves.

Per data set and method: error per person, the share of the last fifth of rounds with a violation that the panel would
uphold, and the reports used. The comparator is the best mixture without a violation in hindsight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.fairness.experts import Weights, approval, distribution, update
from decision.fairness.hindsight import best_fair
from decision.fairness.losses import label_losses, report_losses
from decision.fairness.multiplier import DualRule, after
from decision.fairness.panel import threshold
from simulators.auditing import People, Stage, packaged, stage, synthetic

ALPHA, QUORUM, EPS, FLOOR = 0.2, 0.6, 0.05, 0.01
DATASETS = ("synthetic", "credit_data", "hmda")
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        error: mean error per person over all rounds.
        violating: [T] 1.0 where the round held a violation that the panel upholds.
        reports: reports charged.
        cost: the multiplier at the end.
        approved: mean probability of approval.
    """

    error: float
    violating: Floats
    reports: int
    cost: float
    approved: float


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
    return Result(error / rounds, violating, reports, cost, approved_mean / rounds)


def run_dataset(people: People, seed: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return one seed's results for every method."""
    scene = stage(np.random.default_rng([seed, 1]), people, rounds=rounds)
    fair = best_fair(scene.predictions, scene.labels, threshold(scene.acceptable, alpha=ALPHA, quorum=QUORUM), eps=EPS)
    errors = np.abs(scene.predictions - scene.labels[:, :, None]).mean((0, 1))
    runs = {
        "uniform": learn(scene, np.random.default_rng([seed, 2]), cost=0.0, uniform=True),
        "blind": learn(scene, np.random.default_rng([seed, 2]), cost=0.0),
        "fixed_8": learn(scene, np.random.default_rng([seed, 2]), cost=8.0),
        "fixed_32": learn(scene, np.random.default_rng([seed, 2]), cost=32.0),
        "fixed_127": learn(scene, np.random.default_rng([seed, 2]), cost=127.0),
        "single_auditor": learn(
            scene, np.random.default_rng([seed, 2]), cost=8.0, dual=DualRule(), single_auditor=True
        ),
        "dual": learn(scene, np.random.default_rng([seed, 2]), cost=8.0, dual=DualRule()),
    }
    last = rounds - rounds // 5
    first = rounds // 5
    rows = {
        name: {
            "error": r.error,
            "violating_rounds": float(r.violating[last:].mean()),
            "violating_rounds_first": float(r.violating[:first].mean()),
            "reports": float(r.reports),
            "cost": r.cost,
            "approved": r.approved,
        }
        for name, r in runs.items()
    }
    rows["best_fair"] = {
        "error": fair.error,
        "violating_rounds": 0.0,
        "reports": 0.0,
        "constraints": float(fair.constraints),
    }
    rows["best_unfair"] = {"error": float(errors.min()), "violating_rounds": float("nan"), "reports": 0.0}
    return rows


def run(
    seeds: Sequence[int],
    rounds: int,
    datasets: Sequence[str] = DATASETS,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """Return the study's result: ``datasets[name][method]`` with means over seeds."""
    results: dict[str, Any] = {}
    for index, name in enumerate(datasets):
        collected: list[dict[str, dict[str, float]]] = []
        for number, seed in enumerate(seeds):
            progress(f"{name}, seed {seed}", (index + number / len(seeds)) / len(datasets))
            people = synthetic(np.random.default_rng([seed, 0])) if name == "synthetic" else packaged(name)
            collected.append(run_dataset(people, seed, rounds))
        results[name] = {
            method: {key: float(np.mean([c[method][key] for c in collected])) for key in collected[0][method]}
            for method in collected[0]
        }
    return {"seeds": list(seeds), "rounds": rounds, "datasets": results}
