"""A plain clone that follows a critic in steps, each taken only where users apart prove that it pays.

    take pi_k in place of pi    where    mean_i d_i - t(1 - alpha / looks, n - 1) sd(d) / sqrt(n) > 0
    and mean_i d_i > r,    d_i = J_i(pi_k) - J_i(pi)

J_i is what a policy earns user i in a simulator of users that neither the critic nor the clones saw; both policies of
a pair meet the same noise, and a step meets noise of its own (improvement in several steps behind an off-policy
evaluation: Lei et al. 2024, Uni-O4, whose steps are clipped ratios; the bound is ours). The bound knows how users
differ and not how the simulator errs, so a gain has to be larger than r, half the width of the 95% interval of its
error on what was logged. Steps are clones by a growing weight of the critic's advantages: near the log first, the
critic's choice last.

Only users whose trajectories are imitated prove a step. A simulator of all users of a log that is mixed of versions
hardly knows what the better ones show, and passed steps that lost a fifth of the return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from decision.batch import Floats
from simulators.learned.groups import GroupView
from simulators.learned.knowledge import Ahead, ahead, horizons_of
from simulators.learned.lookahead import returns_in_model
from simulators.learned.responses import ReservoirResponse, bounds_of
from simulators.learned.trajectories import Counts, Trajectories
from simulators.offline.cloning import CloneRecipe, cloned
from simulators.offline.critic import CriticRecipe, advantages_of
from simulators.offline.weights import Kind, weights_of
from simulators.sim2rec.network import ContextPolicy

BETAS = (1.0, 2.0, 3.0, 4.5, 6.0, 8.0)
"""How much better decisions count in each step, per standard deviation of the advantages."""
ALPHA = 0.05
"""Probability of taking any step that the users apart only seem to prove, over all steps."""
FEWEST = 30
"""Imitated users apart without whom nothing is proven: of fewer, a mean need not be as good as normal."""
FEWEST_DECISIONS = 1_000
"""And decisions of theirs: of fewer, a simulator of some 270 numbers knows each by heart."""
_SHARE = 4
_MOST_APART = 400
_DRAWS = 3
_WIDTH = 120

Gated = Literal["mixed", "always", "never"]
"""Whether steps have to be proven: on logs of several versions (``mixed``), on all, on none."""
Play = Callable[[ContextPolicy, int], Floats]
"""What a policy earns each user apart, in noise of that number: [n] mean reward per decision."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as the users apart saw it, in reward per decision.

    Attributes:
        beta: weight of the critic's advantages.
        gain: over the policy in place, mean over users.
        low: lower bound of that, at alpha over the number of steps.
        believed: what the step's policy earns.
        taken: whether it is in place since.
    """

    beta: float
    gain: float
    low: float
    believed: float
    taken: bool


def apart_of(users: int, others: Counts, seed: int) -> Counts:
    """Return a quarter of that many users, 400 at most, none of whom is among `others`; ascending."""
    free = np.setdiff1d(np.arange(users), others)
    return np.sort(np.random.default_rng([seed, 3]).permutation(free)[: min(users // _SHARE, _MOST_APART)])


def imitated_of(weights: Floats) -> Counts:
    """Return who of [n] users is imitated, ascending: weighs half of what he would if all were alike, or more."""
    return np.flatnonzero(weights >= 0.5 / len(weights))


def in_steps(
    log: Trajectories,
    view: GroupView,
    offered: Counts,
    kind: Kind,
    apart: Counts,
    critic: CriticRecipe,
    recipe: CloneRecipe,
    seed: int,
) -> tuple[ContextPolicy, dict[str, float]]:
    """Return the last step that was proven, or a plain clone of all users where none was, and what became of each.

    Args:
        log: the trajectories.
        view: what the policy sees.
        offered: codes of its outputs.
        kind: whose trajectories are imitated more.
        apart: users whom neither critic nor steps are made of; the imitated ones among them prove.
        critic: how much it learns.
        recipe: how much a clone does; its beta is not used.
        seed: of everything.

    Returns:
        The policy; and by name how many ``users_apart`` prove, how many ``steps_taken``, the gain of each step and its
        lower bound in reward per decision (``gain_at_1``, ``gain_low_at_1``, ...), how far the simulator is off on what
        was logged (``error_apart``) and half the width of that one's interval (``resolution_apart``), and of the last
        step taken its ``beta`` and what it earns (``believed_apart``).
    """
    weights = weights_of(log, kind)
    witnesses = log.take(np.intersect1d(apart, imitated_of(weights)))
    told = {"users_apart": float(len(witnesses)), "steps_taken": 0.0}
    if can_prove(witnesses):
        rest = log.take(np.setdiff1d(np.arange(len(log)), apart))
        mine, advantages = weights_of(rest, kind), advantages_of(rest, offered, critic, seed)

        def clone(beta: float) -> ContextPolicy:
            return cloned(rest, view, offered, advantages, mine, replace(recipe, beta=beta), seed)

        play, error = play_of(witnesses, view, offered, bounds_of(log), seed)
        policy, steps = climbed(clone, play, error.high - error.off, 1_000 * seed + 1)
        for step in steps:
            told |= {f"gain_at_{step.beta:g}": step.gain, f"gain_low_at_{step.beta:g}": step.low}
        told |= {"error_apart": error.off, "resolution_apart": error.high - error.off}
        taken = [step for step in steps if step.taken]
        if taken:
            last = {"steps_taken": float(len(taken)), "beta": taken[-1].beta, "believed_apart": taken[-1].believed}
            return policy, told | last
    alike = np.zeros(log.actions.shape, np.float32)
    return cloned(log, view, offered, alike, weights, replace(recipe, beta=0.0), seed), told


def can_prove(apart: Trajectories) -> bool:
    """Return whether imitated users `apart` are enough for a simulator and a bound."""
    return len(apart) >= FEWEST and int(apart.inside.sum()) >= FEWEST_DECISIONS


def play_of(
    apart: Trajectories, view: GroupView, offered: Counts, bounds: tuple[float, float], seed: int
) -> tuple[Play, Ahead]:
    """Return the judge of steps, and its error on what was logged.

    Args:
        apart: users whom no policy was taught on, and who are imitated; a simulator is fitted to them. Half of them
            went on for long enough to be played.
        view: what policies see.
        offered: codes of their outputs.
        bounds: of responses.
        seed: of the simulator.
    """
    before, horizons = horizons_of(apart)
    steps, codes = horizons[-1], tuple(offered.tolist())
    model = ReservoirResponse(apart, _WIDTH, seed, bounds)
    users = apart.take(np.flatnonzero(apart.inside.sum(axis=1) >= before + steps))
    several = users.take(np.tile(np.arange(len(users)), _DRAWS))

    def play(policy: ContextPolicy, noise: int) -> Floats:
        earned = returns_in_model(policy, view, codes, model, several, noise, before=before, steps=steps, greedy=False)
        return earned.astype(np.float64).reshape(_DRAWS, -1).mean(axis=0)

    return play, ahead(model, users, seed, before, (steps,))[0]


def climbed(
    clone: Callable[[float], ContextPolicy], play: Play, resolution: float, seed: int, betas: Sequence[float] = BETAS
) -> tuple[ContextPolicy, list[Step]]:
    """Return the last policy that was proven better than the one before, and what became of each step.

    Args:
        clone: makes the policy of a weight; 0 is where it begins.
        play: the judge.
        resolution: gain that the judge can tell from none, in reward per decision.
        seed: of the noise.
        betas: weights of the steps.
    """
    place, steps = clone(0.0), list[Step]()
    for number, beta in enumerate(betas):
        candidate = clone(beta)
        noise = seed + number
        believed = play(candidate, noise)
        gain = believed - play(place, noise)
        low = lower_bound(gain, ALPHA / len(betas))
        taken = low > 0.0 and float(gain.mean()) > resolution
        steps.append(Step(beta, float(gain.mean()), low, float(believed.mean()), taken))
        if taken:
            place = candidate
    return place, steps


def lower_bound(gain: Floats, alpha: float) -> float:
    """Return what the mean of [n] differences is above with probability 1 - `alpha` (Student's t); -inf for one."""
    n = len(gain)
    if n < 2:
        return -np.inf
    return float(gain.mean() - stats.t.ppf(1.0 - alpha, n - 1) * gain.std(ddof=1) / np.sqrt(n))
