"""What a policy with memory is worth before it serves anyone: two witnesses, each with its own weakness.

A simulator held out from training says what the policy earns users it was fitted to, beside what the log's own actions
earn there: it sees wear-out, and has its own errors, which are shown by how far it is off on the logged actions. And
the log says it by importance sampling over users' first decisions (weighted per-decision, Precup et al. 2000): without
a model, but a few steps far. A policy is agreed upon where neither says that it is worse than the log, or where both
say the same of those few steps and the simulator that it pays later. On a policy that shows what the log did not,
neither has anything to say: the log has no such decision, and beyond what was executed a simulator goes on in its way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from decision.batch import Floats
from decision.errors import SupportError
from decision.ope.diagnostics.refusals import UNSUPPORTED
from decision.ope.sequential.trajectories import FARTHEST, WeightedSums, logger_scales, steps_of, weighted_pdis
from simulators.learned.ensembles import Ensemble
from simulators.learned.knowledge import share_of_best
from simulators.learned.lookahead import returns_in_model
from simulators.learned.responses import Response
from simulators.learned.trajectories import Counts, Trajectories
from simulators.offline.cloning import codes_in, inputs_of
from simulators.trainers.contract import Taught, executed_in

_GROUPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the witnesses say, in reward per decision.

    Attributes:
        believed: mean over the simulators trained in; what the student was taught to think.
        worst: the one of them where it earns the least share of the best action held there; "" without shares.
        worst_share: that share (`simulators.learned.knowledge.share_of_best`); None where rewards are not above 0.
        held_out: in the simulator held out.
        logged_held_out: what the logged actions earn the same users there.
        error: how far that is from what they did earn: the witness's own error.
        gain: the policy less the logged actions there, user by user.
        gain_low: lower end of its 95% interval.
        gain_high: upper end.
        trajectories: weighted importance sampling over `steps` first decisions; None without support.
        trajectories_low: lower end of its 95% interval.
        trajectories_high: upper end.
        logged: mean reward of those decisions.
        steps: first decisions weighed.
        users: that the simulator judged with.
        agreed: neither witness says that the policy is worse than the log; or both say so of users' first decisions
            alone, and the simulator that more is gained later.
        near_gain: [h] the gain in the simulator over users' first 1, 2, ... decisions.
        near_half: [h] half the width of each one's 95% interval.
        divergence: total variation between the policy and what was drawn from, where users of the log went: 0 alike, 1
            when they have no action in common; None where the log does not know the whole distribution.
        untried: share of its choices, where users of the log went, on actions that the log hardly ever showed.
    """

    believed: float
    held_out: float
    logged_held_out: float
    error: float
    gain: float
    gain_low: float
    gain_high: float
    trajectories: float | None = None
    trajectories_low: float | None = None
    trajectories_high: float | None = None
    logged: float
    steps: int
    users: int
    agreed: bool
    near_gain: tuple[float, ...] = ()
    near_half: tuple[float, ...] = ()
    divergence: float | None = None
    untried: float = 0.0
    worst: str = ""
    worst_share: float | None = None


