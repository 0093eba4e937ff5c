"""StepMix: per episode, the most optimistic step mixture whose lower bound still meets the threshold.

Candidate j follows the baseline for its first j steps and the optimistic policy after them. Candidates j and j - 1
differ at one step only and the value is linear in that step's distribution, so mixing them there with weight
``rho = (L_j - gamma) / (L_j - L_{j-1})`` keeps the lower bound at gamma exactly, and the executed policy stays Markov
with exact propensities (Li, Huang, Shen, Yang 2023, arXiv 2306.06265, Algorithm 1; the form used here is derived in
the text above, constants and guarantees of the paper are not claimed).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.conservative.tabular.confidence import Model, evaluate, optimistic


class Mixture(NamedTuple):
    """What StepMix executes, per run.

    Attributes:
        policy: [n, H, S, A] the executed Markov policy.
        step: [n] leading baseline steps j* of the certified candidate; H + 1 while nothing is certified.
        weight: [n] share rho of the optimistic policy at step j* (1-based), in [0, 1].
        lower: [n] lower bound of the executed policy; that of the baseline while nothing is certified.
    """

    policy: Floats
    step: Ints
    weight: Floats
    lower: Floats


def plan(
    model: Model,
    baseline: Floats,
    gamma: Floats,
    *,
    baseline_value: Floats | None = None,
    target: Floats | None = None,
) -> Mixture:
    """Return the mixture to execute next.

    Args:
        model: empirical model and bonus constants.
        baseline: [n, H, S, A] the safe policy.
        gamma: [n] threshold on the expected return of every episode.
        baseline_value: [n] its value, where it is known exactly; tightens the pure-baseline candidate.
        target: [n, H, S, A] the policy mixed in; the optimistic one when not given.
    """
    n, horizon = baseline.shape[:2]
    aim = optimistic(model)[0] if target is None else target
    lowers = _ladder_lowers(model, baseline, aim)
    if baseline_value is not None:
        lowers[:, horizon] = np.maximum(lowers[:, horizon], baseline_value)
    certified = lowers >= gamma[:, None]
    step = np.where(certified.any(1), certified.argmax(1), horizon + 1)
    rows = np.arange(n)
    at = np.clip(step, 1, horizon)
    above, below = lowers[rows, at], lowers[rows, at - 1]
    mixable = (step >= 1) & (step <= horizon)
    weight = np.where(mixable, (above - gamma) / np.where(mixable, above - below, 1.0), (step == 0).astype(float))
    # Steps before j* (1-based) follow the baseline, step j* mixes, later steps follow the target.
    position = np.arange(1, horizon + 1)[None, :]
    share = np.where(position < step[:, None], 0.0, 1.0)
    share = np.where(mixable[:, None] & (position == step[:, None]), weight[:, None], share)
    share = share[:, :, None, None]
    policy = share * aim + (1.0 - share) * baseline
    lower = np.where(step == 0, lowers[:, 0], np.where(mixable, gamma, lowers[:, horizon]))
    return Mixture(policy, step, weight, lower)


def _ladder_lowers(model: Model, baseline: Floats, aim: Floats) -> Floats:
    """Return [n, H + 1] lower bounds of the candidates with 0..H leading baseline steps."""
    n, horizon = baseline.shape[:2]
    leading = np.arange(horizon + 1)[None, :, None, None, None] > np.arange(horizon)[None, None, :, None, None]
    ladder = np.where(leading, baseline[:, None], aim[:, None]).reshape(n * (horizon + 1), *baseline.shape[1:])
    stacked = Model(
        np.repeat(model.transitions, horizon + 1, axis=0),
        np.repeat(model.rewards, horizon + 1, axis=0),
        np.repeat(model.rate, horizon + 1, axis=0),
        model.bonus,
    )
    lower, _ = evaluate(stacked, ladder)
    return lower.reshape(n, horizon + 1)
