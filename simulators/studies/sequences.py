"""Study of slates and sessions: StepMix rungs from the tail, the EpsMix coin, and a gate on the whole policy.

Each unit (a slate, a session) is served by the baseline or, with probability rho, by a policy that follows the
baseline for its first j steps and the candidate after them; propensities are those of the mixture over whole units.
A policy's promise at rho = top is tested by betting on

    Y = r * (top * w_policy - (top - alpha) * w_baseline),        E[Y] = V(mix) - (1 - alpha) * V(baseline),

as in the guard (`decision.guard.evidence`), only that the policy tested may be another than the one served: with j
leading baseline steps the weight has H - j factors.

    stepmix  rungs j = H - 1 .. 0, each served at top once it and all below it are certified
    coin     j = 0 throughout; rho climbs the guard's ladder
    gate     j = 0 at top once certified; the baseline alone until then
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from decision.batch import Floats, Ints
from decision.guard.rules import GuardRules
from simulators.sessions import SessionWorld
from simulators.slates import SlateWorld
from simulators.studies.interval import median, of_median, of_share

LIFTS = (0.05, 0.1, -0.1)
METHODS = ("stepmix", "coin", "gate")
_KEEP = 0.95

Progress = Callable[[str, float], None]


class World(Protocol):
    """What slates and sessions have in common."""

    steps: int
    reward_max: float

    def value(self, leading: int) -> float:
        """Return the value of `leading` baseline steps and the candidate after them."""
        ...

    def draw(self, rng: np.random.Generator, leading: Ints) -> tuple[Floats, Floats]:
        """Return [n] rewards and [n, H] log ratios of candidate over baseline."""
        ...


class Climbed(NamedTuple):
    """One rollout.

    Attributes:
        violated: what was served once broke the promise.
        first: units until anything was certified, or None.
        full: units until the whole candidate was served at top, or None.
    """

    violated: bool
    first: int | None
    full: int | None


class Rung(NamedTuple):
    """A mixture that can be certified.

    Attributes:
        leading: j, baseline steps at the head.
        weight: rho.
    """

    leading: int
    weight: float


def ladder(method: str, steps: int, rules: GuardRules) -> list[Rung]:
    """Return the mixtures in the order in which they are certified; the first needs no certificate."""
    if method == "stepmix":
        return [Rung(steps - 1, rules.alpha), *[Rung(j, rules.top) for j in range(steps - 1, -1, -1)]]
    if method == "coin":
        return [Rung(0, weight) for weight in rules.rungs]
    return [Rung(0, 0.0), Rung(0, rules.top)]


def climb(world: World, method: str, rules: GuardRules, rng: np.random.Generator, *, count: int) -> Climbed:
    """Roll a candidate out by `method` over `count` units, in batches of ``rules.batch``."""
    rungs = ladder(method, world.steps, rules)
    reference = world.value(world.steps)
    values = [(1.0 - r.weight) * reference + r.weight * world.value(r.leading) for r in rungs]
    bets = np.array(rules.bets)
    wealth = np.zeros((len(rungs), bets.size))
    level = -np.log(rules.delta)
    at, violated = 0, False
    first = full = None
    for start in range(0, count, rules.batch):
        violated |= values[at] < (1.0 - rules.alpha) * reference * (1.0 - 1e-9)
        served = rungs[at]
        by_policy = rng.random(rules.batch) < served.weight
        reward, ratios = world.draw(rng, np.where(by_policy, served.leading, world.steps))
        wealth += _log_wealth(reward / world.reward_max, ratios, served, rungs, rules)
        passed = np.logaddexp.reduce(wealth, axis=1) - np.log(bets.size) >= level
        while at + 1 < len(rungs) and passed[at + 1]:
            at += 1
        seen = start + rules.batch
        if first is None and at > 0:
            first = seen
        if at + 1 == len(rungs):
            full = seen
            violated |= values[at] < (1.0 - rules.alpha) * reference * (1.0 - 1e-9)
            break
    return Climbed(bool(violated), first, full)


def _log_wealth(reward: Floats, ratios: Floats, served: Rung, rungs: list[Rung], rules: GuardRules) -> Floats:
    """Return [rungs, bets] growth of log wealth of one batch."""
    tails = np.exp(np.cumsum(ratios[:, ::-1], axis=1)[:, ::-1])  # [n, H]: policy with j leading steps over the baseline
    drawn = (1.0 - served.weight) + served.weight * tails[:, served.leading]
    w_baseline = 1.0 / drawn
    bets = np.array(rules.bets)
    out = np.zeros((len(rungs), bets.size))
    for index, rung in enumerate(rungs):
        excess = rung.weight - rules.alpha
        if excess <= 1e-12:
            continue
        y = reward * (rung.weight * tails[:, rung.leading] / drawn - excess * w_baseline)
        fraction = np.minimum(bets, _KEEP * (1.0 - served.weight) / excess)
        out[index] = np.log1p(fraction[:, None] * y).sum(1)
    return out


def run(seed: int, *, runs: int, count: int, progress: Progress) -> dict[str, Any]:
    """Return ``[world][lift][method]`` with ``violation_probability``, ``first`` and ``full``, each with ``X_ci``.

    Args:
        seed: of all runs.
        runs: per world, lift and method.
        count: units of each run.
        progress: called with what is running and the share done.
    """
    rules = GuardRules()
    worlds: dict[str, Callable[[np.random.Generator, float], World]] = {"slates": SlateWorld, "sessions": SessionWorld}
    results: dict[str, Any] = {"runs": runs, "units": count, "alpha": rules.alpha, "delta": rules.delta}
    for number, (name, build) in enumerate(worlds.items()):
        results[name] = {}
        for index, lift in enumerate(LIFTS):
            progress(f"{name} at {lift:+.0%}", (number + index / len(LIFTS)) / len(worlds))
            drawn = [build(np.random.default_rng([seed, i, 41]), lift) for i in range(runs)]
            results[name][f"{lift:+.2f}"] = {
                method: _row(
                    [
                        climb(world, method, rules, np.random.default_rng([seed, i, 43]), count=count)
                        for i, world in enumerate(drawn)
                    ]
                )
                for method in METHODS
            }
    return results


def _row(climbed: list[Climbed]) -> dict[str, Any]:
    violated = sum(c.violated for c in climbed)
    first, full = [c.first for c in climbed], [c.full for c in climbed]
    return {
        "violation_probability": violated / len(climbed),
        "violation_probability_ci": of_share(violated, len(climbed)),
        "first": median(first),
        "first_ci": of_median(first),
        "full": median(full),
        "full_ci": of_median(full),
    }
