"""From the records of single decisions to trajectories: what was shown to whom, how likely, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from decision.errors import FieldError, SupportError
from decision.oracles.session import SessionOracle, SessionSettings
from decision.records import Decision, Outcome
from simulators.learned.logs import Trajectories


def trajectories_of(
    decisions: Iterable[Decision], outcomes: Iterable[Outcome], documents: Mapping[str, int], length: int
) -> Trajectories:
    """Return the first `length` rewarded decisions of every user who has as many.

    Args:
        decisions: records; those without a subject, of slots, or not returned to anyone are passed over.
        outcomes: records; the first reward of a decision counts.
        documents: number of each action.
        length: decisions per trajectory, 1 or more.

    Raises:
        FieldError: `length` is below 1 or an action is not among `documents`.
        SupportError: no user has as many.
    """
    if length < 1:
        raise FieldError("length", wanted="1 or more", got=length)
    rewards: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.name == "reward" and not outcome.slot:
            rewards.setdefault(outcome.event_id, outcome.value)
    found: defaultdict[str, list[Decision]] = defaultdict(list)
    for record in decisions:
        if record.subject_id is not None and not record.slot and record.event_id in rewards:
            found[record.subject_id].append(record)
    kept = [sorted(rows, key=_order)[:length] for _, rows in sorted(found.items()) if len(rows) >= length]
    if not kept:
        raise SupportError(f"no user has {length} decisions with rewards")
    return Trajectories(
        np.array([[_number(record, documents) for record in rows] for rows in kept], np.int64),
        np.array([[rewards[record.event_id] for record in rows] for rows in kept], np.float32),
        np.array([[record.propensity for record in rows] for rows in kept], np.float32),
    )


def session_oracle(arrays: Mapping[str, np.ndarray], actions: Sequence[str], levels: Sequence[float]) -> SessionOracle:
    """Return the servable form of a trained `simulators.sim2rec.network.ContextPolicy`.

    Args:
        arrays: its weights, as `simulators.sim2rec.network.arrays_of` returns them.
        actions: id of each of its outputs.
        levels: what each action was shown to it as.
    """
    return SessionOracle(SessionSettings(actions=list(actions), levels=list(levels)), arrays)


def _order(record: Decision) -> tuple[str, int, float]:
    return (record.episode_id or "", record.step or 0, record.ts.timestamp())


def _number(record: Decision, documents: Mapping[str, int]) -> int:
    action = record.action_ids[record.action_index]
    if action not in documents:
        raise FieldError("documents", wanted=f"a number for action {action!r}", got=sorted(documents)[:5])
    return documents[action]
