"""A student for learned simulators: short rollouts from logged states, taught by looking ahead in its own simulator.

There is no exact planner for a learned model. The teacher knows which simulator a user is in and what it remembers,
and values an action by holding it for a few steps there (the rollout policy of Tesauro and Galperin 1997): once per
action, for all users in one array. The student sees what is observed and learns the softmax of these values, so that
its head is a distribution with exact propensities. Sim2Rec's three devices are switches:

* rollouts start in logged states and are cut short;
* disagreement of the ensemble is taken off the reward, or the dynamics gap of a member to the others (H2O);
* actions nobody was shown, and simulators that fail the intervention tests, are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import LtsEnv, LtsUsers
from simulators.learned.ensembles import Ensemble
from simulators.learned.groups import GroupView
from simulators.learned.knowledge import gap_to_others
from simulators.learned.responses import Response
from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.sim2rec.network import ContextPolicy

PenaltyKind = Literal["disagreement", "gap"]


@dataclass(frozen=True, slots=True)
class Lookahead:
    """How a student learns.

    Attributes:
        iterations: rounds of rolling out and learning.
        users: per simulator and round.
        steps: a rollout is cut after these.
        latest: a rollout starts after 0 to this many logged steps.
        held: steps that an action is held to value it.
        every: steps between values.
        penalty: taken off the reward for each unit of what `penalty_kind` measures; 0 takes none off.
        penalty_kind: ``disagreement``, the deviation of the members' rewards, or ``gap``, the dynamics gap of the
            user's own member to the others, in nats.
        offered: codes of the actions valued; others are never shown.
        temperature: of the softmax of values, reward units per step.
        kept: rounds learned from.
        batches: gradient steps a round.
        batch: rollouts in each.
        rate: learning rate at the start; falls to 3%.
    """

    offered: tuple[int, ...]
    iterations: int = 20
    users: int = 40
    steps: int = 40
    latest: int = 90
    held: int = 25
    every: int = 10
    penalty: float = 1.0
    penalty_kind: PenaltyKind = "disagreement"
    temperature: float = 0.04
    kept: int = 8
    batches: int = 20
    batch: int = 64
    rate: float = 4e-3

    def __post_init__(self) -> None:
        if not self.offered or min(self.offered) < 0:
            raise FieldError("offered", wanted="codes of actions", got=self.offered)
        numbers = (self.iterations, self.users, self.steps, self.held, self.every, self.kept, self.batches, self.batch)
        if min(numbers) < 1 or self.latest < 0 or self.temperature <= 0.0:
            raise FieldError("lookahead", wanted="positive numbers", got=self)
        if self.penalty_kind not in ("disagreement", "gap"):
            raise FieldError.choice("penalty_kind", ["disagreement", "gap"], self.penalty_kind)


def teach(
    ensemble: Ensemble, log: Trajectories, view: GroupView, plan: Lookahead, seed: int
) -> tuple[ContextPolicy, int]:
    """Return a student of one logit per action offered, and the user-steps simulated.

    Raises:
        FieldError: an action offered is not in the catalogue, or nobody in the log went on for `plan.latest` steps.
    """
    if max(plan.offered) >= len(log.catalogue):
        raise FieldError("offered", wanted=f"codes below {len(log.catalogue)}", got=plan.offered)
    longest = int(log.inside.sum(axis=1).max())
    if plan.latest > longest:
        raise FieldError("latest", wanted=f"at most {longest}, steps of the longest trajectory", got=plan.latest)
    rng = np.random.default_rng(seed)
    policy = ContextPolicy(view.width, len(plan.offered), hidden=48, seed=seed, remembered=view.remembered)
    optimizer = torch.optim.Adam(policy.parameters(), lr=plan.rate)
    rounds: deque[tuple[Singles, Singles, Singles]] = deque(maxlen=plan.kept)
    user_steps = 0
    for iteration in range(plan.iterations):
        optimizer.param_groups[0]["lr"] = plan.rate * (1.0 - 0.97 * iteration / plan.iterations)
        before = int(rng.integers(0, plan.latest + 1))
        found = rollouts(ensemble, log, view, plan, policy, before, rng)
        rounds.append(found)
        n = len(found[0])
        marks = len(range(0, plan.steps, plan.every))
        user_steps += n * (plan.steps + marks * plan.held * len(plan.offered))
        for _ in range(plan.batches):
            inputs, values, weight = rounds[int(rng.integers(len(rounds)))]
            rows = rng.integers(0, len(inputs), plan.batch)
            logits, _ = policy(torch.from_numpy(inputs[rows]))
            wanted = torch.softmax(torch.from_numpy(values[rows]) / plan.temperature, dim=-1)
            misfit = -(wanted * functional.log_softmax(logits, dim=-1)).sum(dim=-1)
            marked = torch.from_numpy(weight[rows])
            loss = (misfit * marked).sum() / marked.sum()
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
    return policy, user_steps


def rollouts(
    ensemble: Ensemble,
    log: Trajectories,
    view: GroupView,
    plan: Lookahead,
    policy: ContextPolicy,
    before: int,
    rng: np.random.Generator,
) -> tuple[Singles, Singles, Singles]:
    """Follow the log for `before` steps, then the student in every member.

    Returns:
        Inputs [n, T, f], values per step held [n, T, A], and 1 where there are values [n, T], T = `before` + cut.
    """
    members = len(ensemble.members)
    n = members * plan.users
    group = np.repeat(np.arange(members), plan.users)
    went_on = np.flatnonzero(log.inside.sum(axis=1) >= before)
    own = log.take(went_on[rng.integers(0, len(went_on), n)])
    length = before + plan.steps
    inputs = np.zeros((n, length, view.width), np.float32)
    values = np.zeros((n, length, len(plan.offered)), np.float32)
    marked = np.zeros((n, length), np.float32)
    memories = [member.start(n) for member in ensemble.members]
    features = log.catalogue.features
    shown, response = np.zeros((n, features.shape[1]), np.float32), np.zeros(n, np.float32)
    state = policy.start(n)
    logged, logged_shown = own.responses, own.shown
    seen_with = group if view.table is None else own.group_codes
    for time in range(length):
        inputs[:, time] = view.inputs(response, shown, seen_with, first=time == 0)
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(inputs[:, time]), state)
        if time < before:
            shown, response = logged_shown[:, time], logged[:, time]
        else:
            if (time - before) % plan.every == 0:
                values[:, time] = held_values(ensemble, memories, group, plan)
                marked[:, time] = 1.0
            shown = features[drawn(logits.numpy(), plan.offered, rng)]
            response = _answers(ensemble, memories, shown, group, rng)
        memories = [
            member.advance(memory, shown, response) for member, memory in zip(ensemble.members, memories, strict=True)
        ]
    return inputs, values, marked


def held_values(ensemble: Ensemble, memories: Sequence[Singles], group: Counts, plan: Lookahead) -> Singles:
    """Return [n, A] the mean reward per step of holding each action offered, in each user's own simulator."""
    n, offered = len(group), len(plan.offered)
    shown = np.tile(ensemble.catalogue.features[list(plan.offered)], (n, 1))
    reward = ensemble.scale.reward
    own = np.repeat(group, offered)
    # Without a penalty nobody asks what the other members think.
    judged = [np.repeat(memory, offered, axis=0) for memory in memories]
    total = np.zeros(n * offered, np.float32)
    rows_of = [np.flatnonzero(own == number) for number in range(len(ensemble.members))]
    for _ in range(plan.held):
        response = np.empty(n * offered, np.float32)
        if plan.penalty > 0.0:
            said = [member.predict(memory, shown) for member, memory in zip(ensemble.members, judged, strict=True)]
            means, sds = (np.stack(part) for part in zip(*said, strict=True))
            response[:] = means[own, np.arange(len(own))]
            gap = plan.penalty_kind == "gap"
            unknown = gap_to_others(means, sds, own) if gap else reward(means).std(axis=0)
            total += reward(response) - plan.penalty * unknown
            judged = [
                member.advance(memory, shown, response) for member, memory in zip(ensemble.members, judged, strict=True)
            ]
            continue
        for number, (member, rows) in enumerate(zip(ensemble.members, rows_of, strict=True)):
            response[rows] = member.predict(judged[number][rows], shown[rows])[0]
            judged[number][rows] = member.advance(judged[number][rows], shown[rows], response[rows])
        total += reward(response)
    return (total / np.float32(plan.held)).reshape(n, offered).astype(np.float32)