def judged(taught: Taught, log: Trajectories, simulators: Ensemble, seed: int) -> tuple[Judgement, Floats]:
    """Return what is to be expected of `taught`, and its gain with each user that the simulator judges with.

    Args:
        taught: the policy.
        log: what it was taught on.
        simulators: learned from `log`; the one held out, and the users it was fitted to, are the first witness.
        seed: of the simulated responses and draws, the same for every policy, so that they can be compared in pairs.
    """
    apart = log.take(simulators.apart)
    lengths = apart.inside.sum(axis=1)
    before = int(min(30, max(1, np.quantile(lengths, 0.5) // 4)))
    steps = int(max(1, min(60, np.quantile(lengths, 0.5) - before)))
    users = apart.take(np.flatnonzero(lengths >= before + steps))
    offered = tuple(taught.offered.tolist())

    def in_model(model: Response, before: int = before, steps: int = steps) -> Floats:
        found = returns_in_model(
            taught.policy, taught.view, offered, model, users, seed, before=before, steps=steps, greedy=False
        )
        return found.astype(np.float64)

    def from_the_first(steps: int) -> Floats:
        return in_model(simulators.held_out, 0, steps) - logged_in_model(simulators.held_out, users, seed, 0, steps)

    mine = in_model(simulators.held_out)
    theirs = logged_in_model(simulators.held_out, users, seed, before, steps)
    truly = users.rewards[:, before : before + steps].mean(axis=1, dtype=np.float64)
    gain = mine - theirs
    half = _half(gain)
    near = [from_the_first(count) for count in range(1, min(FARTHEST, before + steps) + 1)]
    weight, untried, divergence = _weights(taught, log)
    weighed = _weighed(weight, log)
    agreed = float(gain.mean()) + half >= 0.0
    if weighed[1] is not None and weighed[2] is not None and weighed[2] < weighed[3]:
        first = near[min(weighed[4], len(near)) - 1]
        room, middle = _half(first), float(first.mean())
        same = weighed[1] - weighed[3] <= middle + room and middle - room <= weighed[2] - weighed[3]
        agreed = same and float(gain.mean()) - half > 0.0
    believed = [in_model(member) for member in simulators.members]
    shares = [
        share_of_best(member, users, taught.offered, before, steps, earned)
        for member, earned in zip(simulators.members, believed, strict=True)
    ]
    told = not np.isnan(shares).any()
    found = Judgement(
        believed=float(np.mean([earned.mean() for earned in believed])),
        held_out=float(mine.mean()),
        logged_held_out=float(theirs.mean()),
        error=float(theirs.mean() - truly.mean()),
        gain=float(gain.mean()),
        gain_low=float(gain.mean()) - half,
        gain_high=float(gain.mean()) + half,
        trajectories=weighed[0],
        trajectories_low=weighed[1],
        trajectories_high=weighed[2],
        logged=weighed[3],
        steps=weighed[4],
        users=len(users),
        agreed=agreed and untried <= UNSUPPORTED,
        near_gain=tuple(float(each.mean()) for each in near),
        near_half=tuple(_half(each) for each in near),
        divergence=divergence,
        untried=untried,
        worst=simulators.names[int(np.argmin(shares))] if told else "",
        worst_share=float(min(shares)) if told else None,
    )
    return found, gain


def paired(one: Floats, other: Floats) -> tuple[float, float, float]:
    """Return the mean of [n] differences between two policies' gains, and its 95% interval."""
    gap = one - other
    half = _half(gap)
    return float(gap.mean()), float(gap.mean()) - half, float(gap.mean()) + half


def _half(values: Floats) -> float:
    """Return half the width of the 95% interval of the mean of [n] values; infinite for a single one."""
    if len(values) < 2:
        return np.inf
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def logged_in_model(model: Response, log: Trajectories, seed: int, before: int, steps: int) -> Floats:
    """Return [n] the mean reward of `steps` logged actions in `model`, after `before` steps that went as logged."""
    rng, shown, logged = np.random.default_rng(seed), log.shown, log.responses
    memory, total = model.start(len(log)), np.zeros(len(log))
    for time in range(before + steps):
        response = logged[:, time]
        if time >= before:
            response = log.scale.drawn(*model.predict(memory, shown[:, time]), rng)
            total += log.scale.reward(response)
        memory = model.advance(memory, shown[:, time], response)
    return total / steps


def _weighed(weight: Floats, log: Trajectories) -> tuple[float | None, float | None, float | None, float, int]:
    """Return the estimate by trajectories with its interval, the log's mean, and how many steps were weighed."""
    drew = np.zeros(log.actions.shape, np.int64) if log.versions is None else log.versions
    first = weight[log.inside] * logger_scales(weight[log.inside], drew[log.inside])
    steps = steps_of(len(log), float(np.square(first).mean()) / max(float(first.mean()) ** 2, 1e-12))
    steps = min(steps, log.steps)
    rows = np.flatnonzero(log.inside[:, steps - 1])
    rewards = log.rewards[rows, :steps].astype(np.float64)
    offsets, group = np.arange(len(rows) + 1) * steps, np.arange(len(rows)) % _GROUPS
    logged = float(rewards.mean()) if rewards.size else 0.0
    weight = weight[rows, :steps]
    weight[:, 0] *= logger_scales(weight.prod(axis=1), drew[rows, 0])
    try:
        sums = WeightedSums.of(weight.ravel(), rewards.ravel(), offsets, group, steps=steps, groups=_GROUPS)
        total = weighted_pdis(sums)
    except SupportError:
        return None, None, None, logged, steps
    return total.value / steps, total.low / steps, total.high / steps, logged, steps


def _weights(taught: Taught, log: Trajectories) -> tuple[Floats, float, float | None]:
    """Return [n, T] probability of what was logged, under the policy with its memory, over that it was drawn with.

    And the policy's mean probability of what the log hardly ever showed, and its divergence from the log.
    """
    places, out = codes_in(taught.offered, log.actions), np.empty(log.actions.shape)
    known: Counts = np.isin(log.actions, taught.offered).astype(np.int64)
    unknown = np.flatnonzero(~np.isin(taught.offered, executed_in(log)))
    inputs, untried, apart = inputs_of(log, taught.view), 0.0, 0.0
    with torch.no_grad():
        for at in range(0, len(log), 256):
            rows = slice(at, at + 256)
            logits, _ = taught.policy(torch.from_numpy(inputs[rows]))
            likely = torch.softmax(logits, dim=-1).numpy().astype(np.float64)
            out[rows] = np.take_along_axis(likely, places[rows, :, None], axis=2)[..., 0]
            untried += float(likely[log.inside[rows]][:, unknown].sum())
            if log.pmf is not None:
                drawn = log.pmf[rows][log.inside[rows]].astype(np.float64)
                gap = np.abs(likely[log.inside[rows]] - drawn[:, taught.offered]).sum(axis=1)
                apart += float(gap.sum() + (1.0 - drawn[:, taught.offered].sum(axis=1)).sum()) / 2.0
    weight = np.where(log.inside, out * known / log.propensities, 0.0)
    steps = float(log.inside.sum())
    return weight, untried / steps, None if log.pmf is None else apart / steps
