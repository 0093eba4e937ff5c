"""Study: conservative exploration, in tabular processes and in the serving guard.

Tabular: regret and violated episodes of StepMix, EpsMix and what they are compared with, on random processes with a
"tight" and a "loose" threshold. Guard: how often a weight is served that breaks the promise, how soon a good candidate
is at full weight, a bad one killed, a drift caught. The result is the JSON object of `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.guard.rules import GuardRules
from decision.tabular import certified_reference, conservative_budget, epsmix, extended_lp, hard_gate, stepmix, ucbvi
from decision.tabular.confidence import Bonus, Counts, model_of, pessimistic
from decision.tabular.process import value
from simulators.guarded import Rollout, roll_out, world_with_lift
from simulators.tabular import Instance, Plan, Planner, Played, play, random_instances

BONUS = Bonus()
JOINT = Bonus(joint=True)
SETTINGS = {"tight": (10.0, 0.05), "loose": (5.0, 0.1)}
LIFTS = (-0.06, -0.10, -0.30, 0.05, 0.10, 0.0)

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is run.

    Attributes:
        episodes: episodes of every tabular run.
        program_episodes: episodes of the linear-program methods.
        offline: trajectories of the warm start.
        guard_runs: runs per lift.
        guard_decisions: decisions per run.
        long_runs: runs of equal policies, for false alarms.
        long_decisions: decisions of each.
    """

    episodes: int = 20_000
    program_episodes: int = 5_000
    offline: int = 1_000
    guard_runs: int = 200
    guard_decisions: int = 100_000
    long_runs: int = 40
    long_decisions: int = 400_000


QUICK = Size(
    episodes=4_000,
    program_episodes=500,
    offline=1_000,
    guard_runs=40,
    guard_decisions=60_000,
    long_runs=4,
    long_decisions=200_000,
)


def run(seeds: Sequence[int], size: Size, progress: Progress = lambda what, share: None) -> dict[str, Any]:
    """Return the study's result; see design of the JSON in the documentation of the command.

    Args:
        seeds: one random process each; the guard's runs are seeded from the first.
        size: how much is run.
        progress: called with what is running and the share done.
    """
    tabular = {
        name: _tabular(list(seeds), eta, alpha, size, lambda what, share, name=name: progress(f"{name}: {what}", share))
        for name, (eta, alpha) in SETTINGS.items()
    }
    return {"seeds": list(seeds), "tabular": tabular, "guard": _guard(seeds[0], size, progress)}


def planners(instance: Instance) -> dict[str, Planner]:
    """Return the algorithms that need no linear program, by name."""
    baseline, gamma = instance.baseline, instance.gamma

    def with_ucbvi(counts: Counts, _: int) -> Plan:
        return Plan(ucbvi.plan(model_of(counts, BONUS)))

    def with_stepmix(counts: Counts, _: int, *, bonus: Bonus = BONUS, known: Floats | None = None) -> Plan:
        mixture = stepmix.plan(model_of(counts, bonus), baseline, gamma, baseline_value=known)
        return Plan(mixture.policy, lower=mixture.lower)

    def with_epsmix(counts: Counts, _: int, *, known: Floats | None = None) -> Plan:
        aim, weight = epsmix.plan(model_of(counts, BONUS), baseline, gamma, baseline_value=known)
        return Plan(aim, baseline, weight)

    def with_reference(counts: Counts, _: int) -> Plan:
        mixture = certified_reference.plan(model_of(counts, JOINT), baseline, gamma)
        return Plan(mixture.policy, lower=mixture.lower)

    def with_gate(counts: Counts, _: int) -> Plan:
        policy, lower = hard_gate.plan(model_of(counts, BONUS), baseline, gamma)
        return Plan(policy, lower=lower)

    return {
        "ucbvi": with_ucbvi,
        "stepmix": with_stepmix,
        "stepmix_joint_bonus": lambda counts, k: with_stepmix(counts, k, bonus=JOINT),
        "stepmix_certified_reference": with_reference,
        "epsmix": with_epsmix,
        "stepmix_baseline_known": lambda counts, k: with_stepmix(counts, k, known=instance.baseline_value),
        "epsmix_baseline_known": lambda counts, k: with_epsmix(counts, k, known=instance.baseline_value),
        "hard_gate": with_gate,
        "baseline": lambda counts, k: Plan(baseline),
    }


