"""Study of slates and sessions: StepMix rungs from the tail, the EpsMix coin, and a gate on the whole policy.

Each unit (a slate, a session) is served by the baseline or, with probability rho, by a step mixture: the baseline for
its first j steps, the candidate with probability sigma at the next one, the candidate after it. Propensities are those
of the mixture over whole units. The promise of a mixture is tested by betting on

    Y = r * (rho * w_mixture - (rho - alpha) * w_baseline),        E[Y] = V(served) - (1 - alpha) * V(baseline),

as in the guard (`decision.guard.evidence`), only that the mixture tested may be another than the one served: with j
leading baseline steps the weight has H - j factors, so those of the tail vary least.

    stepmix  rho = top; j = H - 1 .. 0 and sigma = 0.1 .. 1, each served once it and all below it are certified
    coin     j = 0, sigma = 1; rho climbs the guard's ladder (EpsMix over whole units)
    gate     j = 0, sigma = 1, rho = top once certified; the baseline alone until then
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from decision.batch import Floats, Ints
from decision.guard.rules import GuardRules
from simulators.environments.sessions import SessionWorld
from simulators.environments.slates import SlateWorld
from simulators.studies.interval import median, of_median, of_share

LIFTS = (0.05, 0.1, -0.06, -0.1)
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
METHODS = ("stepmix", "coin", "gate")
BATCH = 500
_KEEP = 0.95  # share of the largest admissible bet, as in the guard

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
        weight: rho, probability of the step mixture.
        share: sigma, of the candidate at step j.
    """

    leading: int
    weight: float
    share: float = 1.0

    def least(self, steps: int) -> float:
        """Return the smallest weight over the baseline; above 0 only where nothing but the last step is mixed."""
        return 1.0 - self.share if self.leading == steps - 1 else 0.0

    def of(self, per_leading: Floats) -> Floats:
        """Return what is linear in step j's distribution, given [..., H + 1] its values at sigma = 1."""
        return (1.0 - self.share) * per_leading[..., self.leading + 1] + self.share * per_leading[..., self.leading]


def ladder(method: str, steps: int, rules: GuardRules) -> list[Rung]:
    """Return the mixtures in the order in which they are certified; the first needs no certificate."""
    if method == "stepmix":
        # At most a share alpha of the units deviates from the baseline: free, as in the guard.
        free = Rung(steps - 1, rules.top, rules.alpha / rules.top)
        return [free, *[Rung(j, rules.top, share) for j in range(steps - 1, -1, -1) for share in SHARES]]
    if method == "coin":
        return [Rung(0, weight) for weight in rules.rungs]
    return [Rung(0, 0.0), Rung(0, rules.top)]


def climb(world: World, method: str, rules: GuardRules, rng: np.random.Generator, *, count: int) -> Climbed:
    """Roll a candidate out by `method` over `count` units, in batches of ``rules.batch``."""
    rungs = ladder(method, world.steps, rules)
    reference = world.value(world.steps)
    per_leading = np.array([world.value(j) for j in range(world.steps + 1)])
    values = [(1.0 - r.weight) * reference + r.weight * float(r.of(per_leading)) for r in rungs]
    bets = np.array(rules.bets)
    wealth = np.zeros((len(rungs), bets.size))
    level = -np.log(rules.delta)
    at, violated = 0, False
    first = full = None
    for start in range(0, count, rules.batch):
        violated |= values[at] < (1.0 - rules.alpha) * reference * (1.0 - 1e-9)
        served = rungs[at]
        mixed, whole = rng.random((2, rules.batch))
        leading = np.where(whole < served.share, served.leading, served.leading + 1)
        reward, ratios = world.draw(rng, np.where(mixed < served.weight, leading, world.steps))
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
    tails = np.ones((ratios.shape[0], ratios.shape[1] + 1))  # policy with j leading steps over the baseline
    tails[:, :-1] = np.exp(np.cumsum(ratios[:, ::-1], axis=1)[:, ::-1])
    drawn = (1.0 - served.weight) + served.weight * served.of(tails)
    w_baseline = 1.0 / drawn
    bets = np.array(rules.bets)
    least_drawn = (1.0 - served.weight) + served.weight * served.least(ratios.shape[1])
    out = np.zeros((len(rungs), bets.size))
    for index, rung in enumerate(rungs):
        excess = rung.weight - rules.alpha
        if excess <= 1e-12:
            continue
        y = reward * (rung.weight * rung.of(tails) / drawn - excess * w_baseline)
        at_risk = max(excess - rung.weight * rung.least(ratios.shape[1]), 1e-12)
        fraction = np.minimum(bets, _KEEP * least_drawn / at_risk)
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
    rules = GuardRules(batch=BATCH)
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
