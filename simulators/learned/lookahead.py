"""A student for learned simulators: short rollouts from logged states, taught by looking ahead in its own simulator.

There is no exact planner for a learned model. The teacher knows which simulator a user is in and what it remembers,
and values a document by holding it for a few steps there (the rollout policy of Tesauro and Galperin 1997): once per
document, for all users in one array. The student sees what is observed and learns the softmax of these values, so that
its head is a distribution with exact propensities. Sim2Rec's three devices are switches:

* rollouts start in logged states and are cut short;
* disagreement of the ensemble is taken off the reward;
* documents nobody was shown, and simulators that fail the intervention tests, are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import DOCUMENTS, HORIZON, Counts, LtsEnv, LtsUsers, Singles
from simulators.learned.ensembles import Ensemble
from simulators.learned.groups import GroupView
from simulators.learned.logs import Trajectories
from simulators.learned.responses import Response
from simulators.sim2rec.network import ContextPolicy


@dataclass(frozen=True, slots=True)
class Lookahead:
    """How a student learns.

    Attributes:
        iterations: rounds of rolling out and learning.
        users: per simulator and round.
        steps: a rollout is cut after these.
        latest: a rollout starts after 0 to this many logged steps.
        held: steps that a document is held to value it.
        every: steps between values.
        penalty: of the ensemble's disagreement, per unit of reward deviation; 0 takes none off.
        offered: documents valued; others are never shown.
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
    temperature: float = 0.04
    kept: int = 8
    batches: int = 20
    batch: int = 64
    rate: float = 4e-3

    def __post_init__(self) -> None:
        if not self.offered or min(self.offered) < 0 or max(self.offered) >= DOCUMENTS:
            raise FieldError("offered", wanted=f"documents in [0, {DOCUMENTS})", got=self.offered)
        if (
            self.latest + self.steps > HORIZON
            or min(self.iterations, self.users, self.steps, self.held, self.every) < 1
        ):
            raise FieldError("lookahead", wanted=f"positive numbers, at most {HORIZON} steps in all", got=self)


def teach(
    ensemble: Ensemble, log: Trajectories, view: GroupView, plan: Lookahead, seed: int
) -> tuple[ContextPolicy, int]:
    """Return a student of one logit per document offered, and the user-steps simulated."""
    rng = np.random.default_rng(seed)
    policy = ContextPolicy(view.width, len(plan.offered), hidden=48, seed=seed)
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
    own = log.take(rng.integers(0, len(log), n))
    length = before + plan.steps
    inputs = np.zeros((n, length, view.width), np.float32)
    values = np.zeros((n, length, len(plan.offered)), np.float32)
    marked = np.zeros((n, length), np.float32)
    memories = [member.start(n) for member in ensemble.members]
    documents, response = np.zeros(n, np.int64), np.zeros(n, np.float32)
    state = policy.start(n)
    logs, shown = own.logs, own.documents
    for time in range(length):
        inputs[:, time] = view.inputs(response, documents, group, first=time == 0)
        with torch.no_grad():
            logits, state = policy.step(torch.from_numpy(inputs[:, time]), state)
        if time < before:
            documents, response = shown[:, time], logs[:, time]
        else:
            if (time - before) % plan.every == 0:
                values[:, time] = held_values(ensemble, memories, group, plan)
                marked[:, time] = 1.0
            documents = drawn(logits.numpy(), plan.offered, rng)
            response = _answers(ensemble, memories, documents, group, rng)
        clickbait = (documents / DOCUMENTS).astype(np.float32)
        memories = [
            member.advance(memory, clickbait, response)
            for member, memory in zip(ensemble.members, memories, strict=True)
        ]
    return inputs, values, marked


