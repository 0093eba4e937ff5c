"""What a policy with memory is worth by the log: its memory made from what the log says happened, step after step.

A log holds the memory of the policy that decided, or none. Another policy's is computed from each user's history, by
the function that the service calls, so that its probabilities are those it would have given; and since one of its
decisions pays in the next ones, users' first decisions are also weighed as whole trajectories (weighted per-decision
importance sampling).
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Batch, Features, Interactions
from decision.errors import SupportError
from decision.memory import memories
from decision.ope.estimate import Estimate
from decision.ope.sequential.trajectories import WeightedSums, weighted_pdis
from decision.oracles.session import SessionOracle, Singles
from decision.policy import OraclePolicy
from decision.ragged import ragged_offsets
from pipelines.interactions.join import rule_of
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings
from pipelines.trajectories.turns import turns_of

_GROUPS = 50
_COLUMNS = ("propensity", "reward")


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
    """
    contexts: list[Features] = []
    names: list[str] = []
    sizes: list[int] = []
    lengths: list[int] = []
    chosen: list[int] = []
    propensity: list[float] = []
    reward: list[float] = []
    for _, turns, rows in turns_of(lake, loop, _COLUMNS):
        paid, offered = rows["reward"].to_pylist(), rows["action_ids"].to_pylist()
        index, drawn = rows["action_index"].to_pylist(), rows["propensity"].to_pylist()
        length = 0
        for number, state in enumerate(memories(oracle, turns, rule_of(loop))):
            if paid[number] is None:
                continue
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
    if not contexts:
        return None
    batch = Batch(contexts, [{}] * len(names), names, ragged_offsets(np.array(sizes)))
    weights = policy.pmf(batch)[chosen] / np.array(propensity)
    offsets, group = ragged_offsets(np.array(lengths)), np.arange(len(lengths)) % _GROUPS
    sums = WeightedSums.of(weights, np.array(reward), offsets, group, steps=steps, groups=_GROUPS)
    try:
        total = weighted_pdis(sums)
    except SupportError:
        return None
    value = replace(total, value=total.value / steps, low=total.low / steps, high=total.high / steps)
    return Trajectories(users=len(lengths), steps=steps, value=value, logged=sum(reward) / (len(lengths) * steps))
