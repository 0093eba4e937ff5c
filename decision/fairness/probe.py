"""The probe stream: pairs sampled with known probabilities, from which prevalence is estimated without bias.

Mined pairs are chosen because they look bad; their violation rate says nothing about the population. Probe pairs are
drawn within strata (distance quartile by gap bucket) with known inclusion probabilities, and weighted by their inverse
(Horvitz and Thompson 1952).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError


class Probe(NamedTuple):
    """A stratified sample of pairs.

    Attributes:
        chosen: [c] positions of the sampled pairs.
        inclusion: [c] probability with which each was included, in (0, 1].
        stratum: [c] stratum of each.
    """

    chosen: Ints
    inclusion: Floats
    stratum: Ints


def strata_of(distance: Floats, gap: Floats, *, gap_edges: tuple[float, ...] = (0.05, 0.1, 0.2, 0.35, 0.5)) -> Ints:
    """Return [n] strata of pairs: distance quartile times gap bucket."""
    quartile = np.searchsorted(np.quantile(distance, [0.25, 0.5, 0.75]), distance, side="right")
    bucket = np.searchsorted(np.array(gap_edges), gap, side="right")
    return (quartile * (len(gap_edges) + 1) + bucket).astype(np.int64)


def sample(stratum: Ints, budget: int, rng: np.random.Generator) -> Probe:
    """Return `budget` pairs at most, spread evenly over the strata that exist.

    Args:
        stratum: [n] stratum of every pair.
        budget: pairs to draw, 1 or more.
        rng: draws, without replacement inside each stratum.

    Raises:
        FieldError: the budget is not positive.
    """
    if budget < 1:
        raise FieldError("budget", wanted="1 or more", got=budget)
    names = np.unique(stratum)
    if budget < names.size:  # a stratum left out could never be weighted back in: one stratum of all then
        stratum, names = np.zeros_like(stratum), np.zeros(1, dtype=np.int64)
    each = budget // names.size
    chosen: list[Ints] = []
    inclusion: list[Floats] = []
    for name in names:
        members = np.flatnonzero(stratum == name)
        count = min(each, members.size)
        chosen.append(rng.choice(members, size=count, replace=False).astype(np.int64))
        inclusion.append(np.full(count, count / members.size))
    picked = np.concatenate(chosen)
    return Probe(picked, np.concatenate(inclusion), stratum[picked])


class Rate(NamedTuple):
    """An estimated violation rate per pair.

    Attributes:
        value: Horvitz-Thompson estimate in [0, 1].
        low: lower end of its interval.
        high: upper end of its interval.
        pairs: judged pairs behind it.
    """

    value: float
    low: float
    high: float
    pairs: int


def violation_rate(violating: Floats, probe: Probe, population: int, *, z: float = 1.959963984540054) -> Rate:
    """Return the rate of violating pairs among `population`, with a normal interval over the strata's variances.

    Args:
        violating: [c] 1 where the panel upholds the sampled pair.
        probe: the sample.
        population: pairs the sample was drawn from.
        z: normal quantile of the interval.
    """
    value = float((violating / probe.inclusion).sum() / population)
    variance = 0.0
    for name in np.unique(probe.stratum):
        rows = probe.stratum == name
        count, share = int(rows.sum()), float(probe.inclusion[rows][0])
        size = count / share
        # Agresti-Coull's two added successes and failures: a stratum without a violation is not one of variance 0.
        mean = (float(violating[rows].sum()) + 2.0) / (count + 4.0)
        variance += (size / population) ** 2 * (1.0 - share) * mean * (1.0 - mean) / count
    half = z * float(np.sqrt(variance))
    return Rate(value, max(0.0, value - half), min(1.0, value + half), int(probe.chosen.size))
