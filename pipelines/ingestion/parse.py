"""From messages of the log to rows of the lake; what fits no schema becomes a dead letter.

A stretch of messages is decoded in one go and checked as columns, which costs half of checking record by record. Any
doubt sends all of it down the slow way, where `decision.records` judges each record by itself and names the field; the
fast way accepts nothing that the slow way would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.records import (
    FIRST_US,
    LAST_US,
    MAX_ACTIONS,
    MAX_ID_CHARS,
    MAX_RECORD_BYTES,
    PMF_TOLERANCE,
    SCHEMA_VERSION,
    Decision,
    Outcome,
    check_time,
    decode_decision,
    decode_outcome,
    schema_version_of,
)
from pipelines.ingestion.columns import RAW_FIELDS, decision_columns, outcome_columns
from pipelines.log.protocol import Message, Stretch
from pipelines.log.slates import is_short
from pipelines.settings import check_loop_name

_MAX_INT = (1 << 63) - 1
_REDACTED = "redacted"
_RELEASES_AHEAD = 10


class DeadLetter(NamedTuple):
    """A message that fits no schema, and why."""

    message: Message
    field: str
    reason: str


class Parsed(NamedTuple):
    """What messages of one partition came to.

    Attributes:
        rows: a row for each message that fits, in order.
        dead: the others.
        redacted: messages that were emptied on the log by an erasure; they leave no row.
    """

    rows: pa.RecordBatch
    dead: list[DeadLetter]
    redacted: int


class NewerError(Exception):
    """A record of newer code. It is no dead letter: once it was left out nobody would bring it in."""


class _Doubt(Exception):
    """Something does not fit; the slow way finds out what."""


def parse_decisions(messages: Stretch, loops: Collection[str] | None) -> Parsed:
    """Return the decisions in `messages`, at least one.

    Args:
        messages: from the log.
        loops: the loops that exist; None accepts every name that a loop may have.

    Raises:
        NewerError: newer code wrote one of them.
    """
    return _parse(messages, loops, _fast_decisions, decode_decision, decision_columns)


def parse_outcomes(messages: Stretch, loops: Collection[str] | None) -> Parsed:
    """Return the outcomes in `messages`; arguments as `parse_decisions`."""
    return _parse(messages, loops, _fast_outcomes, decode_outcome, outcome_columns)


def _parse(
    messages: Stretch,
    loops: Collection[str] | None,
    fast: Callable[[Stretch], pa.RecordBatch],
    slow: Callable[[bytes], Decision | Outcome],
    columns: Callable[[Sequence[Any], Stretch], pa.RecordBatch],
) -> Parsed:
    try:
        _require(not any(map(is_short, messages.headers)))
        _require(max(map(len, messages.values)) <= MAX_RECORD_BYTES)
        rows = fast(messages)
        _check_columns(rows, messages, loops)
        return Parsed(rows, [], 0)
    except (_Doubt, FieldError, msgspec.DecodeError, UnicodeError, pa.ArrowException, OverflowError, RecursionError):
        pass
    records, kept, dead, redacted = list[Decision | Outcome](), list[Message](), list[DeadLetter](), 0
    for message in messages.messages():
        if any(name == _REDACTED for name, _ in message.headers):
            redacted += 1
            continue
        try:
            if is_short(message.headers):
                raise FieldError("slate", wanted="the record of the first slot on the log", got=message.value[:40])
            record = _decoded(slow, message.value)
            _check_record(record, message, loops)
        except FieldError as error:
            if error.field == "schema_version":
                _check_age(message.value)
            dead.append(DeadLetter(message, error.field, str(error)))
        else:
            records.append(record)
            kept.append(message)
    return Parsed(columns(records, Stretch.of(kept) if kept else messages.none()), dead, redacted)


def _check_age(value: bytes) -> None:
    """Refuse to go on beyond a record of a release that is newer than this one; other numbers are rubbish.

    Raises:
        NewerError: it is one.
    """
    version = schema_version_of(value)
    if SCHEMA_VERSION < version <= SCHEMA_VERSION + _RELEASES_AHEAD:
        raise NewerError(
            f"a record has schema version {version}, and this code reads up to {SCHEMA_VERSION}: bring ingestion and "
            "nights up to date, then run this again; the log keeps everything until then"
        )


def _decoded(decode: Callable[[bytes], Decision | Outcome], value: bytes) -> Decision | Outcome:
    try:
        return decode(value)
    except RecursionError as error:
        raise FieldError("record", wanted="JSON that is nested less deeply", got=value[:40]) from error


def _check_record(record: Decision | Outcome, message: Message, loops: Collection[str] | None) -> None:
    """Refuse what `decision.records` accepts and the lake does not; the columns' counterpart is `_check_columns`."""
    _check_loop(record.loop, loops)
    if record.event_id.encode() != message.key:
        raise FieldError("key", wanted=f"the event id {record.event_id!r}", got=message.key)
    check_time("ts", record.ts)
    if isinstance(record, Decision):
        for field in ("step", "guard_version", "settings_version"):
            number = getattr(record, field)
            if number is not None and not 0 <= number <= _MAX_INT:
                raise FieldError(field, wanted="an integer in [0, 2^63)", got=number)
        for field in RAW_FIELDS:
            raw = bytes(getattr(record, field))
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                raise FieldError(field, wanted="valid UTF-8", got=raw[error.start : error.start + 16]) from error


