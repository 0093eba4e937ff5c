"""A policy tried on a few logged rows: what it was asked, what it answered, and each mistake."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import FieldError, nearest_of
from pipelines.interactions.arrays import to_interactions
from pipelines.replay.policies.functions import raised, request_of
from pipelines.replay.policies.rules import Rules
from pipelines.replay.policy import Tested, pmf_of
from pipelines.replay.source import Source

ROWS = 10


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    Attributes:
        event_id: its decision.
        context: as it was asked.
        actions: as they were offered: objects with ``id`` and ``features``.
        drawn: id of the action that was drawn.
        probabilities: [K] the policy's, in the order of the actions; None after a mistake.
        weight: its probability of the drawn action over the logged one; None after a mistake.
        mistake: what is wrong with the answer; None when nothing is.
    """

    event_id: str
    context: dict[str, Any]
    actions: list[dict[str, Any]]
    drawn: str
    probabilities: list[float] | None = None
    weight: float | None = None
    mistake: str | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on some rows.

    Attributes:
        policy: in words.
        log: name of the loop or import.
        rows: one for each decision.
        mistakes: every mistake once, those of rows among them.
        remarks: what is no mistake but worth a look.
    """

    policy: str
    log: str
    rows: list[Tried]
    mistakes: list[str]
    remarks: list[str]


def few_rows(source: Source, count: int = ROWS) -> pa.Table:
    """Return up to `count` rows, spread over the part of the log that is read first.

    Raises:
        FieldError: the log has no settled decisions.
    """
    for unit in source.units():
        for table in source.batches(unit):
            if len(table):
                at = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(np.int64))
                return table.take(pa.array(at)).combine_chunks()
    raise FieldError("loop", wanted="a log with settled decisions to try the policy on", got=None)


def tried(policy: Tested, table: pa.Table, *, name: str, log: str) -> Trial:
    """Return what a policy answers, row by row, so that no mistake hides another.

    Args:
        policy: who is asked.
        table: [n] rows with the lake's interaction columns.
        name: the policy in words.
        log: name of the loop or import.
    """
    rows = [_one(policy, table.slice(row, 1), name) for row in range(len(table))]
    mistakes = _told(rows)
    remarks: list[str] = []
    if isinstance(policy, Rules):
        mistakes += _unread(policy, rows)
    answers = {tuple(row.probabilities) for row in rows if row.probabilities is not None}
    if len(rows) > 1 and len(answers) == 1 and not mistakes:
        remarks.append("it answers all of these rows alike")
    never = sum(row.weight == 0.0 for row in rows)
    if never > len(rows) / 2:
        remarks.append(f"it would not have drawn the logged action in {never} of {len(rows)} rows: few rows will count")
    return Trial(policy=name, log=log, rows=rows, mistakes=mistakes, remarks=remarks)


def _one(policy: Tested, row: pa.Table, name: str) -> Tried:
    event, ids, place = (row[column][0].as_py() for column in ("event_id", "action_ids", "action_index"))
    context, actions = request_of(event, row["context"][0].as_py(), row["actions"][0].as_py(), ids)
    asked = {"event_id": event, "context": context, "actions": actions, "drawn": ids[place]}
    try:
        pmf = pmf_of(policy, row, to_interactions(row)).tolist()
    except FieldError as error:
        found = str(error)
        return Tried(**asked, mistake=found if repr(event) in found else f"event {event!r}: {found}")
    except Exception as error:  # whatever a function of somebody's raises
        return Tried(**asked, mistake=str(raised(name, error, f"event {event!r}")))
    return Tried(**asked, probabilities=pmf, weight=pmf[place] / row["propensity"][0].as_py())


def _told(rows: list[Tried]) -> list[str]:
    """Return each mistake where it was made first, and in how many more rows."""
    alike: dict[str, list[str]] = {}
    for row in rows:
        if row.mistake is not None:
            alike.setdefault(row.mistake.replace(repr(row.event_id), ""), []).append(row.mistake)
    return [found[0] + (f" (and in {len(found) - 1} more rows)" if found[1:] else "") for found in alike.values()]


def _unread(policy: Rules, rows: list[Tried]) -> list[str]:
    """Return what rules name and no row has: most likely slips."""
    contexts: dict[str, None] = {}
    for row in rows:
        _paths(row.context, "", contexts)
    features: dict[str, None] = dict.fromkeys(name for row in rows for one in row.actions for name in one["features"])
    ids: dict[str, None] = dict.fromkeys(one["id"] for row in rows for one in row.actions)
    out: list[str] = []
    looked: tuple[tuple[str, tuple[str, ...], dict[str, None]], ...] = (
        ("field of the context", policy.context, contexts),
        ("feature of an action", policy.features, features),
        ("action", policy.actions, ids),
    )
    for what, named, known in looked:
        for name in named:
            if name not in known:
                near = nearest_of(name, known)
                out.append(f"no row has the {what} {name!r}" + (f"; did you mean {near!r}?" if near else ""))
    return out


def _paths(value: dict[str, Any], prefix: str, out: dict[str, None]) -> None:
    for name, item in value.items():
        out[prefix + name] = None
        if isinstance(item, dict):
            _paths(item, f"{prefix}{name}.", out)