def drawn(logits: Singles, offered: tuple[int, ...], rng: np.random.Generator) -> Counts:
    """Return the code [n] of an action drawn from the softmax of `logits` [n, A]."""
    noisy = logits + rng.gumbel(size=logits.shape)
    return np.array(offered)[noisy.argmax(axis=1)]


def returns_in_model(
    policy: ContextPolicy,
    view: GroupView,
    offered: tuple[int, ...],
    model: Response,
    log: Trajectories,
    seed: int,
    *,
    before: int = 30,
    steps: int = 60,
    greedy: bool = True,
) -> Singles:
    """Return [n] the mean reward per step that the policy earns each logged user in one simulator.

    Users of the log are followed for `before` steps, then simulated for `steps`. Longer rollouts would tell of the
    simulator's drift more than of the policy. Equal seeds draw equal noise, so that two policies can be paired.

    Args:
        policy: whose returns.
        view: what it sees.
        offered: codes of its outputs.
        model: the simulator.
        log: users who went on for `before` steps or more.
        seed: of the responses, and of the draws.
        before: steps followed.
        steps: steps simulated.
        greedy: the best action each time; else one is drawn from the policy.
    """
    rng, n, features = np.random.default_rng(seed), len(log), log.catalogue.features
    memory, state, total = model.start(n), policy.start(n), np.zeros(n)
    response, group, codes = np.zeros(n, np.float32), log.group_codes, np.array(offered)
    shown, logged, logged_shown = np.zeros((n, features.shape[1]), np.float32), log.responses, log.shown
    for time in range(before + steps):
        logits, state = _logits(policy, view, response, shown, group, state, time)
        if time < before:
            shown, response = logged_shown[:, time], logged[:, time]
        else:
            best = logits.argmax(axis=1)
            chosen = best if greedy else (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
            shown = features[codes[chosen]]
            response = log.scale.drawn(*model.predict(memory, shown), rng)
            total += log.scale.reward(response)
        memory = model.advance(memory, shown, response)
    return (total / steps).astype(np.float32)


def returns_in_truth(
    policy: ContextPolicy,
    view: GroupView,
    offered: tuple[int, ...],
    users: LtsUsers,
    seed: int,
    log: Trajectories,
    *,
    greedy: bool = True,
) -> Floats:
    """Return [n] what the policy earns each user of the true world, whose `log` it was taught from.

    By its best document each time; not `greedy`, by documents drawn from it, as it is served.
    """
    rng = np.random.default_rng(seed)
    env, features = LtsEnv(users), log.catalogue.features
    env.reset(seed=seed)
    n = len(users)
    shown, response = np.zeros((n, features.shape[1]), np.float32), np.zeros(n, np.float32)
    state, total = policy.start(n), np.zeros(n)
    for time in range(env.horizon):
        logits, state = _logits(policy, view, response, shown, users.group, state, time)
        documents = np.array(offered)[logits.argmax(axis=1)] if greedy else drawn(logits, offered, rng)
        _, reward, *_ = env.step(documents)
        shown, response = features[documents], log.scale.response(reward)
        total += reward
    return total


def _logits(
    policy: ContextPolicy,
    view: GroupView,
    response: Singles,
    shown: Singles,
    group: Counts,
    state: torch.Tensor,
    time: int,
) -> tuple[Singles, torch.Tensor]:
    inputs = view.inputs(response, shown, group, first=time == 0)
    with torch.no_grad():
        logits, state = policy.step(torch.from_numpy(inputs), state)
    return logits.numpy(), state


def _answers(
    ensemble: Ensemble, memories: Sequence[Singles], shown: Singles, group: Counts, rng: np.random.Generator
) -> Singles:
    """Return [n] responses drawn from each user's own simulator."""
    out = np.empty(len(group), np.float32)
    for number, member in enumerate(ensemble.members):
        rows = np.flatnonzero(group == number)
        out[rows] = ensemble.scale.drawn(*member.predict(memories[number][rows], shown[rows]), rng)
    return out
