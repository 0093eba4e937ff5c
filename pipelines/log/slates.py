"""A slate on the log: the first slot's record is whole, those of further slots leave out what it holds already.

The context, the looked-up features and the features of actions that the first slot offered are written once for all.
A header tells the reader of a further slot how much of the first one's context is theirs, and by a digest which record
that is. Readers get whole records, bit for bit those that were decided, and the lake holds them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b

import msgspec

from decision.errors import FieldError
from decision.records import Decision, encode
from pipelines.log.protocol import EventLog, Headers, Message, Stretch

HEADER = "slate"
MAX_SLOTS = 50
LOOK_BACK = 2_000
"""Messages before a stretch among which its slates' first slots are looked for: forwarders keep slates together."""

_encode = msgspec.json.encode
_objects = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ids = msgspec.json.Decoder(list[str]).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_Firsts = dict[tuple[bytes, bytes], bytes]
"""Key and digest -> the first slot's record."""


def written(records: Sequence[Decision], context: bytes) -> list[tuple[bytes, Headers]]:
    """Return what stands on the log of the records of one request: value and headers of each.

    Args:
        records: one for each slot, in order.
        context: JSON object that all slots share, as it was asked.
    """
    first, *others = records
    head = encode(first)
    out: list[tuple[bytes, Headers]] = [(head, ())]
    base = context[:-1]
    if not others or not bytes(first.context).startswith(base):
        return out + [(encode(record), ()) for record in others]
    known = dict(zip(first.action_ids, map(bytes, _objects(first.actions)), strict=True))
    header: Headers = ((HEADER, b"%d:%s" % (len(base), _digest(head))),)
    for record in others:
        own = _own(bytes(record.context), base)
        objects = [bytes(each) for each in _objects(record.actions)]
        same = record.feature_snapshot == first.feature_snapshot and _listed(objects) == bytes(record.actions)
        if own is None or not same:
            out.append((encode(record), ()))
            continue
        rest = [
            b"null" if known.get(action_id) == each else each
            for action_id, each in zip(record.action_ids, objects, strict=True)
        ]
        short = msgspec.structs.replace(
            record,
            context=msgspec.Raw(own),
            actions=msgspec.Raw(_listed(rest)),
            feature_snapshot=msgspec.Raw(b"{}"),
        )
        out.append((encode(short), header))
    return out


def in_slot(context: bytes, features: bytes) -> bytes:
    """Return the JSON object `context`, which has no key ``slot``, with `features` under it."""
    return context[:-1] + _joint(context[:-1]) + b'"slot":' + features + b"}"


def whole(messages: Sequence[Message]) -> list[bytes]:
    """Return the records of all messages of one key, in order, each whole.

    Raises:
        FieldError: the first slot of one is not among them.
    """
    firsts = _firsts(((m.key, m.value, m.headers) for m in messages), {m.key for m in messages})
    return [_whole(m.key, m.value, mark, firsts) if (mark := _mark(m.headers)) else m.value for m in messages]


def completed(messages: Stretch, earlier: Callable[[], Iterable[Stretch]], *, max_bytes: int) -> Stretch:
    """Return the messages with whole records, as many as fit; one whose first slot is nowhere keeps its header.

    Args:
        messages: at least one, of the decisions' topic.
        earlier: gives what stands before them on the log, the nearest first.
        max_bytes: stop before the whole records grow beyond this; one is always returned.
    """
    marks = [_mark(headers) if headers else None for headers in messages.headers]
    keys = {key for key, mark in zip(messages.keys, marks, strict=True) if mark is not None}
    if not keys:
        return messages
    firsts = _firsts(zip(messages.keys, messages.values, messages.headers, strict=True), keys)
    before = iter(earlier())
    values, headers, size = list(messages.values), list(messages.headers), 0
    for i, mark in enumerate(marks):
        if mark is not None:
            wanted = messages.keys[i], mark.partition(b":")[2]
            while wanted not in firsts and (more := next(before, None)) is not None:
                firsts |= _firsts(zip(more.keys, more.values, more.headers, strict=True), keys)
            with suppress(FieldError):  # then it is no record, and its header says so
                values[i] = _whole(messages.keys[i], values[i], mark, firsts)
                headers[i] = tuple(header for header in headers[i] if header[0] != HEADER)
        size += len(values[i])
        if size > max_bytes and i:
            values, headers = values[:i], headers[:i]
            break
    n = len(values)
    return Stretch(
        messages.topic,
        messages.partition,
        messages.offsets[:n],
        messages.keys[:n],
        values,
        headers,
        messages.ts_ms[:n],
    )


def begin_of_slate(log: EventLog, topic: str, partition: int, offset: int) -> int:
    """Return where the slate begins that an offset falls into, the offset itself where none does."""
    low, high = log.watermarks(topic, partition)
    first = max(low, offset - MAX_SLOTS)
    if not low < offset < high:
        return offset
    *before, at = log.read(topic, partition, first, max_messages=offset - first + 1)
    if not before or at.offset != offset:
        return offset
    other = next((message.offset for message in reversed(before) if message.key != at.key), first - 1)
    return other + 1


def is_short(headers: Headers) -> bool:
    """Return whether a message with these headers holds no whole record."""
    return _mark(headers) is not None


def _firsts(messages: Iterable[tuple[bytes, bytes, Headers]], keys: Collection[bytes]) -> _Firsts:
    return {(key, _digest(value)): value for key, value, headers in messages if key in keys and _mark(headers) is None}


def _whole(key: bytes, value: bytes, mark: bytes, firsts: _Firsts) -> bytes:
    length, _, digest = mark.partition(b":")
    first = firsts.get((key, digest))
    if first is None or not length.isdigit() or len(length) > 9:
        raise FieldError(HEADER, wanted="the record of the first slot on the log", got=mark)
    try:
        head, own = _fields(first), _fields(value)
        base, ours = bytes(head["context"])[: int(length)], bytes(own["context"])
        known = dict(zip(_ids(head["action_ids"]), _objects(head["actions"]), strict=True))
        objects = [
            bytes(known[action_id] if bytes(each) == b"null" else each)
            for action_id, each in zip(_ids(own["action_ids"]), _objects(own["actions"]), strict=True)
        ]
        own["context"] = msgspec.Raw(base + (b"}" if ours == b"{}" else _joint(base) + ours[1:]))
        own["actions"] = msgspec.Raw(_listed(objects))
        own["feature_snapshot"] = head["feature_snapshot"]
        return _encode(own)
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise FieldError(HEADER, wanted="a slot of the slate that it names", got=mark) from error


def _own(context: bytes, base: bytes) -> bytes | None:
    """Return what a slot's context has beside the shared one, as an object; None where that is no part of it."""
    if context == base + b"}":
        return b"{}"
    shared = base + _joint(base)
    return b"{" + context[len(shared) :] if context.startswith(shared) else None


def _joint(base: bytes) -> bytes:
    return b"" if base.strip() == b"{" else b","


def _listed(objects: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(objects) + b"]"


def _mark(headers: Headers) -> bytes | None:
    for name, content in headers:
        if name == HEADER:
            return content
    return None


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=8).hexdigest().encode()