def _tabular(seeds: list[int], eta: float, alpha: float, size: Size, progress: Progress) -> dict[str, Any]:
    instance = random_instances(seeds, states=5, actions=5, horizon=3, eta=eta, alpha=alpha)
    results: dict[str, Any] = {}
    algorithms = planners(instance)
    for index, (name, planner) in enumerate(algorithms.items()):
        progress(name, index / (len(algorithms) + 4))
        played = play(instance, planner, episodes=size.episodes, rng=np.random.default_rng([seeds[0], 17]))
        results[name] = _row(played, size.episodes)
    progress("cumulative budget", 0.75)
    results["conservative_budget"] = _budget(instance, size.episodes, np.random.default_rng([seeds[0], 17]))
    few = random_instances(seeds[:5], states=5, actions=5, horizon=3, eta=eta, alpha=alpha)
    for program in (extended_lp.optpess, extended_lp.dope):
        progress(program.__name__, 0.85)
        played = play(
            few,
            _program_planner(few, program),
            episodes=size.program_episodes,
            rng=np.random.default_rng([seeds[0], 17]),
            lazy=0.02,
            minimum=max(1, size.program_episodes // 100),
        )
        results[program.__name__] = _row(played, size.program_episodes) | {"episodes": size.program_episodes}
    progress("offline warm start", 0.95)
    results["stepmix_offline"] = _offline(instance, size, seeds[0], with_reference=False)
    results["stepmix_certified_reference_offline"] = _offline(instance, size, seeds[0], with_reference=True)
    return results


def _program_planner(instance: Instance, program: Callable[..., Floats | None]) -> Planner:
    def planner(counts: Counts, _: int) -> Plan:
        model = model_of(counts, BONUS)
        policy = instance.baseline.copy()
        for run_index, gamma in enumerate(instance.gamma.tolist()):
            solved = program(model, run_index, gamma)
            if solved is not None:
                policy[run_index] = solved
        return Plan(policy)

    return planner


def _offline(instance: Instance, size: Size, seed: int, *, with_reference: bool) -> dict[str, Any]:
    """Warm start: trajectories of the baseline give the reference (VI-LCB) and the first counts."""
    logged = play(
        instance,
        lambda counts, k: Plan(instance.baseline),
        episodes=size.offline,
        rng=np.random.default_rng([seed, 23]),
        lazy=1.0,
        minimum=size.offline,
    )
    reference, _ = pessimistic(model_of(logged.counts, BONUS))
    safe = bool((value(instance.process, reference) >= instance.gamma).all())

    def planner(counts: Counts, _: int) -> Plan:
        if with_reference:
            mixture = certified_reference.plan(model_of(counts, JOINT), reference, instance.gamma)
        else:
            mixture = stepmix.plan(model_of(counts, BONUS), reference, instance.gamma)
        return Plan(mixture.policy, lower=mixture.lower)

    played = play(
        instance, planner, episodes=size.episodes, rng=np.random.default_rng([seed, 17]), counts=logged.counts
    )
    return _row(played, size.episodes) | {"trajectories": size.offline, "reference_safe": safe}


def _budget(instance: Instance, episodes: int, rng: np.random.Generator) -> dict[str, Any]:
    """The cumulative budget decides anew before every episode, so its coin is 0 or 1 and changes between plans."""
    saved = np.zeros(instance.gamma.size)
    state: dict[str, Any] = {"saved": saved}

    def planner(counts: Counts, k: int) -> Plan:
        offer = conservative_budget.plan(model_of(counts, BONUS), instance.baseline)
        explored = conservative_budget.affordable(offer, state["saved"], instance.gamma)
        state["saved"] = conservative_budget.saved_after(offer, state["saved"], instance.gamma, explored)
        return Plan(offer.policy, instance.baseline, explored)

    played = play(instance, planner, episodes=episodes, rng=rng, lazy=0.0)
    return _row(played, episodes)


def _row(played: Played, episodes: int) -> dict[str, Any]:
    return {
        "regret": float(played.regret.mean()),
        "regret_ci": _interval(played.regret),
        "violations": float(played.violations.mean()),
        "violations_max": float(played.violations.max()),
        "worst_shortfall": float(played.worst.min()),
        "first_exploring_episode": float(played.first_other.mean()),
        "left_baseline_share": float((played.first_other < episodes).mean()),
        "lower_bound_missed": float(played.missed.max()),
        "curve": {
            "episode": played.at[:: max(1, len(played.at) // 60)].tolist(),
            "regret": played.curve.mean(1)[:: max(1, len(played.at) // 60)].tolist(),
        },
    }


def _guard(seed: int, size: Size, progress: Progress) -> dict[str, Any]:
    rules = GuardRules()
    violations: dict[str, float] = {}
    full: dict[str, float | None] = {}
    kill: dict[str, float | None] = {}
    killed_share: dict[str, float] = {}
    lost: dict[str, float] = {}
    for index, lift in enumerate(LIFTS):
        progress(f"guard at {lift:+.0%}", index / (len(LIFTS) + 2))
        rolled = [_rollout(seed, run_index, lift, rules, size.guard_decisions) for run_index in range(size.guard_runs)]
        name = f"{lift:+.2f}"
        violations[name] = float(np.mean([r.violated for r in rolled]))
        full[name] = _median([r.full for r in rolled])
        kill[name] = _median([r.killed for r in rolled])
        killed_share[name] = float(np.mean([r.killed is not None for r in rolled]))
        lost[name] = float(np.mean([r.lost for r in rolled]))
    progress("guard under drift", 0.8)
    drifted = [
        _rollout(seed, i, 0.1, rules, 2 * size.guard_decisions, drift_to=-0.2) for i in range(size.guard_runs // 2)
    ]
    delays = [
        None if caught is None else caught - size.guard_decisions
        for caught in (r.alarmed if r.alarmed is not None else r.killed for r in drifted)
    ]
    progress("guard with equal policies", 0.9)
    equal = [_rollout(seed, i, 0.0, rules, size.long_decisions, stop=False) for i in range(size.long_runs)]
    return {
        "violation_probability": violations,
        "decisions_to_full": full,
        "decisions_to_kill": kill,
        "killed_share": killed_share,
        "reward_lost_share": lost,
        "drift_delay": _median(delays),
        "drift_caught_share": float(np.mean([d is not None and d > 0 for d in delays])),
        "equal": {
            "decisions": size.long_decisions,
            "runs": size.long_runs,
            "false_alarms": int(sum(r.alarmed is not None for r in equal)),
            "false_kills": int(sum(r.killed is not None for r in equal)),
            "false_promotions": int(sum(r.better is not None for r in equal)),
        },
        "rules": {"alpha": rules.alpha, "delta": rules.delta, "batch": rules.batch},
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


def _median(values: Sequence[int | None]) -> float | None:
    """Return the median with None as later than everything; None when that is the median."""
    middle = float(np.median([np.inf if v is None else v for v in values])) if values else np.inf
    return middle if np.isfinite(middle) else None


def _interval(values: Floats) -> list[float]:
    half = float(1.96 * values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0
    return [float(values.mean()) - half, float(values.mean()) + half]
