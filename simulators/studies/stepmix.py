"""Study: conservative exploration, in tabular processes and in the serving guard.

Tabular: regret and violated episodes of StepMix, EpsMix and what they are compared with, on random processes with a
"tight" and a "loose" threshold. Guard: how often a weight is served that breaks the promise, how soon a good candidate
is at full weight, a bad one killed, a drift caught. The result is the JSON object of `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from decision.batch import Floats
from decision.conservative.tabular import budget as conservative_budget
from decision.conservative.tabular import certified_reference, epsmix, extended_lp, hard_gate, stepmix, ucbvi
from decision.conservative.tabular.confidence import Bonus, Counts, model_of, pessimistic
from decision.conservative.tabular.process import value
from simulators.environments.tabular import Instance, Plan, Planner, Played, play, random_instances
from simulators.studies import contextual, guarding, sequences
from simulators.studies.interval import of_mean

BONUS = Bonus()
JOINT = Bonus(joint=True)
_CURVE_POINTS = 60
SETTINGS = {"tight": (10.0, 0.05), "loose": (5.0, 0.1)}

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
        contextual_rounds: rounds of the contextual algorithms.
        sequence_runs: runs of every slate and session rollout.
        sequences: slates or sessions per run.
        lazy: the tabular runs re-plan every ``lazy * k`` episodes.
    """

    episodes: int = 20_000
    program_episodes: int = 5_000
    offline: int = 1_000
    guard_runs: int = 200
    guard_decisions: int = 100_000
    long_runs: int = 40
    long_decisions: int = 400_000
    contextual_rounds: int = 10_000
    sequence_runs: int = 40
    sequences: int = 100_000
    lazy: float = 1e-3


QUICK = Size(
    episodes=4_000,
    program_episodes=500,
    offline=1_000,
    guard_runs=40,
    guard_decisions=60_000,
    long_runs=4,
    long_decisions=100_000,
    contextual_rounds=2_000,
    sequence_runs=4,
    sequences=30_000,
    lazy=1e-2,
)


def run(seeds: Sequence[int], size: Size, progress: Progress = lambda what, share: None) -> dict[str, Any]:
    """Return the study's result; see design of the JSON in the documentation of the command.

    Args:
        seeds: one random process each; the guard's runs are seeded from the first.
        size: how much is run.
        progress: called with what is running and the share done.
    """
    parts = len(SETTINGS) + 3
    done = 0

    def within(what: str, share: float) -> None:
        progress(what, (done + share) / parts)

    result: dict[str, Any] = {"seeds": list(seeds), "size": asdict(size), "tabular": {}}
    for name, (eta, alpha) in SETTINGS.items():
        result["tabular"][name] = _tabular(
            list(seeds), eta, alpha, size, lambda what, share, name=name: within(f"{name}: {what}", share)
        )
        done += 1
    result["guard"] = guarding.run(
        seeds[0],
        runs=size.guard_runs,
        decisions=size.guard_decisions,
        long_runs=size.long_runs,
        long_decisions=size.long_decisions,
        progress=within,
    )
    done += 1
    result["contextual"] = contextual.run(seeds, rounds=size.contextual_rounds, progress=within)
    done += 1
    result["sequences"] = sequences.run(seeds[0], runs=size.sequence_runs, count=size.sequences, progress=within)
    return result


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
        rng = np.random.default_rng([seeds[0], 17])
        played = play(instance, planner, episodes=size.episodes, rng=rng, lazy=size.lazy)
        results[name] = _row(played, size.episodes)
    progress("cumulative budget", 0.75)
    results["conservative_budget"] = _budget(instance, size, np.random.default_rng([seeds[0], 17]))
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
        results[program.__name__] = _row(played, size.program_episodes)
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
        instance,
        planner,
        episodes=size.episodes,
        rng=np.random.default_rng([seed, 17]),
        counts=logged.counts,
        lazy=size.lazy,
    )
    return _row(played, size.episodes) | {"trajectories": size.offline, "reference_safe": safe}


def _budget(instance: Instance, size: Size, rng: np.random.Generator) -> dict[str, Any]:
    """The cumulative budget decides before every episode what it can pay for; offers are re-planned as elsewhere."""
    saved = np.zeros(instance.gamma.size)
    offer: conservative_budget.Offer | None = None
    due = 0

    def planner(counts: Counts, k: int) -> Plan:
        nonlocal saved, offer, due
        if offer is None or k >= due:
            offer = conservative_budget.plan(model_of(counts, BONUS), instance.baseline)
            due = k + max(1, int(size.lazy * k))
        explored = conservative_budget.affordable(offer, saved, instance.gamma)
        saved = conservative_budget.saved_after(offer, saved, instance.gamma, explored)
        return Plan(offer.policy, instance.baseline, explored)

    played = play(instance, planner, episodes=size.episodes, rng=rng, lazy=0.0)
    return _row(played, size.episodes)


def _row(played: Played, episodes: int) -> dict[str, Any]:
    shown = np.unique(np.linspace(0, len(played.at) - 1, _CURVE_POINTS).astype(np.int64))
    return {
        "episodes": episodes,
        "regret": float(played.regret.mean()),
        "regret_ci": of_mean(played.regret.tolist(), low=0.0),
        "violations": float(played.violations.mean()),
        "violations_ci": of_mean(played.violations.tolist(), low=0.0),
        "violations_max": float(played.violations.max()),
        "worst_shortfall": float(played.worst.min()),
        "first_exploring_episode": float(played.first_other.mean()),
        "left_baseline_share": float((played.first_other < episodes).mean()),
        "lower_bound_missed": float(played.missed.max()),
        "curve": {"episode": played.at[shown].tolist(), "regret": played.curve.mean(1)[shown].tolist()},
    }
