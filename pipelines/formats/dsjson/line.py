"""A line of dsjson: one decision, or one for each slot.

A line has what was asked (``c``), the ranked actions (``a``) with their probabilities (``p``), the drawn one first, and
the cost of that, which is minus its reward. A line of several slots (CCB) has these once a slot, under ``_outcomes``.
An action has no id of its own there; its ``_tag`` is taken, as Personalizer writes it, or else its number.

Vowpal Wabbit goes on to the next line where there is nothing to learn from, and so does this: `Skipped` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from decision.records import SUM_TOLERANCE
from decision.validation import field_error
from pipelines.formats.dsjson.shape import action_of, context_of, slot_of
from pipelines.formats.registry import Reason

_Number = float | str | None
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


class Skipped(Exception):
    """There is nothing to learn from in a line."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class SlotOutcome(msgspec.Struct, kw_only=True):
    """What was drawn in a slot, and its cost; ``_a`` are 0-based numbers of the actions."""

    cost: _Number = msgspec.field(name="_label_cost", default=None)
    slot: str | None = msgspec.field(name="_id", default=None)
    a: list[int] = msgspec.field(name="_a", default_factory=list)
    p: list[float | str] = msgspec.field(name="_p", default_factory=list)
    outcomes: list[dict[str, Any]] = msgspec.field(name="_o", default_factory=list)


class DsjsonLine(msgspec.Struct, kw_only=True):
    """The fields of a line that mean something here; VW ignores others as this does.

    Attributes:
        label_cost: minus the reward.
        label_probability: probability of the drawn action.
        label_action: number of the drawn action, counted from 1.
        label_index: the same, counted from 0.
        continuous: label of an action that is a number (CATS).
        outcomes: what was reported, in order.
        timestamp: when it was decided.
        event_id: the decision's id.
        a: numbers of the actions, the drawn one first, counted from 1; from 0 where one is 0.
        p: their probabilities.
        slots: what was drawn in each slot, of a line that has several.
        c: context features; ``_multi`` is the list of the actions' features.
        model: ``VWState.m`` names the policy's version.
        pdrop: probability with which this line was left out of the log.
        skip_learn: deferred and never activated.
    """

    label_cost: _Number = msgspec.field(name="_label_cost", default=None)
    label_probability: _Number = msgspec.field(name="_label_probability", default=None)
    label_action: int | None = msgspec.field(name="_label_Action", default=None)
    label_index: int | None = msgspec.field(name="_labelIndex", default=None)
    continuous: Any = msgspec.field(name="_label_ca", default=None)
    outcomes: list[dict[str, Any]] | None = msgspec.field(name="o", default=None)
    timestamp: datetime | None = msgspec.field(name="Timestamp", default=None)
    event_id: str | None = msgspec.field(name="EventId", default=None)
    a: list[int] | None = None
    p: list[float | str] | None = None
    slots: list[SlotOutcome] | None = msgspec.field(name="_outcomes", default=None)
    c: dict[str, Any] | None = None
    model: dict[str, Any] | None = msgspec.field(name="VWState", default=None)
    pdrop: float | None = None
    skip_learn: bool | None = msgspec.field(name="_skipLearn", default=None)


_decoder = msgspec.json.Decoder(DsjsonLine)
_encode = msgspec.json.encode


def rows_of(text: bytes, place: str, *, ended: bool = True, before: datetime | None = None) -> list[Row]:
    """Return the interaction rows of a line, one or one per slot.

    Args:
        text: the line.
        place: where it stands; names an event without an id.
        ended: whether a newline follows.
        before: when the decision before was made: the time of one that has none.

    Raises:
        Skipped: there is nothing to learn from in it.
        FieldError: it is a decision that contradicts itself, or of a kind that is not read; named by `place`.
    """
    return rows_in(line_of(text, place, ended=ended), place, before=before)


