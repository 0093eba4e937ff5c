"""What a policy with memory is worth by the log: its memory made from what the log says happened, step after step.

A log holds the memory of the policy that decided, or none. Another policy's is computed from each user's history, by
the function that the service calls, so that its probabilities are those it would have given; and since one of its
decisions pays in the next ones, users' first decisions are also weighed as whole trajectories (weighted per-decision
importance sampling).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.errors import SupportError
from decision.memory import memories
from decision.ope.estimate import Estimate
from decision.ope.sequential.slates import running_products
from decision.ope.sequential.trajectories import FARTHEST, WeightedSums, logger_scales, steps_of, weighted_pdis
from decision.oracles.session import SessionOracle, Singles
from decision.policy import OraclePolicy
from decision.ragged import ragged_offsets
from pipelines.interactions.window import rule_of
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings
from pipelines.trajectories.turns import turns_of

_GROUPS = 50
_AT_ONCE = 4_096
_COLUMNS = ("propensity", "reward", "policy_version")


class Trajectories(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on users' first decisions, taken as trajectories; returns per decision.

    A user who left earlier counts with what he brought, so that a policy which drives users away is not worth more.

    Attributes:
        users: trajectories.
        steps: most decisions in each.
        value: weighted per-decision importance sampling, over `steps`.
        logged: mean return of the policies that decided, over `steps`.
    """

    users: int
    steps: int
    value: Estimate
    logged: float


def remembered(
    lake: Lake, loop: LoopSettings, rows: pa.Table, oracle: SessionOracle, interactions: Interactions
) -> Interactions:
    """Return `interactions`, made of `rows`, with the memory in each context that `oracle` would have had.

    Args:
        lake: where the users' histories are.
        loop: the loop, whose definition of a reward says what is known of a decision.
        rows: [n] rows of its interactions table.
        oracle: whose memory.
        interactions: [n] those rows.
    """
    events, slots = rows["event_id"].to_pylist(), rows["slot"].to_pylist()
    wanted, states, rule = set(events), dict[str, Singles](), rule_of(loop)
    for _, turns, _ in turns_of(lake, loop):
        if not wanted.isdisjoint(turn.event_id for turn in turns):
            for turn, state in zip(turns, memories(oracle, turns, rule), strict=True):
                if turn.event_id in wanted:
                    states[turn.event_id] = state
    batch = interactions.batch
    contexts = [
        oracle.remembering(context, states[event]) if event in states and not slot else context
        for context, event, slot in zip(batch.contexts, events, slots, strict=True)
    ]
    return replace(interactions, batch=Batch(contexts, batch.actions, batch.action_ids, batch.offsets))


def trajectories(
    lake: Lake, loop: LoopSettings, policy: OraclePolicy, oracle: SessionOracle, steps: int
) -> Trajectories | None:
    """Return what `policy`, with the memory of `oracle`, is worth over users' first `steps` rewarded decisions.

    None when nobody has any, or no trajectory supports the policy.

    Args:
        lake: where the users' histories are.
        loop: the loop.
        policy: the policy.
        oracle: its oracle.
        steps: how many; 0 for as many as the number of users allows, see `steps_of`.
    """
    parts = list(_beginnings(lake, loop, policy, oracle, steps or FARTHEST))
    if not parts:
        return None
    weights, reward, sizes = (np.concatenate([part[column] for part in parts]) for column in range(3))
    _, logger = np.unique([name for part in parts for name in part[3]], return_inverse=True)
    if not steps:
        scaled = weights * logger_scales(weights, np.repeat(logger, sizes))
        squared = float(np.square(scaled).mean()) / max(float(scaled.mean()) ** 2, 1e-12)
        steps = min(steps_of(len(sizes), squared), int(sizes.max()))
    place = np.arange(len(weights)) - np.repeat(ragged_offsets(sizes)[:-1], sizes)
    weights, reward, sizes = weights[place < steps], reward[place < steps], np.minimum(sizes, steps)
    group, offsets = np.arange(len(sizes)) % _GROUPS, ragged_offsets(sizes)
    weights[offsets[:-1]] *= logger_scales(running_products(weights, offsets)[offsets[1:] - 1], logger)
    sums = WeightedSums.of(weights, reward, offsets, group, steps=steps, groups=_GROUPS)
    try:
        total = weighted_pdis(sums)
    except SupportError:
        return None
    value = replace(total, value=total.value / steps, low=total.low / steps, high=total.high / steps)
    return Trajectories(users=len(sizes), steps=steps, value=value, logged=float(reward.sum()) / (len(sizes) * steps))


def _beginnings(
    lake: Lake, loop: LoopSettings, policy: OraclePolicy, oracle: SessionOracle, steps: int
) -> Iterator[tuple[Floats, Floats, Ints, list[str]]]:
    """Yield users' first rewarded decisions, `steps` at most.

    Weights [m], rewards [m], and of each user how many [n] and the version that made the first one [n].

    Some thousands come at once: the memories of all decisions would be far larger than what is wanted of them.
    """
    contexts: list[Features] = []
    names: list[str] = []
    sizes: list[int] = []
    lengths: list[int] = []
    chosen: list[int] = []
    propensity: list[float] = []
    reward: list[float] = []
    logger: list[str] = []

    def weighed() -> tuple[Floats, Floats, Ints, list[str]]:
        batch = Batch(contexts, [{}] * len(names), names, ragged_offsets(np.array(sizes)))
        weights = policy.pmf(batch)[chosen] / np.array(propensity)
        return weights, np.array(reward), np.array(lengths, np.int64), logger.copy()

    for _, turns, rows in turns_of(lake, loop, _COLUMNS):
        paid, offered = rows["reward"].to_pylist(), rows["action_ids"].to_pylist()
        index, drawn = rows["action_index"].to_pylist(), rows["propensity"].to_pylist()
        by = rows["policy_version"].to_pylist()
        length = 0
        for number, state in enumerate(memories(oracle, turns, rule_of(loop))):
            if paid[number] is None:
                continue
            if not length:
                logger.append(by[number])
            contexts.append(oracle.remembering({}, state))
            chosen.append(len(names) + index[number])
            names += offered[number]
            sizes.append(len(offered[number]))
            propensity.append(drawn[number])
            reward.append(paid[number])
            length += 1
            if length == steps:
                break
        if length:
            lengths.append(length)
        if len(contexts) >= _AT_ONCE:
            yield weighed()
            for held in (contexts, names, sizes, lengths, chosen, propensity, reward, logger):
                held.clear()
    if contexts:
        yield weighed()
