"""Study of the serving guard: how often it breaks its promise, how soon a good candidate rises and a bad one falls.

Every run draws its own world (`simulators.environments.rollout`) with the lift asked for, so shares of runs are
probabilities over worlds and draws together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from decision.guard.rules import GuardRules
from simulators.environments.rollout import Rollout, roll_out, world_with_lift
from simulators.studies.interval import median, of_mean, of_median, of_share

LIFTS = (-0.06, -0.10, -0.30, 0.05, 0.10, 0.0)
_SHOWN_RUNS = 5  # rollouts whose weights are kept for the plot

Progress = Callable[[str, float], None]


def run(
    seed: int, *, runs: int, decisions: int, long_runs: int, long_decisions: int, progress: Progress
) -> dict[str, Any]:
    """Return what the guard did.

    Args:
        seed: of all runs.
        runs: per lift.
        decisions: of each; the drift begins after as many.
        long_runs: runs of equal policies, for false alarms.
        long_decisions: decisions of each.
        progress: called with what is running and the share done.

    Returns:
        ``violation_probability``, ``decisions_to_full``, ``decisions_to_kill``, ``killed_share``,
        ``reward_lost_share`` by lift (as in "+0.10"), ``drift_delay`` and more, each with ``X_ci``.
    """
    rules = GuardRules()
    result: dict[str, Any] = {
        "rules": {"alpha": rules.alpha, "delta": rules.delta, "batch": rules.batch},
        "runs": runs,
        "decisions": decisions,
    }
    for index, lift in enumerate(LIFTS):
        progress(f"guard at {lift:+.0%}", index / (len(LIFTS) + 2))
        rolled = [_rollout(seed, number, lift, rules, decisions) for number in range(runs)]
        for key, (found, interval) in _numbers(rolled).items():
            result.setdefault(key, {})[f"{lift:+.2f}"] = found
            result.setdefault(f"{key}_ci", {})[f"{lift:+.2f}"] = interval
        result.setdefault("weights", {})[f"{lift:+.2f}"] = [r.weights[:200] for r in rolled[:_SHOWN_RUNS]]
    progress("guard under drift", len(LIFTS) / (len(LIFTS) + 2))
    drifted = [_rollout(seed, number, 0.1, rules, 2 * decisions, drift_to=-0.2) for number in range(max(1, runs // 2))]
    caught = [r.alarmed if r.alarmed is not None else r.killed for r in drifted]
    delays = [None if at is None or at <= decisions else at - decisions for at in caught]
    on_time = sum(delay is not None for delay in delays)
    progress("guard with equal policies", (len(LIFTS) + 1) / (len(LIFTS) + 2))
    equal = [_rollout(seed, number, 0.0, rules, long_decisions, stop=False) for number in range(long_runs)]
    return result | {
        "drift_delay": median(delays),
        "drift_delay_ci": of_median(delays),
        "drift_caught_share": on_time / len(delays),
        "drift_caught_share_ci": of_share(on_time, len(delays)),
        "equal": {
            "decisions": long_decisions,
            "runs": long_runs,
            "false_alarms": sum(r.alarmed is not None for r in equal),
            "false_kills": sum(r.killed is not None for r in equal),
            "false_promotions": sum(r.better is not None for r in equal),
        },
    }


def _numbers(rolled: list[Rollout]) -> dict[str, tuple[Any, Any]]:
    violated = sum(r.violated for r in rolled)
    killed = sum(r.killed is not None for r in rolled)
    full, kill = [r.full for r in rolled], [r.killed for r in rolled]
    lost = [r.lost for r in rolled]
    return {
        "violation_probability": (violated / len(rolled), of_share(violated, len(rolled))),
        "decisions_to_full": (median(full), of_median(full)),
        "decisions_to_kill": (median(kill), of_median(kill)),
        "killed_share": (killed / len(rolled), of_share(killed, len(rolled))),
        "reward_lost_share": (float(np.mean(lost)), of_mean(lost)),
    }


def _rollout(
    seed: int,
    index: int,
    lift: float,
    rules: GuardRules,
    decisions: int,
    *,
    drift_to: float | None = None,
    stop: bool = True,
) -> Rollout:
    world = world_with_lift(np.random.default_rng([seed, index, 1]), lift)
    later = None if drift_to is None else world_with_lift(np.random.default_rng([seed, index, 1]), drift_to)
    rng = np.random.default_rng([seed, index, 2])
    return roll_out(world, rules, rng, decisions=decisions, drift_to=later, stop=stop)
