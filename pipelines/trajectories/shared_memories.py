"""Users' memories that several machines share: what was decided and reported stands in Redis; each makes the rest.

A user's records lie together under one key, whoever brought them, in whatever order and however often: each has a field
of its own that the first to come fills. A memory is a function of them (`decision.memory`), so all machines have the
same, at any time and for any policy, and none has to own a user. A mark beside them is another after every change;
while it is the one that was seen last, what was read holds.

Each machine brings what its own log holds, from where it stopped; of a log that all machines share, one of them brings
everything. That place stands in Redis, too, so that a Redis that lost everything is filled again from the logs.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from decision.errors import FieldError
from decision.memory import BLOCK, Turn, first_of
from decision.records import Decision, Outcome, decode_decision, decode_outcome
from pipelines.log.protocol import DECISIONS, OUTCOMES, TOPICS, EventLog, Message
from pipelines.online.connection import Command, Online
from pipelines.trajectories.memories import HELD, Remembering, micros
from pipelines.trajectories.remembered import (
    REPORT,
    TURN,
    VERSION,
    Field,
    User,
    encode,
    event_of,
    read_user,
    report_field,
    turn_field,
)

KEPT_S = 90 * 86_400
"""A user of whom nothing is heard for so long is forgotten, in seconds."""
_LATE_S = 2 * 86_400
"""How long after its window an event's owner is remembered, in seconds."""
_BATCH, _MOST_FIELDS, _LEASE_MS = 1_000, 2_000, 2_000
# Takes fields away where nobody did meanwhile; what is taken away twice would be counted twice.
_TRIM = """
if (redis.call('HGET', KEYS[1], 'b') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'b', ARGV[2], 'x', ARGV[3])
for i = 5, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return redis.call('HSET', KEYS[1], 'v', ARGV[4])
"""