def held_values(ensemble: Ensemble, memories: Sequence[Singles], group: Counts, plan: Lookahead) -> Singles:
    """Return [n, A] the mean reward per step of holding each document offered, in each user's own simulator."""
    n, offered = len(group), len(plan.offered)
    clickbait = np.tile((np.array(plan.offered) / DOCUMENTS).astype(np.float32), n)
    own = np.repeat(group, offered)
    # Without a penalty nobody asks what the other members think.
    judged = [np.repeat(memory, offered, axis=0) for memory in memories]
    total = np.zeros(n * offered, np.float32)
    rows_of = [np.flatnonzero(own == number) for number in range(len(ensemble.members))]
    for _ in range(plan.held):
        response = np.empty(n * offered, np.float32)
        if plan.penalty > 0.0:
            means = np.stack(
                [member.predict(memory, clickbait)[0] for member, memory in zip(ensemble.members, judged, strict=True)]
            )
            response[:] = means[own, np.arange(len(own))]
            total += np.exp(response) - plan.penalty * np.exp(means).std(axis=0)
            judged = [
                member.advance(memory, clickbait, response)
                for member, memory in zip(ensemble.members, judged, strict=True)
            ]
            continue
        for number, (member, rows) in enumerate(zip(ensemble.members, rows_of, strict=True)):
            response[rows] = member.predict(judged[number][rows], clickbait[rows])[0]
            judged[number][rows] = member.advance(judged[number][rows], clickbait[rows], response[rows])
        total += np.exp(response)
    return (total / np.float32(plan.held)).reshape(n, offered).astype(np.float32)


def drawn(logits: Singles, offered: tuple[int, ...], rng: np.random.Generator) -> Counts:
    """Return a document [n] drawn from the softmax of `logits` [n, A]."""
    noisy = logits + rng.gumbel(size=logits.shape)
    return np.array(offered)[noisy.argmax(axis=1)]


def return_in_model(
    policy: ContextPolicy,
    view: GroupView,
    offered: tuple[int, ...],
    model: Response,
    log: Trajectories,
    seed: int,
    *,
    before: int = 30,
    steps: int = 60,
) -> float:
    """Return what the policy's best documents earn in one simulator, per whole episode.

    Users of the log are followed for `before` steps, then simulated for `steps`; the mean reward is taken times the
    length of an episode. Longer rollouts would tell of the simulator's drift more than of the policy.
    """
    rng, n = np.random.default_rng(seed), len(log)
    memory, state, total = model.start(n), policy.start(n), 0.0
    documents, response, group = np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros(n, np.int64)
    logs = log.logs
    for time in range(before + steps):
        chosen, state = _best(policy, view, offered, response, documents, group, state, time)
        documents = log.documents[:, time] if time < before else chosen
        clickbait = (documents / DOCUMENTS).astype(np.float32)
        if time < before:
            response = logs[:, time]
        else:
            mean, sd = model.predict(memory, clickbait)
            response = (mean + sd * rng.standard_normal(n)).astype(np.float32)
            total += float(np.exp(response).mean())
        memory = model.advance(memory, clickbait, response)
    return total / steps * HORIZON


def returns_in_truth(
    policy: ContextPolicy, view: GroupView, offered: tuple[int, ...], users: LtsUsers, seed: int
) -> Floats:
    """Return [n] what the policy's best document earns each user of the true world."""
    env = LtsEnv(users)
    env.reset(seed=seed)
    n = len(users)
    documents, response = np.zeros(n, np.int64), np.zeros(n, np.float32)
    state, total = policy.start(n), np.zeros(n)
    for time in range(env.horizon):
        documents, state = _best(policy, view, offered, response, documents, users.group, state, time)
        _, reward, *_ = env.step(documents)
        response = np.log(np.maximum(reward, 0.05)).astype(np.float32)
        total += reward
    return total


def _best(
    policy: ContextPolicy,
    view: GroupView,
    offered: tuple[int, ...],
    response: Singles,
    documents: Counts,
    group: Counts,
    state: torch.Tensor,
    time: int,
) -> tuple[Counts, torch.Tensor]:
    inputs = view.inputs(response, documents, group, first=time == 0)
    with torch.no_grad():
        logits, state = policy.step(torch.from_numpy(inputs), state)
    return np.array(offered)[logits.numpy().argmax(axis=1)], state


def _answers(
    ensemble: Ensemble, memories: Sequence[Singles], documents: Counts, group: Counts, rng: np.random.Generator
) -> Singles:
    """Return [n] responses drawn from each user's own simulator."""
    clickbait = (documents / DOCUMENTS).astype(np.float32)
    out = np.empty(len(group), np.float32)
    for number, member in enumerate(ensemble.members):
        rows = np.flatnonzero(group == number)
        mean, sd = member.predict(memories[number][rows], clickbait[rows])
        out[rows] = mean + sd * rng.standard_normal(len(rows))
    return out