def rows_in(line: DsjsonLine, place: str, *, before: datetime | None = None) -> list[Row]:
    """Return the interaction rows of a line that is decoded already; arguments and errors as `rows_of`."""

    def refuse(field: str, wanted: str, got: object, says: str = "") -> FieldError:
        return FieldError(f"{place}: {field}", wanted=wanted, got=got, says=says)

    if line.continuous is not None:
        raise refuse("_label_ca", "no actions that are numbers (CATS), which are not read", Words("a CATS line"))
    if line.c is None:
        raise Skipped("dangling")
    actions = line.c.get("_multi")
    if not isinstance(actions, list) or not all(isinstance(entry, dict) for entry in actions):
        raise refuse("c._multi", "a list of actions", "none")
    if any("_slot_id" in entry for entry in actions):
        raise refuse("c._multi", "no slates (one cost for all slots), which are not read", Words("a slates line"))
    if not actions:
        raise Skipped("no_actions")
    dropped = line.pdrop or 0.0
    if dropped == 1.0:
        raise Skipped("always_dropped")
    ts = line.timestamp or before or _EPOCH
    shared: Row = {
        "event_id": line.event_id or place,
        "ts": ts if ts.tzinfo is not None else ts.replace(tzinfo=UTC),
        "policy_version": str((line.model or {}).get("m", "")),
        "pass_probability": 1.0 - dropped,
        "deferred": bool(line.skip_learn),
    }
    context, features = context_of(line.c), [action_of(entry) for entry in actions]
    ids = _ids(actions)
    if line.slots is None and not line.c.get("_slots"):
        drawn = _single(line, len(actions), refuse)
        return [shared | _row(drawn, "", context, features, ids)]
    return [
        shared | _row(drawn, slot, {**context, "slot": own} if own else context, features, ids)
        for drawn, slot, own in _slotted(line, len(actions), refuse)
    ]


def line_of(text: bytes, place: str, *, ended: bool = True) -> DsjsonLine:
    """Return the decoded line; arguments and errors as `rows_of`."""
    if not text.lstrip().startswith(b"{"):
        raise Skipped("checkpoint")
    try:
        if not text.isascii():
            text.decode()
        return _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise FieldError(place, wanted="UTF-8 text", got=error) from error
    except msgspec.ValidationError as error:
        raise field_error(error, DsjsonLine, whole="").under(f"{place}: ") from error
    except msgspec.DecodeError as error:
        if not ended:
            raise Skipped("truncated") from error
        raise Skipped("not_a_number" if b"NaN" in text else "malformed") from error


class _Drawn(msgspec.Struct, kw_only=True):
    """What was drawn among which actions, counted from 0, in the order offered."""

    eligible: list[int]
    pmf: list[float] | None
    at: int
    propensity: float
    reward: float
    skipped: bool
    outcomes: list[dict[str, Any]]


_Refuse = Callable[..., FieldError]


def _single(line: DsjsonLine, k: int, refuse: _Refuse) -> _Drawn:
    order = line.a
    if not order:
        raise Skipped("no_actions")
    first = 0 if 0 in order else 1
    if sorted(order) != list(range(first, k + first)):
        raise refuse("a", f"the numbers {first} to {k + first - 1}, each once", line.a)
    if line.label_cost is None:
        raise Skipped("no_label")
    drawn = order[0] - first
    if line.label_index is not None and line.label_index != drawn:
        raise refuse("_labelIndex", f"that of the first action of a, {drawn}", line.label_index)
    if line.label_action is not None and line.label_action != drawn + 1:
        raise refuse("_label_Action", f"that of the first action of a, {drawn + 1}", line.label_action)
    p = None if line.p is None else [_finite(value, "p", refuse) for value in line.p]
    if p is not None:
        _check_pmf(p, k, "p", refuse)
    if line.label_probability is None and p is None:
        raise Skipped("no_label")
    propensity = _finite(p[0] if p and line.label_probability is None else line.label_probability, "p", refuse)
    if not 0.0 < propensity <= 1.0:
        raise refuse("_label_probability", "a number in (0, 1]", propensity)
    if p is not None and abs(propensity - p[0]) > SUM_TOLERANCE:
        raise refuse("_label_probability", f"the first of p, {p[0]}", propensity)
    pmf = None if p is None else [value for _, value in sorted(zip(order, p, strict=True))]
    return _Drawn(
        eligible=list(range(k)),
        pmf=pmf,
        at=drawn,
        propensity=propensity if pmf is None else pmf[drawn],
        reward=-_finite(line.label_cost, "_label_cost", refuse) + 0.0,
        skipped=bool(line.skip_learn),
        outcomes=line.outcomes or [],
    )


