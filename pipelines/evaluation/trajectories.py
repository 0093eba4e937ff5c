"""What a policy with memory is worth by the log: its memory made from what the log says happened, step after step.

A log holds the memory of the policy that decided, or none. Another policy's is computed from each user's history, so
that its probabilities are those it would have given; and since one of its decisions pays in the next ones, users'
first decisions are also weighed as whole trajectories (weighted per-decision importance sampling).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.batch import Batch, Features, Interactions
from decision.errors import SupportError
from decision.ope.estimate import Estimate
from decision.ope.sequential.trajectories import WeightedSums, weighted_pdis
from decision.oracles.session import FEATURE, SessionOracle, Singles
from decision.policy import OraclePolicy
from decision.protocols import Policy
from pipelines.lake.lake import Lake

MAX_DECISIONS = 200_000
"""Latest decisions of users that memories are made from."""
_GROUPS = 50
_COLUMNS = ["ts", "event_id", "subject_id", "action_ids", "action_index", "propensity", "reward"]


class Trajectories(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on users' first decisions, taken as trajectories; rewards per decision.

    Attributes:
        users: trajectories.
        steps: decisions in each.
        value: weighted per-decision importance sampling.
        logged: mean reward of the policies that decided.
    """

    users: int
    steps: int
    value: Estimate
    logged: float


def memory_of(policy: Policy) -> SessionOracle | None:
    """Return the oracle of a policy with memory, None for any other."""
    if isinstance(policy, OraclePolicy) and isinstance(policy.oracle, SessionOracle):
        return policy.oracle
    return None


def remembered(
    lake: Lake, loop: str, rows: pa.Table, oracle: SessionOracle, interactions: Interactions
) -> Interactions:
    """Return `interactions`, made of `rows`, with the memory in each context that `oracle` would have had.

    Args:
        lake: where the users' histories are.
        loop: the loop.
        rows: [n] rows of its interactions table.
        oracle: whose memory.
        interactions: [n] those rows.
    """
    wanted, found = set(rows["event_id"].to_pylist()), dict[str, Singles]()
    for decisions in _users(lake, loop):
        state = oracle.start()
        for row in decisions:
            if row["event_id"] in wanted:
                found[row["event_id"]] = state
            state = oracle.advance(state, row["action_ids"][row["action_index"]], row["reward"])
    batch = interactions.batch
    contexts = [
        _with_memory(context, found.get(event))
        for context, event in zip(batch.contexts, rows["event_id"].to_pylist(), strict=True)
    ]
    return replace(interactions, batch=Batch(contexts, batch.actions, batch.action_ids, batch.offsets))


def trajectories(lake: Lake, loop: str, policy: OraclePolicy, oracle: SessionOracle, steps: int) -> Trajectories | None:
    """Return what `policy`, with the memory of `oracle`, is worth over users' first `steps` rewarded decisions.

    None when no user has as many, or no trajectory supports the policy.
    """
    contexts: list[Features] = []
    names: list[str] = []
    sizes: list[int] = []
    chosen: list[int] = []
    propensity: list[float] = []
    reward: list[float] = []
    for decisions in _users(lake, loop):
        if len(decisions) < steps:
            continue
        state = oracle.start()
        for row in decisions[:steps]:
            contexts.append(_with_memory({}, state))
            chosen.append(len(names) + row["action_index"])
            names += row["action_ids"]
            sizes.append(len(row["action_ids"]))
            propensity.append(row["propensity"])
            reward.append(row["reward"])
            state = oracle.advance(state, row["action_ids"][row["action_index"]], row["reward"])
    if not contexts:
        return None
    batch = Batch(contexts, [{}] * len(names), names, np.concatenate(([0], np.cumsum(sizes))))
    weights = policy.pmf(batch)[chosen] / np.array(propensity)
    users = len(contexts) // steps
    offsets, group = np.arange(users + 1) * steps, np.arange(users) % _GROUPS
    sums = WeightedSums.of(weights, np.array(reward), offsets, group, steps=steps, groups=_GROUPS)
    try:
        total = weighted_pdis(sums)
    except SupportError:
        return None
    value = replace(total, value=total.value / steps, low=total.low / steps, high=total.high / steps)
    return Trajectories(users=users, steps=steps, value=value, logged=float(np.mean(reward)))


def _users(lake: Lake, loop: str) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield each user's rewarded decisions in order of time."""
    wanted = (pc.field("loop") == loop) & pc.field("reward").is_valid() & pc.field("subject_id").is_valid()
    data = lake.table("interactions").to_pyarrow_dataset()
    rows = data.to_table(_COLUMNS, filter=wanted & (pc.field("slot") == "")).sort_by("ts")
    users: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.slice(max(0, len(rows) - MAX_DECISIONS)).to_pylist():
        users[row["subject_id"]].append(row)
    for _, decisions in sorted(users.items()):
        yield decisions


def _with_memory(context: Features, state: Singles | None) -> Features:
    if state is None:
        return context
    return context | {FEATURE.format(index): float(value) for index, value in enumerate(state)}
