"""Can the logged propensities be believed? Checks that need the log alone.

Draws are repeated from their seeds and compared one by one; choices are compared with the pmfs by a chi-square test on
the rank of the chosen action (Pearson 1900); and the identity E[1/p] = E[K] is tested, which holds for every correct
log, whatever the policy, when K counts the actions that could have been drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import special

from decision.batch import Floats, Ints
from decision.draw import draw

MAX_BINS = 20
MAX_SHARE = 0.25
MAX_FAIR_SHARES = 10.0


@dataclass(frozen=True, slots=True)
class PropensityReport:
    """What a check of a log's propensities found.

    Attributes:
        ok: nothing speaks against them.
        reasons: what does, in words.
        numbers: what was measured, by name.
    """

    ok: bool
    reasons: tuple[str, ...]
    numbers: dict[str, float] = field(default_factory=dict)


def check_identities(propensity: Floats, actions: Ints, *, z: float = 4.0) -> PropensityReport:
    """Check propensities of chosen actions against the number of actions.

    The sample mean of 1/p is heavy-tailed to the right, so the test of E[1/p] = E[K] is one of plausibility: the mean
    of 1/(p K) must lie within `z` standard errors of 1, and no single row may carry it (a quarter of the whole, and
    more than ten times its fair share). At 4 standard errors the first fails a correct log with probability 6e-5 where
    the mean is close to normal, more often where few rows carry the tail.

    Args:
        propensity: [n] of the chosen actions.
        actions: [n] numbers of actions with positive probability; of all that were offered where that is not known.
        z: standard errors allowed.
    """
    reasons: list[str] = []
    if not propensity.size:
        return PropensityReport(True, (), {"rows": 0.0})
    inside = (propensity > 0) & (propensity <= 1) & np.isfinite(propensity)
    if not inside.all():
        bad = int((~inside).sum())
        return PropensityReport(False, (f"{bad} propensities are not in (0, 1]",), {"invalid": float(bad)})
    inverse = 1.0 / propensity
    weights = inverse / actions
    mean = float(weights.mean())
    error = float(weights.std(ddof=1) / np.sqrt(weights.size)) if weights.size > 1 else np.inf
    share = float(weights.max() / weights.sum())
    ess = float(weights.sum() ** 2 / (weights**2).sum())
    if abs(mean - 1.0) > z * error + 1e-9:
        reasons.append(f"mean weight of the uniform policy is {mean:.3f}, not 1 (standard error {error:.3f})")
    if share > max(MAX_SHARE, MAX_FAIR_SHARES / weights.size):
        reasons.append(
            f"one row carries {share:.0%} of the weight of the uniform policy (its propensity is "
            f"{float(propensity.min()):.1e}; the mean of 1/p is {float(inverse.mean()):.1f} for "
            f"{float(actions.mean()):.0f} actions)"
        )
    numbers = {
        "rows": float(propensity.size),
        "mean_weight": mean,
        "mean_weight_error": error,
        "mean_inverse": float(inverse.mean()),
        "mean_actions": float(actions.mean()),
        "smallest": float(propensity.min()),
        "largest_weight": float(weights.max()),
        "largest_share": share,
        "ess_uniform": ess,
    }
    return PropensityReport(not reasons, tuple(reasons), numbers)


def check_draws(
    pmf: Floats, offsets: Ints, index: Ints, propensity: Floats, seeds: Ints, *, error: float = 1e-4
) -> PropensityReport:
    """Repeat every draw and test the choices against the pmfs.

    Args:
        pmf: [m] logged distributions, flat.
        offsets: [n + 1].
        index: [n] 0-based chosen action of each decision.
        propensity: [n] logged propensities.
        seeds: [n] logged seeds.
        error: probability with which the chi-square test rejects a correct log.

    Returns:
        The report; its numbers name the share of offered actions that could not have been drawn, which is no error of
        the log, but leaves every policy that would draw them without an answer.
    """
    reasons: list[str] = []
    cuts = offsets.tolist()
    flat = pmf.tolist()
    wrong = sum(
        draw(flat[cuts[i] : cuts[i + 1]], seed) != chosen
        for i, (seed, chosen) in enumerate(zip(seeds.tolist(), index.tolist(), strict=True))
    )
    if wrong:
        reasons.append(f"{wrong} of {index.size} draws are not those of their seeds")
    unequal = int((pmf[offsets[:-1] + index] != propensity).sum())
    if unequal:
        reasons.append(f"{unequal} propensities are not the pmf's value at the chosen action")
    sums = np.add.reduceat(pmf, offsets[:-1])
    broken = int((np.abs(sums - 1.0) > 1e-6).sum()) + int((pmf < 0).sum())
    if broken:
        reasons.append(f"{broken} pmfs do not sum to 1 or go below 0")
    statistic, freedom, p_value = chi_square_of_ranks(pmf, offsets, index)
    if p_value < error:
        reasons.append(
            f"choices do not follow the pmfs: chi-square {statistic:.1f} on {freedom} degrees, p {p_value:.1e}"
        )
    numbers = {
        "decisions": float(index.size),
        "redrawn": float(index.size - wrong),
        "unequal": float(unequal),
        "unsupported": float((pmf <= 0).mean()) if pmf.size else 0.0,
        "chi_square": statistic,
        "degrees": float(freedom),
        "p_value": p_value,
    }
    return PropensityReport(not reasons, tuple(reasons), numbers)


def chi_square_of_ranks(pmf: Floats, offsets: Ints, index: Ints) -> tuple[float, int, float]:
    """Return statistic, degrees of freedom and p-value of choices against pmfs, by rank of probability.

    Decisions differ in their pmfs, so counts are compared per rank (most probable action, second, ...): expected counts
    and variances are sums over decisions. The last bins are merged until each expects five.
    """
    n = index.size
    k = np.diff(offsets)
    group = np.repeat(np.arange(n), k)
    bins = np.minimum(_ranks(pmf, offsets), MAX_BINS - 1)
    expected = np.bincount(bins, weights=pmf, minlength=MAX_BINS)
    observed = np.bincount(bins[offsets[:-1] + index], minlength=MAX_BINS).astype(np.float64)
    while expected.size > 2 and expected[-1] < 5.0:
        expected = np.append(expected[:-2], expected[-2:].sum())
        observed = np.append(observed[:-2], observed[-2:].sum())
    keep = expected > 0
    last = expected.size - 1
    cell = group * expected.size + np.minimum(bins, last)
    mass = np.bincount(cell, weights=pmf, minlength=n * expected.size).reshape(n, expected.size)
    # Covariance of the counts: sums of diag(p) - p p' over decisions; its inverse makes the statistic exact in the
    # limit even though no two decisions share a pmf.
    covariance = np.diag(mass.sum(0)) - mass.T @ mass
    difference = observed - expected
    rows = np.flatnonzero(keep)
    values, vectors = np.linalg.eigh(covariance[np.ix_(rows, rows)])
    good = values > 1e-9 * max(values.max(initial=0.0), 1e-300)
    freedom = int(good.sum())
    if freedom == 0:
        return 0.0, 0, 1.0
    projected = vectors[:, good].T @ difference[rows]
    statistic = float((projected**2 / values[good]).sum())
    return statistic, freedom, float(special.chdtrc(freedom, statistic))


def _ranks(pmf: Floats, offsets: Ints) -> Ints:
    """Return [m] ranks by probability within each decision, from 0 for the largest; the first of equal ones first."""
    sizes = np.diff(offsets)
    rank = np.empty(pmf.size, dtype=np.int64)
    for size in np.unique(sizes).tolist():  # decisions with as many actions are sorted at once
        flat = offsets[:-1][sizes == size][:, None] + np.arange(size)
        order = np.argsort(-pmf[flat], axis=1, kind="stable")
        rank[np.take_along_axis(flat, order, axis=1)] = np.arange(size)
    return rank
