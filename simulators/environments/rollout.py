"""A world for the serving guard: contexts, two policies with a known lift, outcomes that mature late.

50 contexts, 10 actions, Bernoulli rewards of about one in ten; the candidate is a softmax policy of its own, tilted
towards or away from the good actions until its true lift over the baseline is the one asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from decision.batch import Floats
from decision.guard.drift import after_batch, has_drifted, no_drift
from decision.guard.evidence import certified_rung, evidence_of, is_better, is_futile, no_evidence
from decision.guard.rules import GuardRules


class World(NamedTuple):
    """One simulated decision point.

    Attributes:
        contexts: [X] their probabilities.
        reward: [X, A] mean rewards.
        baseline: [X, A] the baseline's pmf.
        candidate: [X, A] the candidate's pmf.
    """

    contexts: Floats
    reward: Floats
    baseline: Floats
    candidate: Floats

    def value(self, policy: Floats) -> float:
        """Return the expected reward of `policy` ([X, A])."""
        return float((self.contexts[:, None] * policy * self.reward).sum())


def world_with_lift(rng: np.random.Generator, lift: float, *, contexts: int = 50, actions: int = 10) -> World:
    """Return a random world whose candidate is worth ``1 + lift`` times the baseline, exact to 1e-9."""
    shares = rng.dirichlet(np.ones(contexts))
    reward = rng.beta(2.0, 18.0, size=(contexts, actions))
    baseline = _softmax(rng.normal(0.0, 1.0, (contexts, actions)))
    base = np.log(_softmax(rng.normal(0.0, 1.0, (contexts, actions))))
    tilt = (reward - reward.mean(1, keepdims=True)) / reward.std()
    world = World(shares, reward, baseline, baseline)
    low, high = -20.0, 20.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if world.value(_softmax(base + middle * tilt)) < (1.0 + lift) * world.value(baseline):
            low = middle
        else:
            high = middle
    return world._replace(candidate=_softmax(base + high * tilt))


class Rollout(NamedTuple):
    """What became of one candidate.

    Attributes:
        violated: a weight was served whose true value broke the promise.
        full: decisions until the top weight, or None.
        killed: decisions until the futility leg closed, or None.
        alarmed: decisions until the drift leg alarmed, or None.
        better: decisions until the promotion test passed, or None.
        lost: reward given up against the baseline, as a share of the baseline's.
        weights: weight served in every batch.
    """

    violated: bool
    full: int | None
    killed: int | None
    alarmed: int | None
    better: int | None
    lost: float
    weights: list[float]


def roll_out(
    world: World,
    rules: GuardRules,
    rng: np.random.Generator,
    *,
    decisions: int,
    lag: int = 2,
    drift_to: World | None = None,
    stop: bool = True,
) -> Rollout:
    """Roll one candidate out under the guard.

    Args:
        world: where it is served.
        rules: the guard's rules; ``rules.batch`` decisions are served between two looks.
        rng: draws.
        decisions: how many are served in all.
        lag: batches until rewards mature.
        drift_to: the world of the second half, when it changes.
        stop: end when the futility or drift leg fires.
    """
    evidence, drift = no_evidence(rules), no_drift(rules)
    waiting: list[tuple[Floats, Floats, Floats, Floats]] = []
    weight = rules.alpha
    weights: list[float] = []
    violated, lost = False, 0.0
    full = killed = alarmed = better = None
    for start in range(0, decisions, rules.batch):
        now = drift_to if drift_to is not None and start >= decisions // 2 else world
        mixture = (1.0 - weight) * now.baseline + weight * now.candidate
        reference, served = now.value(now.baseline), now.value(mixture)
        violated |= served < (1.0 - rules.alpha) * reference - 1e-12
        lost += 1.0 - served / reference
        weights.append(weight)
        waiting.append(_serve(now, mixture, weight, rules.batch, rng))
        if len(waiting) <= lag:
            continue
        reward, w_c, w_b, rho = waiting.pop(0)
        evidence = evidence.merge(evidence_of(reward, w_c, w_b, rho, rules))
        drift = after_batch(drift, reward, w_b, rules)
        seen = start + rules.batch
        if better is None and is_better(evidence, rules):
            better = seen
        if killed is None and is_futile(evidence, rules):
            killed = seen
        if alarmed is None and has_drifted(drift, rules):
            alarmed = seen
        if stop and (killed is not None or alarmed is not None):
            break
        weight = 0.0 if killed is not None else rules.rungs[certified_rung(evidence, rules)]
        if full is None and weight >= rules.top:
            full = seen
    return Rollout(violated, full, killed, alarmed, better, lost / max(len(weights), 1), weights)


def _serve(
    world: World, mixture: Floats, weight: float, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    x = rng.choice(world.contexts.size, count, p=world.contexts)
    action = (rng.random(count)[:, None] >= mixture[x].cumsum(1)).sum(1).clip(0, mixture.shape[1] - 1)
    reward = (rng.random(count) < world.reward[x, action]).astype(np.float64)
    served = mixture[x, action]
    return reward, world.candidate[x, action] / served, world.baseline[x, action] / served, np.full(count, weight)


def _softmax(logits: Floats) -> Floats:
    z = np.exp(logits - logits.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)
