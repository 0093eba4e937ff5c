"""The gate on clicks: how often it serves what is truly worse than its margin, and what a gain takes to be served.

``make soak NAME=gate``, with ``ARGS="--runs N --seed S"`` for others. Every run is a world of four kinds of visitors,
who are shown one of four offers, with a proven champion and candidates of known worth. Each night brings the decisions
that 100 clicks take at the rate; a fifth is held out, and one of two candidates is judged on all that was held out so
far, by the estimates and the rules of a loop. The reward model has learned from 2,500 clicks of another log, and
candidates lean towards its mistakes: they look better to it than they are.

Rows of the same visitor, offer and outcome add the same to every sum. So a holdout is drawn as counts of each, and its
sums are those of single rows times the counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.gate import Reference, judge
from decision.ope.sums.exact import rounded
from decision.options import Range
from pipelines.evaluation.holdout import Compared, compared_of
from simulators.studies.interval import of_share

KINDS, OFFERS, CANDIDATES = 4, 4, 2
RATES = (0.006, 0.01, 0.05)
WORTH = (-0.02, 0.1, 0.3)
"""Of the candidates over the champion; what may be lost is a twentieth of the third that it gains, .0167 of it."""
CLICKS, HELD_OUT, NIGHTS = 100.0, 0.2, 60
ALPHA, SHARE, MINIMUM_ESS = 0.05, 0.05, 50.0


class World(NamedTuple):
    """What offers pay, and who decides.

    Attributes:
        rate: [KINDS, OFFERS] chance of a click.
        champion: [KINDS, OFFERS] its distributions; it drew the log.
    """

    rate: Floats
    champion: Floats

    def value(self, policy: Floats) -> float:
        """Return the clicks per decision of a policy."""
        return float((policy * self.rate).sum(1).mean())


def world_of(rng: np.random.Generator, rate: float) -> World:
    """Return a world in which uniform draws give `rate` clicks a decision, and the champion half as many again."""
    while True:
        means = np.exp(rng.standard_normal((KINDS, OFFERS)))
        world = World(np.minimum(means * rate / means.mean(), 0.9), np.full((KINDS, OFFERS), 1.0 / OFFERS))
        if world.value(np.eye(OFFERS)[world.rate.argmax(1)]) > 2.1 * rate:  # a gain of a third is there to be had
            break
    return world._replace(champion=tilted(rng, world, 1.5 * rate))


def tilted(rng: np.random.Generator, world: World, worth: float, mistaken: Floats | None = None) -> Floats:
    """Return a random policy, tilted to what pays until it is worth `worth` clicks a decision; 2% is uniform.

    Args:
        rng: draws.
        world: what pays.
        worth: clicks a decision.
        mistaken: [KINDS, OFFERS] logarithms that it leans to beside; None for none.
    """
    noise, score = 0.3 * rng.standard_normal((KINDS, OFFERS)), np.log(world.rate)
    score -= score.mean(1, keepdims=True)
    noise += 0.0 if mistaken is None else mistaken
    low, high, policy = -30.0, 30.0, world.champion
    for _ in range(60):
        tilt = (low + high) / 2.0
        drawn = np.exp(noise + tilt * score)
        policy = 0.98 * drawn / drawn.sum(1, keepdims=True) + 0.02 / OFFERS
        low, high = (tilt, high) if world.value(policy) < worth else (low, tilt)
    return policy


def model_of(rng: np.random.Generator, world: World) -> tuple[Floats, float]:
    """Return what a model of 2,500 clicks of the champion's log expects, [KINDS, OFFERS], and its sigma."""
    shown = rng.poisson(2_500.0 / world.value(world.champion) / KINDS * world.champion)
    clicks = rng.binomial(shown, world.rate)
    mean = clicks.sum() / shown.sum()
    return (clicks + 5.0) / (shown + 5.0 / mean), math.sqrt(mean * (1.0 - mean))


