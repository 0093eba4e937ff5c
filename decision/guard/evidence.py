"""Evidence about a candidate as sums that merge exactly: betting e-processes for each rung, futility and promotion.

A decision served at weight rho with importance weights ``w_c`` and ``w_b`` (candidate's and baseline's probability of
the chosen action over the served one) has, for rung rho',

    Y(rho') = (r - c) * m + alpha * c,    m = rho' * w_c - (rho' - alpha) * w_b,
    E[Y | past] = V(mix at rho') - (1 - alpha) * V(baseline),

for any c that was fixed before, since the mean of each weight is 1 and so m's is alpha. With c near the mean reward,
m's own spread, which has nothing to do with rewards, hardly counts: a control variate that needs no model. For rewards
in [0, 1] m lies between ``-(rho' - alpha) / (1 - rho)`` and ``rho' / rho``, which bounds Y from below. Betting a fixed
fraction l on Y multiplies wealth by ``1 + l * Y``: a supermartingale while the rung breaks its promise, so wealth of
1/delta refutes that (Ville 1939; Waudby-Smith and Ramdas 2023, arXiv 2010.09686). Wealth is averaged over a fixed grid
of bets, which makes the state a plain sum of logarithms. Logarithms are rounded to 2^-40 and held as integers:
additions are exact, so any order and any partition of the same decisions give the same state, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError, Words
from decision.guard.rules import GuardRules

SCALE = 2.0**40
_KEEP = 0.95  # share of the largest admissible bet that is used, so that wealth never reaches 0


class Evidence(NamedTuple):
    """Mergeable state of one (loop, segment, baseline version, candidate version).

    Attributes:
        decisions: matured decisions folded in.
        ladder: [G, J] int64, log wealth per rung and bet, times 2^40.
        futility: [J] int64, log wealth that the candidate is worse than the baseline.
        promotion: [J] int64, log wealth that the candidate is better than the baseline.
        weights: [4] int64, sums of w_c, w_b and their squares, times 2^20 (the audit: both means must be 1).
        clipped: rewards that lay above the maximum and were cut.
    """

    decisions: int
    ladder: Ints
    futility: Ints
    promotion: Ints
    weights: Ints
    clipped: int

    def merge(self, other: Evidence) -> Evidence:
        """Return the evidence of both sets of decisions together; exact."""
        return Evidence(
            self.decisions + other.decisions,
            self.ladder + other.ladder,
            self.futility + other.futility,
            self.promotion + other.promotion,
            self.weights + other.weights,
            self.clipped + other.clipped,
        )


def no_evidence(rules: GuardRules) -> Evidence:
    """Return the state before any decision: all wealth is 1."""
    bets = len(rules.bets)
    zeros = np.zeros(bets, dtype=np.int64)
    return Evidence(
        0, np.zeros((len(rules.rungs), bets), dtype=np.int64), zeros, zeros.copy(), np.zeros(4, dtype=np.int64), 0
    )


def evidence_of(
    reward: Floats, weight_candidate: Floats, weight_baseline: Floats, rho: Floats, rules: GuardRules
) -> Evidence:
    """Return the evidence of n decisions.

    Args:
        reward: [n] matured rewards, shifted so that they are not negative.
        weight_candidate: [n] w_c, candidate's over served probability of the chosen action.
        weight_baseline: [n] w_b, baseline's over served probability of the chosen action.
        rho: [n] weight at which each decision was served, in [0, top].
        rules: the guard's rules.

    Raises:
        FieldError: a reward is negative (the free floor would not hold) or a weight breaks the mixture's identity.
    """
    if reward.size and float(reward.min()) < 0:
        raise FieldError("reward", wanted="rewards of 0 or more; shift them by the loop's minimum", got=reward.min())
    identity = rho * weight_candidate + (1.0 - rho) * weight_baseline
    if reward.size and float(np.abs(identity - 1.0).max()) > 1e-6:
        wanted = "such that rho * w_c + (1 - rho) * w_b = 1"
        raise FieldError("weights", wanted=wanted, got=Words(f"off by {np.abs(identity - 1.0).max():g}"))
    clipped = int((reward > rules.reward_max).sum())
    columns = np.stack([weight_candidate, weight_baseline, weight_candidate**2, weight_baseline**2])
    weights = np.rint(columns * 2.0**20).astype(np.int64).sum(1)
    # Without a centre a reward of 0 multiplies every wealth by 1: only the others enter.
    won, center = (reward > 0) | (rules.center > 0), rules.center
    r = np.minimum(reward[won], rules.reward_max) / rules.reward_max - center
    w_c, w_b, share = weight_candidate[won], weight_baseline[won], rho[won]
    bets = np.array(rules.bets)
    ladder = np.zeros((len(rules.rungs), bets.size), dtype=np.int64)
    for g, rung in enumerate(rules.rungs):
        excess = rung - rules.alpha
        if excess <= 1e-12:
            continue
        y = r * (rung * w_c - excess * w_b) + rules.alpha * center
        ladder[g] = _log_wealth(y, bets, _cap(excess, rung, 1.0 - share, share, center))
    difference = r * (w_c - w_b)
    promotion = _log_wealth(difference, bets, _cap(1.0, 1.0, 1.0 - share, share, center))
    some = share > 0
    futility = _log_wealth(-difference[some], bets, _cap(1.0, 1.0, share[some], 1.0 - share[some], center))
    return Evidence(int(reward.size), ladder, futility, promotion, weights, clipped)


def _cap(baseline: float, candidate: float, of_baseline: Floats, of_candidate: Floats, center: float) -> Floats:
    """Return [n] the largest bets on (r - c) * m for m between -baseline / of_baseline and candidate / of_candidate."""
    cap = _KEEP * of_baseline / baseline / (1.0 - center)
    return np.minimum(cap, _KEEP * of_candidate / candidate / center) if center > 0.0 else cap


def _log_wealth(y: Floats, bets: Floats, cap: Floats) -> Ints:
    """Return [J] summed log(1 + l * y), each term rounded to 2^-40."""
    fraction = np.minimum(bets[:, None], cap[None, :])
    return np.rint(np.log1p(fraction * y[None, :]) * SCALE).astype(np.int64).sum(1)


def log_mean_wealth(log_wealth: Ints) -> Floats:
    """Return the log of the wealth averaged over bets (the last axis)."""
    logs = log_wealth / SCALE
    top = logs.max(-1, keepdims=True)
    return (top + np.log(np.exp(logs - top).mean(-1, keepdims=True)))[..., 0]


def certified_rung(evidence: Evidence, rules: GuardRules, delta: float | None = None) -> int:
    """Return the index of the highest rung that may be served.

    Rungs are tested in order and each only while all below it hold: an error needs the first rung that breaks its
    promise to be refuted wrongly, so one delta covers the whole ladder.
    """
    level = -np.log(rules.delta if delta is None else delta)
    passed = log_mean_wealth(evidence.ladder) >= level
    rung = 0
    while rung + 1 < len(rules.rungs) and passed[rung + 1]:
        rung += 1
    return rung


def is_futile(evidence: Evidence, rules: GuardRules) -> bool:
    """Return whether the candidate is refuted: worse than the baseline at error `delta_futility`."""
    return bool(log_mean_wealth(evidence.futility) >= -np.log(rules.delta_futility))


def is_better(evidence: Evidence, rules: GuardRules) -> bool:
    """Return whether the candidate has shown itself better than the baseline (alpha = 0)."""
    return bool(log_mean_wealth(evidence.promotion) >= -np.log(rules.delta_promotion))
