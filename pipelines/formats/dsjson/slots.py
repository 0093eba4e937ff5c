"""The slots of one event as one line of dsjson, as Vowpal Wabbit's CCB reads it.

A line has all actions once and names those of each slot by their numbers. An action whose features differ between the
slots has no place in it, nor has a context that does beside the slot's own features; such an event is no line.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

Row = dict[str, Any]
OWN = "slot"
"""The slot's own features stand under this name in the context of a row."""


class Slate(msgspec.Struct, kw_only=True, frozen=True):
    """What the slots of an event share, and what each has of its own.

    Attributes:
        context: JSON object that all slots share.
        actions: {id: features} of all slots, in an order that every slot's order agrees with.
        own: features of each slot.
    """

    context: dict[str, Any]
    actions: dict[str, dict[str, Any]]
    own: list[dict[str, Any]]


def slate_of(rows: list[Row]) -> Slate | None:
    """Return the slate that the rows of an event are, one for each slot in order; None where they are none.

    Args:
        rows: as lists and dictionaries, with the lake's interaction columns.
    """
    shared, own = list[dict[str, Any]](), list[dict[str, Any]]()
    actions = dict[str, dict[str, Any]]()
    for row in rows:
        context = msgspec.json.decode(row["context"])
        features = context.get(OWN)
        own.append(context.pop(OWN) if isinstance(features, dict) else {})
        shared.append(context)
        for name, entry in zip(row["action_ids"], msgspec.json.decode(row["actions"]), strict=True):
            if actions.setdefault(name, entry) != entry:
                return None
    alike = ("ts", "pass_probability", "state", "policy_version", "feature_snapshot")
    if any(context != shared[0] for context in shared) or any(
        row[each] != rows[0][each] for row in rows for each in alike
    ):
        return None
    if any(row["pmf"] is None for row in rows) or len({row["slot"] for row in rows}) < len(rows):
        return None
    return Slate(context=shared[0], actions={name: actions[name] for name in _ordered(rows)}, own=own)


def outcomes_of(rows: list[Row], slate: Slate) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ``_slots`` and ``_outcomes`` of the line: what each slot is, and what was drawn in it at which cost.

    A slot whose actions are not simply what the slots before left names them under ``_inc``.
    """
    number = {name: at for at, name in enumerate(slate.actions)}
    left, slots, outcomes = set(number.values()), list[dict[str, Any]](), list[dict[str, Any]]()
    for row, own in zip(rows, slate.own, strict=True):
        offered = [number[name] for name in row["action_ids"]]
        among = {} if set(offered) == left else {"_inc": sorted(offered)}
        slots.append({**own, "_id": row["slot"], **among})
        drawn = row["action_index"]
        order = [drawn, *sorted(set(range(len(offered))) - {drawn}, key=lambda at: (-row["pmf"][at], at))]
        outcomes.append(
            {
                "_label_cost": 0.0 if row["reward"] is None else -row["reward"] + 0.0,
                "_id": row["slot"],
                "_a": [offered[at] for at in order],
                "_p": [row["pmf"][at] for at in order],
                "_o": [
                    {"v": each["value"], "EventId": row["event_id"], "ActionTaken": False}
                    for each in row["outcomes"] or []
                ],
            }
        )
        left.discard(offered[drawn])
    return slots, outcomes


def _ordered(rows: list[Row]) -> list[str]:
    """Return all actions in the order that they were offered in, as far as the slots' orders tell."""
    after: dict[str, set[str]] = {}
    for row in rows:
        before: str | None = None
        for name in row["action_ids"]:
            after.setdefault(name, set()).update([] if before is None else [before])
            before = name
    try:
        return list(TopologicalSorter({name: sorted(names) for name, names in after.items()}).static_order())
    except CycleError:  # the slots offered them in orders of their own
        return list(after)