def summed(parts: Sequence[Any]) -> Callable[[Ints], Any]:
    """Return what makes of [n] counts the sums of so many rows of each of the n `parts`, which are sums of one row."""
    first = parts[0]
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        inner = {
            field.name: summed([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(first)
        }
        return lambda counts: type(first)(**{name: of(counts) for name, of in inner.items()})
    if isinstance(first, tuple) and any(not isinstance(each, float) for part in parts for each in part):
        columns = [summed(column) for column in zip(*parts, strict=True)]
        return lambda counts: tuple(of(counts) for of in columns)
    if isinstance(first, tuple):
        values = np.array([rounded(part) for part in parts])
        return lambda counts: (total,) if (total := float(counts @ values)) else ()
    if isinstance(first, float):  # the largest of all rows, or a constant
        sizes = np.array(parts)
        return lambda counts: float(sizes[counts > 0].max(initial=sizes.min()))
    if isinstance(first, int) and not isinstance(first, bool):
        return lambda counts: int(counts @ np.array(parts))
    return lambda counts: first


def reference_of(world: World, new: Floats, expected: Floats, sigma: float) -> Callable[[Ints, int, int], Reference]:
    """Return what makes the reference of [KINDS * OFFERS * 2] counts of rows and the numbers of verdicts."""
    nothing: Features = {}
    batch = Batch([nothing], [nothing] * OFFERS, [""] * OFFERS, np.array([0, OFFERS]))
    diluted, reward = (1.0 - SHARE) * world.champion + SHARE / OFFERS, Range(low=0.0, high=1.0)
    rows: list[Compared] = []
    for kind, offer, clicked in np.ndindex(KINDS, OFFERS, 2):
        drawn = world.champion[kind]
        row = Interactions(batch, np.array([offer]), drawn[[offer]], np.array([float(clicked)]), drawn)
        rows.append(compared_of(row, new[kind], drawn, diluted[kind], expected[kind], reward))
    of = summed(rows)

    def reference(counts: Ints, look: int, likely: int) -> Reference:
        one: Compared = of(counts)
        assert one.kept is not None
        score = one.score(sigma)
        estimates = one.lift.estimate, one.kept.estimate, one.switched.estimate
        return Reference("the champion", *estimates, predicted=score, look=look, likely=likely)

    return reference


def run(rng: np.random.Generator, rate: float, worth: float) -> int | None:
    """Return the night on which a candidate worth `worth` more than the champion is promoted; None for none of them."""
    world = world_of(rng, rate)
    (expected, sigma), value = model_of(rng, world), world.value(world.champion)
    mistaken = np.log(expected / world.rate)
    candidates = [tilted(rng, world, (1.0 + worth) * value, mistaken) for _ in range(CANDIDATES)]
    references = [reference_of(world, candidate, expected, sigma) for candidate in candidates]
    shown = np.stack([1.0 - world.rate, world.rate], axis=2) * (world.champion / KINDS)[:, :, None]
    counts, held = np.zeros(shown.size, np.int64), round(HELD_OUT * CLICKS / value)
    looks = likely = 0
    for night in range(NIGHTS):
        counts += rng.multinomial(held, shown.ravel())
        reference = references[night % CANDIDATES](counts, looks + 1, likely + 1)
        verdict = judge([reference], alpha=ALPHA, minimum_ess=MINIMUM_ESS)
        if verdict.promote:
            return night + 1
        looks += verdict.numbers["judged"] == 1.0
        likely += verdict.numbers["judged"] == verdict.numbers["likely"] == 1.0
    return None


def simulated(rate: float, worth: float, runs: int, seed: int) -> dict[str, Any]:
    """Return how many of `runs` runs promoted a candidate, and after how many decisions and clicks."""
    nights = [
        run(np.random.default_rng([seed, number, round(1e5 * rate), round(1e3 * (1.0 + worth))]), rate, worth)
        for number in range(runs)
    ]
    taken = sum(night is not None for night in nights)
    sorted_nights = sorted(NIGHTS + 1 if night is None else night for night in nights)
    found: dict[str, Any] = {"promoted": taken / runs, "promoted_ci": of_share(taken, runs)}
    for name, share in (("half", 0.5), ("nine_tenths", 0.9)):
        night = sorted_nights[min(int(share * runs), runs - 1)]
        found[name] = (
            None
            if night > NIGHTS
            else {"decisions": round(night * CLICKS / (1.5 * rate)), "clicks": round(night * CLICKS)}
        )
    return found


def main() -> None:
    """Print a row for each rate and worth, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, action="append", help="only this one; may be given again")
    parser.add_argument("--worth", type=float, action="append", help="only this one; may be given again")
    options = parser.parse_args()
    detail: dict[str, Any] = {}
    for rate in options.rate or RATES:
        for worth in options.worth or WORTH:
            detail[f"{rate:g} {worth:+g}"] = found = simulated(rate, worth, options.runs, options.seed)
            print(f"{rate:<6g} {worth:+.2f} {found}", flush=True)
    print(json.dumps({"name": "gate", "detail": detail}))


if __name__ == "__main__":
    main()