class SharedMemories:
    """The memories of one loop's users; safe to share between threads.

    Args:
        online: a Redis that all machines share.
        loop: name of the loop; records of others are passed over.
        window_s: the loop's reward window, in seconds.
        everybodys: the log that `follow` gets is one that all machines share.
        most_fields: a user with more is cut down to what a memory is made of.
    """

    def __init__(
        self,
        online: Online,
        loop: str,
        window_s: float,
        *,
        everybodys: bool = False,
        most_fields: int = _MOST_FIELDS,
    ) -> None:
        self._everybodys = everybodys
        self._log: tuple[EventLog, str] | None = None
        self._online, self._loop, self._most = online, loop, most_fields
        self._event_s = int(window_s) + _LATE_S
        self._name = uuid.uuid4().hex.encode()
        self._reading = threading.Lock()
        self._users: dict[str, User] = {}
        self._positions: dict[tuple[str, str, int], int] = {}
        self._leased = False

    def use(self, used: Sequence[Remembering]) -> None:
        """Do nothing: memories are made when they are asked for, for any policy."""

    def close(self) -> None:
        """Do nothing: the connections belong to whoever opened them."""

    def online(self, subject_id: str, at: datetime, used: Remembering) -> list[float] | None:
        """Return the [f + h] numbers that `used` makes of a user at the time `at`; None when nothing is known."""
        return self.online_many([subject_id], at, {"": used})[0].get("")

    def online_many(
        self, subject_ids: Sequence[str], at: datetime, wanted: Mapping[str, Remembering]
    ) -> list[dict[str, list[float]]]:
        """Return what each of `wanted` makes of each user, by their names, of those of whom something is known.

        While Redis is away it is what was read last.
        """
        at_us = micros(at)
        with self._reading:
            self._read(subject_ids)
            found: list[dict[str, list[float]]] = []
            for subject_id in subject_ids:
                user = self._users.get(subject_id)
                states = {} if user is None else {name: user.memory(used, at_us) for name, used in wanted.items()}
                found.append({name: state for name, state in states.items() if state is not None})
            return found

    def follow(self, log: EventLog, at: datetime, beat: Callable[[], None] = lambda: None) -> int:
        """Bring what is new on `log`, unless another process does; return the records that counted.

        Args:
            log: where decisions and outcomes arrive.
            at: now; a memory is made when it is asked for, so nothing depends on it.
            beat: called as the reading gets on.
        """
        del at
        counted, identity = 0, self._identity(log)
        if self._online.away:
            self._positions.clear()  # it may come back empty: what stands there then says where to go on
            return counted
        if self._everybodys and not self._leads(identity):
            return counted
        for topic in TOPICS:
            for part in range(log.partitions(topic)):
                beat()
                while messages := self._next(log, topic, part):
                    beat()
                    brought = self.take(topic, messages, identity)
                    after = messages[-1].offset + 1
                    moved: list[Command] = [
                        ("HSET", self._key(b"read", identity.encode()), f"{topic}/{part}", after),
                        ("PEXPIRE", self._key(b"lease", identity.encode()), _LEASE_MS),
                    ]
                    if brought is None or self._online.ask(moved) is None:
                        self._positions.clear()
                        return counted
                    self._positions[identity, topic, part] = after
                    counted += brought
        if self._leased and not self._everybodys:
            self._online.ask([("DEL", self._key(b"lease", identity.encode()))])
            self._leased = False
        return counted

    def take(self, topic: str, messages: Iterable[Message], identity: str) -> int | None:
        """Add records, which may come again and in any order; return how many are new, None where Redis is away.

        Args:
            topic: of the messages.
            messages: of any loop.
            identity: of the log that they were read from; what was forwarded counts as its origin's.
        """
        decided: list[tuple[Decision, Message]] = []
        reported: list[tuple[Outcome, Message]] = []
        for message in messages:
            with suppress(FieldError):  # emptied by an erasure, or no record
                if topic == DECISIONS:
                    decision = decode_decision(message.value)
                    if decision.loop == self._loop and decision.subject_id is not None and not decision.slot:
                        decided.append((decision, message))
                elif topic == OUTCOMES:
                    outcome = decode_outcome(message.value)
                    if outcome.loop == self._loop and not outcome.slot:
                        reported.append((outcome, message))
        fields = self._of_decisions(decided) if decided else []
        if reported and fields is not None:
            early = self._of_outcomes(reported, identity)
            fields = None if early is None else [*fields, *early]
        return None if fields is None else self._written(fields)

    def history(self, subject_id: str, at: datetime) -> list[Turn]:
        """Return the latest of a user's turns before `at`, as many as a memory is made of, in order of time."""
        with self._reading:
            self._read([subject_id])
            user = self._users.get(subject_id)
            if user is None:
                return []
            turns = [turn for turn in user.turns if turn.ts_us < micros(at)]
            return turns[max(0, first_of(user.before + len(turns)) - user.before) :]

    def erase(self, subject_id: str) -> int:
        """Remove everything about a user, and return how many turns that were.

        Raises:
            ConnectionError: Redis does not answer.
        """
        key = self._key(b"user", subject_id.encode())
        replies = self._online.ask([("HGETALL", key)])
        if replies is not None:
            events = [field[2:] for field in _pairs(replies[0]) if field.startswith(TURN)]
            others = [self._key(kind, event) for event in events for kind in (b"of", b"early")]
            if self._online.ask([("DEL", key, *others)]) is not None:
                with self._reading:
                    self._users.pop(subject_id, None)
                return len(events)
        raise ConnectionError("online: Redis does not answer")

    def positions(self, log: EventLog) -> dict[tuple[str, int], int] | None:
        """Return how far `log` was read, by (topic, partition); None while Redis is away."""
        replies = self._online.ask([("HGETALL", self._key(b"read", self._identity(log).encode()))])
        if replies is None:
            return None
        places = {name.decode().rpartition("/"): int(at) for name, at in _pairs(replies[0]).items()}
        return {(topic, int(part)): at for (topic, _, part), at in places.items()}

    def _identity(self, log: EventLog) -> str:
        """Return the identity of a log, which is asked once: Kafka is asked over a connection of its own."""
        if self._log is None or self._log[0] is not log:
            self._log = (log, log.identity())
        return self._log[1]

    def _leads(self, identity: str) -> bool:
        """Return whether this process is the one that brings what is on the log, and goes on being it."""
        lease = self._key(b"lease", identity.encode())
        replies = self._online.ask([("SET", lease, self._name, "NX", "PX", _LEASE_MS), ("GET", lease)])
        if replies is None or replies[1] != self._name:
            self._positions.clear()
            return False
        return self._online.ask([("PEXPIRE", lease, _LEASE_MS)]) is not None

    def _next(self, log: EventLog, topic: str, part: int) -> list[Message]:
        """Return what comes next of a partition; nothing where another process of this machine brings it."""
        low, high = log.watermarks(topic, part)
        place, identity = (self._identity(log), topic, part), self._identity(log).encode()
        if self._positions.get(place) == high:
            return []
        lease = self._key(b"lease", identity)
        replies = self._online.ask(
            [
                ("SET", lease, self._name, "NX", "PX", _LEASE_MS),
                ("GET", lease),
                ("HGET", self._key(b"read", identity), f"{topic}/{part}"),
            ]
        )
        if replies is None or replies[1] != self._name:
            return []
        self._leased = True
        at = self._positions[place] = min(max(low, int(replies[2] or 0)), high)
        return log.read(topic, part, at, max_messages=_BATCH)

    def _of_decisions(self, decided: Sequence[tuple[Decision, Message]]) -> list[tuple[str, bytes, bytes]] | None:
        """Return the fields of the decisions, and of what was reported of them before they came."""
        asked: list[Command] = []
        for record, _ in decided:
            owner, early = self._event_keys(record.event_id)
            asked += [("SET", owner, _owner(record), "NX", "EX", self._event_s), ("GET", owner), ("HGETALL", early)]
        replies = self._online.ask(asked)
        if replies is None:
            return None
        fields: list[tuple[str, bytes, bytes]] = []
        for (record, message), owner, early in zip(decided, replies[1::3], replies[2::3], strict=True):
            if owner != _owner(record):  # the id was used for somebody else first
                continue
            subject_id = record.subject_id or ""
            fields.append((subject_id, *turn_field(record, message.ts_ms)))
            fields += [(subject_id, field, value) for field, value in _pairs(early).items()]
        return fields

    def _of_outcomes(
        self, reported: Sequence[tuple[Outcome, Message]], identity: str
    ) -> list[tuple[str, bytes, bytes]] | None:
        """Return the fields of the outcomes whose decisions are known; the others wait for them."""
        asked: list[Command] = []
        made: list[Field] = []
        for record, message in reported:
            owner, early = self._event_keys(record.event_id)
            made.append(report_field(record, message.ts_ms, *_origin(message, identity)))
            # it waits before it asks: a decision that comes meanwhile finds it
            asked += [("HSETNX", early, *made[-1]), ("EXPIRE", early, self._event_s), ("GET", owner)]
        replies = self._online.ask(asked)
        if replies is None:
            return None
        return [(owner.decode(), *field) for field, owner in zip(made, replies[2::3], strict=True) if owner is not None]

    def _written(self, fields: Sequence[tuple[str, bytes, bytes]]) -> int | None:
        """Write fields of users, and return how many were not there."""
        asked: list[Command] = [
            ("HSETNX", self._key(b"user", subject_id.encode()), field, value) for subject_id, field, value in fields
        ]
        users = {subject_id: self._key(b"user", subject_id.encode()) for subject_id, _, _ in fields}
        for key in users.values():
            asked += [("HSET", key, VERSION, uuid.uuid4().bytes), ("EXPIRE", key, KEPT_S), ("HLEN", key)]
        replies = self._online.ask(asked)
        if replies is None:
            return None
        for key, length in zip(users.values(), replies[len(fields) + 2 :: 3], strict=True):
            if length > self._most:
                self._trim(key)
        return sum(replies[: len(fields)])

    def _trim(self, key: bytes) -> None:
        """Forget the turns that no memory is made of any more, but for a block, and what was reported of them."""
        replies = self._online.ask([("HGETALL", key)])
        if replies is None:
            return
        fields = _pairs(replies[0])
        before, turns = read_user(fields)
        forgotten = first_of(before + len(turns)) - before - BLOCK
        if forgotten <= 0:
            return
        kept = {turn.event_id.encode() for turn in turns[forgotten:]}
        gone = [field for field in fields if field.startswith((TURN, REPORT)) and event_of(field) not in kept]
        bound = encode((turns[forgotten - 1].ts_us, turns[forgotten - 1].event_id))
        mark = uuid.uuid4().bytes
        self._online.ask([("EVAL", _TRIM, 1, key, before, before + forgotten, bound, mark, *gone)])

    def _read(self, subject_ids: Sequence[str]) -> None:
        """Bring what is held of users up to date, by one round trip where nothing has changed."""
        keys = {subject_id: self._key(b"user", subject_id.encode()) for subject_id in subject_ids}
        versions = self._online.ask([("HGET", key, VERSION) for key in keys.values()])
        if versions is None:
            return
        changed: list[str] = []
        for (subject_id, _), version in zip(keys.items(), versions, strict=True):
            held = self._users.get(subject_id)
            if version is None:
                self._users.pop(subject_id, None)
            elif held is None or held.version != version:
                changed.append(subject_id)
        found = self._online.ask([("HGETALL", keys[subject_id]) for subject_id in changed])
        if not changed or found is None:
            return
        if len(self._users) + len(changed) > HELD:
            self._users = {subject_id: self._users[subject_id] for subject_id in keys if subject_id in self._users}
        for subject_id, reply in zip(changed, found, strict=True):
            fields = _pairs(reply)
            user = User(fields.get(VERSION), *read_user(fields))
            self._users[subject_id] = user.going_on_from(self._users.get(subject_id))

    def _event_keys(self, event_id: str) -> tuple[bytes, bytes]:
        return self._key(b"of", event_id.encode()), self._key(b"early", event_id.encode())

    def _key(self, kind: bytes, name: bytes) -> bytes:
        return b"memory:%s:%s:%s" % (self._loop.encode(), kind, name)


def _owner(record: Decision) -> bytes:
    return (record.subject_id or "").encode()


def _origin(message: Message, identity: str) -> tuple[str, int]:
    """Return the log that a message was appended to first, and its number there."""
    found = dict(message.headers)
    offset = found.get("spool_offset", b"")
    if "spool" in found and offset.isdigit() and len(offset) < 19:
        return found["spool"].decode(errors="replace").replace(":", "_"), int(offset)
    return identity.replace(":", "_"), message.offset


def _pairs(reply: Any) -> dict[bytes, bytes]:
    """Return what HGETALL gave, as a mapping."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