def _check_loop(loop: str, loops: Collection[str] | None) -> None:
    if loops is None:
        check_loop_name(loop)
    elif loop not in loops:
        raise FieldError.choice("loop", sorted(loops), loop)


_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_outcome = msgspec.json.Decoder(Outcome).decode


def _fast_decisions(messages: Stretch) -> pa.RecordBatch:
    records = list(map(_decode_decision, messages.values))
    _require(None not in {record.ts.tzinfo for record in records})
    rows = decision_columns(records, messages)
    _check_decisions(rows)
    return rows


def _fast_outcomes(messages: Stretch) -> pa.RecordBatch:
    _require(not any(headers and dict(headers).get(_REDACTED) for headers in messages.headers))
    records = list(map(_decode_outcome, messages.values))
    _require(None not in {record.ts.tzinfo for record in records})
    rows = outcome_columns(records, messages)
    _check_lengths(rows["name"], 1)
    _check_lengths(rows["action_id"].drop_null(), 1)
    _require(bool(np.isfinite(_numbers(rows["value"])).all()))
    return rows


def _check_columns(rows: pa.RecordBatch, messages: Stretch, loops: Collection[str] | None) -> None:
    _require(bool((_numbers(rows["schema_version"]) == SCHEMA_VERSION).all()))
    for loop in rows["loop"].unique().to_pylist():
        _check_loop(loop, loops)
    _require(rows["event_id"].cast(pa.binary()).equals(pa.array(messages.keys, pa.binary())))
    _check_lengths(rows["event_id"], 1)
    _check_lengths(rows["slot"], 0)
    _check_range(_numbers(rows["ts"].view(pa.int64())), FIRST_US + 1, LAST_US - 1)


def _check_decisions(rows: pa.RecordBatch) -> None:
    sizes = np.diff(_numbers(rows["action_ids"].offsets)).astype(np.int64)
    _check_range(sizes, 1, MAX_ACTIONS)
    _check_distinct(rows["action_ids"].flatten(), sizes)
    pmf = _check_pmf(rows["pmf"], sizes)
    for name in ("pmf_baseline", "pmf_candidate"):
        given = rows[name].is_valid()
        if given.true_count:
            _check_pmf(rows[name].filter(given), sizes[given.to_numpy(zero_copy_only=False)])
    chosen = _numbers(rows["action_index"])
    _require(bool(((chosen >= 0) & (chosen < sizes)).all()))
    drawn = pmf[np.cumsum(sizes) - sizes + chosen]
    _require(bool(((drawn == _numbers(rows["propensity"])) & (drawn > 0)).all()))
    _check_range(_numbers(rows["guard_weight"]), 0, 1)
    _require(bool((_numbers(rows["pass_probability"]) > 0).all()))
    _check_range(_numbers(rows["pass_probability"]), 0, 1)
    _check_range(_numbers(rows["seed"]), 0, (1 << 53) - 1)
    for name in ("guard_version", "settings_version"):
        _check_range(_numbers(rows[name]), 0, _MAX_INT)
    _check_range(_numbers(rows["step"].drop_null()), 0, _MAX_INT)
    for name in RAW_FIELDS:
        _require(pc.call_function("all", [_starts_with(rows[name], "[" if name == "actions" else "{")]).as_py())


def _check_distinct(ids: pa.StringArray, sizes: Ints) -> None:
    names = ids.dictionary_encode()
    codes = _numbers(names.indices).astype(np.int64)
    if (sizes == sizes[0]).all():  # the common case, at half the price
        by_row = np.sort(codes.reshape(-1, int(sizes[0])), axis=1)
        _require((by_row[:, 1:] != by_row[:, :-1]).all())
    else:
        pairs = np.sort(np.repeat(np.arange(len(sizes)) * len(names.dictionary), sizes) + codes)
        _require((pairs[1:] != pairs[:-1]).all())


def _check_pmf(pmf: pa.ListArray, sizes: Ints) -> Floats:
    _require(bool((np.diff(_numbers(pmf.offsets)) == sizes).all()))
    flat = _numbers(pmf.flatten())
    sums = np.add.reduceat(flat, np.cumsum(sizes) - sizes)
    # half the tolerance: numpy adds in another order, and the slow way has the last word
    _require(bool(flat.min() >= 0 and (np.abs(sums - 1.0) <= PMF_TOLERANCE / 2).all()))
    return flat


def _starts_with(texts: pa.Array, first: str) -> pa.Array:
    return pc.starts_with(texts, pattern=first)  # pyright: ignore[reportAttributeAccessIssue]


def _check_lengths(texts: pa.Array, smallest: int) -> None:
    _check_range(_numbers(pc.call_function("utf8_length", [texts])), smallest, MAX_ID_CHARS)


def _check_range(numbers: np.ndarray[Any, Any], smallest: float, largest: float) -> None:
    _require(len(numbers) == 0 or bool(numbers.min() >= smallest and numbers.max() <= largest))


def _numbers(array: pa.Array) -> np.ndarray[Any, Any]:
    return array.to_numpy()  # raises on nulls: no copy is made


def _require(holds: object) -> None:
    if not holds:
        raise _Doubt