def _slotted(line: DsjsonLine, k: int, refuse: _Refuse) -> list[tuple[_Drawn, str, dict[str, Any]]]:
    offered = (line.c or {}).get("_slots") or []
    if not isinstance(offered, list) or not all(isinstance(entry, dict) for entry in offered):
        raise refuse("c._slots", "a list of slots", offered)
    if not line.slots:
        raise Skipped("no_label")
    if len(line.slots) != len(offered):
        raise refuse("_outcomes", f"one for each of {len(offered)} slots", len(line.slots))
    found = list[tuple[_Drawn, str, dict[str, Any]]]()
    for number, (slot, entry) in enumerate(zip(line.slots, offered, strict=True)):
        where = f"_outcomes[{number}]"
        if not slot.a:
            raise Skipped("no_actions")
        if slot.cost is None:
            raise Skipped("no_label")
        if len(set(slot.a)) < len(slot.a) or not 0 <= min(slot.a) <= max(slot.a) < k:
            raise refuse(f"{where}._a", f"numbers 0 to {k - 1}, each at most once", slot.a)
        p = [_finite(value, f"{where}._p", refuse) for value in slot.p]
        _check_pmf(p, len(slot.a), f"{where}._p", refuse)
        ranked = sorted(zip(slot.a, p, strict=True))
        eligible, pmf = [action for action, _ in ranked], [value for _, value in ranked]
        at = eligible.index(slot.a[0])
        reward = -_finite(slot.cost, f"{where}._label_cost", refuse) + 0.0
        drawn = _Drawn(
            eligible=eligible,
            pmf=pmf,
            at=at,
            propensity=pmf[at],
            reward=reward,
            skipped=bool(line.skip_learn),
            outcomes=slot.outcomes,
        )
        name = slot.slot or entry.get("_id")
        found.append((drawn, name if isinstance(name, str) else str(number), slot_of(entry)))
    return found


def _row(drawn: _Drawn, slot: str, context: dict[str, Any], features: list[dict[str, Any]], ids: list[str]) -> Row:
    return {
        "slot": slot,
        "context": _encode(context).decode(),
        "actions": _encode([features[action] for action in drawn.eligible]).decode(),
        "action_ids": [ids[action] for action in drawn.eligible],
        "pmf": drawn.pmf,
        "action_index": drawn.at,
        "propensity": drawn.propensity,
        "state": "dropped" if drawn.skipped else "joined",
        "reason": "not_activated" if drawn.skipped else None,
        "reward": None if drawn.skipped else drawn.reward,
        "outcomes": [
            float(entry["v"])
            for entry in drawn.outcomes
            if isinstance(entry.get("v"), int | float) and not isinstance(entry["v"], bool)
        ],
    }


def _check_pmf(p: list[float], k: int, field: str, refuse: _Refuse) -> None:
    if len(p) != k:
        raise refuse(field, f"{k} probabilities", len(p))
    if min(p) < 0.0 or abs(sum(p) - 1.0) > SUM_TOLERANCE:
        raise refuse(field, f"probabilities with a sum of 1 within {SUM_TOLERANCE:.3g}", p)
    if not p[0] > 0.0:
        raise refuse(field, "a probability above 0 of the action drawn", p[0])


def _finite(value: _Number, field: str, refuse: _Refuse) -> float:
    if isinstance(value, str):
        if value.lower() == "nan":
            raise Skipped("not_a_number")
        raise refuse(field, "a number", value)
    if value is None or not math.isfinite(value):
        raise Skipped("not_a_number")
    return float(value)


def _ids(actions: list[dict[str, Any]]) -> list[str]:
    tags = [entry.get("_tag") for entry in actions]
    texts = [tag for tag in tags if isinstance(tag, str) and tag]
    if len(texts) == len(tags) == len(set(texts)):
        return texts
    return [str(number) for number in range(1, len(actions) + 1)]
