"""The records of the log: decisions and outcomes.

Both are JSON objects with a ``schema_version``. Readers exist for every version that was ever written; a
record that is newer than this code, or that does not fit its schema, raises `FieldError` naming the field.
`context`, `actions` and `feature_snapshot` stay raw JSON between the request and the lake: nobody on that way
needs their insides, and re-encoding them is the largest single cost of ingestion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from decision.errors import FieldError
from decision.validation import field_error

SCHEMA_VERSION = 3
"""Written by this code. Version 1 knew neither slots, nor a guard, nor deferred decisions; in version 2 an outcome did
not name the action, and a decision not the version of its settings."""

MAX_ACTIONS = 1_000
MAX_ID_CHARS = 256
MAX_RECORD_BYTES = 1 << 20
PMF_TOLERANCE = 1e-9
SUM_TOLERANCE = 1e-3 + 1e-9
"""Of probabilities that others logged, as 32-bit numbers or with three digits: .2, .2 and .599 are one whole."""
FIRST_US = 0
LAST_US = 7_258_118_400_000_000
"""1970 and 2200: times outside of these are mistakes of a clock or a unit."""

Mode = Literal["online", "apprentice", "logging_only"]


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One decision: what was asked, what was drawn, and the exact probability of the draw.

    Attributes:
        schema_version: version of this record's schema.
        loop: name of the decision point.
        event_id: the decision's id; also seeds the draw.
        slot: id of the slot in a multi-slot decision, "" otherwise.
        ts: when the decision was made, UTC.
        subject_id: whom it was made for; key of the online features.
        episode_id: episode the decision belongs to.
        step: 0-based position in its episode.
        context: JSON object of context features, as offered.
        actions: JSON list of the eligible actions' feature objects, in the order offered.
        action_ids: [k] ids of the eligible actions, in the order offered.
        pmf: [k] distribution the action was drawn from; sums to 1.
        action_index: 0-based index of the drawn action.
        propensity: ``pmf[action_index]``, in (0, 1].
        pmf_baseline: [k] the reference's distribution, when it was computed.
        pmf_candidate: [k] the candidate's distribution, when one is being rolled out.
        guard_weight: share rho of the candidate in `pmf`, in [0, 1].
        guard_version: version of the guard snapshot in force; 0 without a guard.
        mode: ``online`` (drawn action returned), ``apprentice`` or ``logging_only`` (baseline returned).
        deferred: counts only once activated.
        policy_version: registry version of the policy in charge.
        baseline_version: registry version of the reference.
        feature_snapshot: JSON object of the features looked up for this decision.
        seed: 53-bit seed of the draw.
        pass_probability: probability with which this record was kept; 1 unless sampled down.
        settings_version: of the loop's settings in State that were in force; 0 where they are a file.
    """

    schema_version: int
    loop: str
    event_id: str
    slot: str = ""
    ts: datetime
    subject_id: str | None = None
    episode_id: str | None = None
    step: int | None = None
    context: msgspec.Raw
    actions: msgspec.Raw
    action_ids: list[str]
    pmf: list[float]
    action_index: int
    propensity: float
    pmf_baseline: list[float] | None = None
    pmf_candidate: list[float] | None = None
    guard_weight: float = 0.0
    guard_version: int = 0
    mode: Mode = "online"
    deferred: bool = False
    policy_version: str
    baseline_version: str
    feature_snapshot: msgspec.Raw = msgspec.Raw(b"{}")
    seed: int
    pass_probability: float = 1.0
    settings_version: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Something that happened after a decision, as reported.

    Attributes:
        schema_version: version of this record's schema.
        loop: name of the decision point.
        event_id: the decision it belongs to.
        slot: slot of a multi-slot decision, "" otherwise.
        name: ``reward``, ``activation`` or the application's own.
        value: the number reported; finite.
        ts: when it happened, UTC.
        idempotency_key: reports that share it with the same event, slot and name count once.
        action_id: the action that it followed; it counts for no other. None: whatever the decision was.
    """

    schema_version: int
    loop: str
    event_id: str
    slot: str = ""
    name: str = "reward"
    value: float
    ts: datetime
    idempotency_key: str | None = None
    action_id: str | None = None


_encoder = msgspec.json.Encoder()
_decision_decoder = msgspec.json.Decoder(Decision)
_outcome_decoder = msgspec.json.Decoder(Outcome)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_version_decoder = msgspec.json.Decoder(int)

encode: Callable[[Decision | Outcome], bytes] = _encoder.encode


def decode_decision(data: bytes) -> Decision:
    """Return the decision in `data`, whatever schema version it was written in.

    Raises:
        FieldError: the bytes are no decision, are too large or are newer than this code.
    """
    record = _decode(data, _decision_decoder, _DECISION_UPGRADES)
    check_decision(record)
    return record


def decode_outcome(data: bytes) -> Outcome:
    """Return the outcome in `data`, whatever schema version it was written in.

    Raises:
        FieldError: the bytes are no outcome, are too large or are newer than this code.
    """
    record = _decode(data, _outcome_decoder, _OUTCOME_UPGRADES)
    check_outcome(record)
    return record


def schema_version_of(data: bytes) -> int:
    """Return the schema version that a record says it was written in, 0 where it says none."""
    try:
        return _version(data.decode())
    except (FieldError, UnicodeError, RecursionError):
        return 0


def check_decision(record: Decision) -> None:
    """Refuse a decision whose parts contradict each other.

    Raises:
        FieldError: naming the first field that does not fit.
    """
    k = len(record.action_ids)
    if not 1 <= k <= MAX_ACTIONS:
        raise FieldError("action_ids", wanted=f"1 to {MAX_ACTIONS} actions", got=k)
    if len(set(record.action_ids)) != k:
        raise FieldError("action_ids", wanted="distinct ids", got=record.action_ids)
    _check_ids(record)
    _check_pmf("pmf", record.pmf, k)
    if record.pmf_baseline is not None:
        _check_pmf("pmf_baseline", record.pmf_baseline, k)
    if record.pmf_candidate is not None:
        _check_pmf("pmf_candidate", record.pmf_candidate, k)
    if not 0 <= record.action_index < k:
        raise FieldError("action_index", wanted=f"0 to {k - 1}", got=record.action_index)
    drawn = record.pmf[record.action_index]
    if record.propensity != drawn or drawn <= 0:
        raise FieldError("propensity", wanted=f"pmf[action_index] = {drawn!r}, above 0", got=record.propensity)
    if not 0 <= record.guard_weight <= 1:
        raise FieldError("guard_weight", wanted="a number in [0, 1]", got=record.guard_weight)
    if not 0 < record.pass_probability <= 1:
        raise FieldError("pass_probability", wanted="a number in (0, 1]", got=record.pass_probability)
    if record.settings_version < 0:
        raise FieldError("settings_version", wanted="0 or more", got=record.settings_version)
    if not 0 <= record.seed < 1 << 53:
        raise FieldError("seed", wanted="an integer in [0, 2^53)", got=record.seed)
    if bytes(record.context)[:1] != b"{":
        raise FieldError("context", wanted="a JSON object", got=bytes(record.context)[:40])
    if bytes(record.actions)[:1] != b"[":
        raise FieldError("actions", wanted="a JSON list of objects", got=bytes(record.actions)[:40])
    if bytes(record.feature_snapshot)[:1] != b"{":
        raise FieldError("feature_snapshot", wanted="a JSON object", got=bytes(record.feature_snapshot)[:40])


def check_outcome(record: Outcome) -> None:
    """Refuse an outcome whose value cannot be counted.

    Raises:
        FieldError: naming the first field that does not fit.
    """
    _check_ids(record)
    if not math.isfinite(record.value):
        raise FieldError("value", wanted="a finite number", got=record.value)
    if not 1 <= len(record.name) <= MAX_ID_CHARS:
        raise FieldError("name", wanted=f"1 to {MAX_ID_CHARS} characters", got=record.name)
    if record.action_id is not None and not 1 <= len(record.action_id) <= MAX_ID_CHARS:
        raise FieldError("action_id", wanted=f"1 to {MAX_ID_CHARS} characters", got=record.action_id)


def check_time(field: str, ts: datetime) -> None:
    """Refuse a time, with its UTC offset, that the lake does not take.

    Raises:
        FieldError: naming `field`.
    """
    if not FIRST_US < ts.timestamp() * 1e6 < LAST_US:
        raise FieldError(field, wanted="a time between 1970 and 2200", got=ts.isoformat())


def _check_ids(record: Decision | Outcome) -> None:
    for field in ("loop", "event_id"):
        value: str = getattr(record, field)
        if not 1 <= len(value) <= MAX_ID_CHARS:
            raise FieldError(field, wanted=f"1 to {MAX_ID_CHARS} characters", got=value)
    if len(record.slot) > MAX_ID_CHARS:
        raise FieldError("slot", wanted=f"at most {MAX_ID_CHARS} characters", got=record.slot)
    if record.ts.tzinfo is None:
        raise FieldError("ts", wanted="a time with its UTC offset", got=record.ts.isoformat())


def _check_pmf(field: str, pmf: list[float], k: int) -> None:
    if len(pmf) != k:
        raise FieldError(field, wanted=f"{k} probabilities, one per action", got=len(pmf))
    # min() and sum() run in C; a NaN makes the sum NaN, which fails the second comparison.
    if min(pmf) < 0 or not abs(sum(pmf) - 1.0) <= PMF_TOLERANCE:
        raise FieldError(field, wanted="non-negative numbers that sum to 1", got=pmf)


_T = TypeVar("_T", Decision, Outcome)
_Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _from_v1(fields: dict[str, Any]) -> dict[str, Any]:
    # Version 1 named the propensity as exports still do; every field added since has a neutral default.
    if "pscore" in fields:
        fields["propensity"] = fields.pop("pscore")
    return fields


def _unchanged(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


_DECISION_UPGRADES: dict[int, _Upgrade] = {1: _from_v1, 2: _unchanged}
_OUTCOME_UPGRADES: dict[int, _Upgrade] = {1: _unchanged, 2: _unchanged}


def _decode(data: bytes, decoder: msgspec.json.Decoder[_T], upgrades: dict[int, _Upgrade]) -> _T:
    if len(data) > MAX_RECORD_BYTES:
        raise FieldError("record", wanted=f"at most {MAX_RECORD_BYTES} bytes", got=len(data))
    try:
        return _decode_any(str(data, "utf-8"), decoder, upgrades)  # msgspec leaves the inside of raw fields unchecked
    except UnicodeDecodeError as error:
        raise FieldError("record", wanted="valid UTF-8", got=data[error.start : error.start + 16]) from error
    except RecursionError as error:
        raise FieldError("record", wanted="JSON that is nested less deeply", got=data[:40]) from error


def _decode_any(data: str, decoder: msgspec.json.Decoder[_T], upgrades: dict[int, _Upgrade]) -> _T:
    try:
        record = decoder.decode(data)
        if record.schema_version == SCHEMA_VERSION:
            return record
    except msgspec.DecodeError as error:
        problem = error
    else:
        problem = None
    version = _version(data)
    if version == SCHEMA_VERSION and problem is not None:
        raise field_error(problem, decoder.type, whole="record") from problem
    if version > SCHEMA_VERSION or version < 1:
        raise FieldError("schema_version", wanted=f"1 to {SCHEMA_VERSION}", got=version)
    try:
        fields: dict[str, Any] = dict(_object_decoder.decode(data))
        for step in range(version, SCHEMA_VERSION):
            fields = upgrades[step](fields)
        fields["schema_version"] = SCHEMA_VERSION
        return decoder.decode(_encoder.encode(fields))
    except msgspec.DecodeError as error:
        raise field_error(error, decoder.type, whole="record") from error


def _version(data: str) -> int:
    try:
        fields = _object_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise FieldError("record", wanted="a JSON object", got=error) from error
    try:
        return _version_decoder.decode(fields["schema_version"])
    except (msgspec.DecodeError, KeyError) as error:
        raise FieldError("schema_version", wanted="an integer", got=data[:40]) from error
