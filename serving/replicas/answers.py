"""One answer per event id over all machines: the first one stands in Redis, and every other replica gives it, too.

What was drawn is offered under its loop and event id; whatever stands there then goes to the spool, also what another
replica drew: it may have died in between, and ingestion drops repeats. While Redis is away each machine answers by
itself, and what it answered is counted as unpinned: ingestion sees where two differ.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from pipelines.log.protocol import Headers
from pipelines.log.sqlite.log import Group
from pipelines.online.answers import KEPT_S, answer_key, forget_answers
from pipelines.online.connection import Command, Online
from serving import metrics
from serving.spool import MOST_BYTES, MOST_GROUPS, Give, SpoolClosed, Waiting, refuse
from serving.waiting.fair import FairQueue, QueueFull

_GROUPS_AT_ONCE, _BYTES_AT_ONCE = 512, 4 << 20

_Messages = tuple[tuple[str, bytes, Headers], ...]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Messages).decode


class _Entry(NamedTuple):
    """What is handed on together, once it is known what stands."""

    waiting: Waiting
    loop: asyncio.AbstractEventLoop | None


class Answers:
    """Stands in front of what writes decisions down.

    Args:
        online: a Redis that all replicas share.
        give: what takes them then, from any thread.

    Attributes:
        online: where answers are agreed on.
    """

    def __init__(self, online: Online, give: Give) -> None:
        self.online, self._give = online, give
        self._turn = threading.Condition()
        self._queue: FairQueue[_Entry] = FairQueue(most_groups=MOST_GROUPS, most_bytes=MOST_BYTES)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def give(self, waiting: Sequence[Waiting], loop: asyncio.AbstractEventLoop | None) -> None:
        """Take what coroutines of `loop` wait for, or threads where it is None, as `Spool.give`."""
        chosen = [each for each in waiting if any(group.unique for group in each.groups)]
        if self.online.away:
            _unpinned([group for each in chosen for group in each.groups])
            chosen = []
        if len(chosen) < len(waiting):  # an id of our own is random: nobody has answered it
            kept = set(map(id, chosen))
            self._give([each for each in waiting if id(each) not in kept], loop)
        if not chosen:
            return
        refused: list[tuple[Waiting, Exception]] = []
        with self._turn:
            for each in chosen:
                if self._closed:
                    refused.append((each, SpoolClosed("closed")))
                    continue
                size = sum(len(value) for group in each.groups for _, value, _ in group.messages)
                try:
                    self._queue.add(each.groups[0].loop, _Entry(each, loop), len(each.groups), size)
                except QueueFull as error:
                    refused.append((each, error))
            self._turn.notify()
        for each, error in refused:
            refuse((each.future,), error, loop)

    def forget(self, loops: Iterable[str], event_ids: Sequence[bytes]) -> None:
        """Take away what stands under ids that were erased: who repeats such a request has offered an answer anew."""
        with suppress(ConnectionError):  # it is away, and took nothing; else it forgets by itself in a day
            forget_answers(self.online, loops, event_ids)

    def close(self) -> None:
        """Take nothing more, hand on what waits, and return."""
        with self._turn:
            self._closed = True
            self._turn.notify()
        self._thread.join()

    def _run(self) -> None:
        while entries := self._next():
            try:
                standing = iter(self._standing([group for entry in entries for group in entry.waiting.groups]))
                by_loop: dict[asyncio.AbstractEventLoop | None, list[Waiting]] = {}
                for (groups, future, trace), loop in entries:
                    by_loop.setdefault(loop, []).append(Waiting([next(standing) for _ in groups], future, trace))
                for loop, waiting in by_loop.items():
                    self._give(waiting, loop)
            except Exception as error:  # whatever it was, the waiters must hear of it and the thread must go on
                for (_, future, _), loop in entries:
                    refuse((future,), error, loop)
            with self._turn:
                self._queue.done()

    def _next(self) -> list[_Entry]:
        with self._turn:
            self._turn.wait_for(lambda: self._queue or self._closed)
            return self._queue.take(_GROUPS_AT_ONCE, _BYTES_AT_ONCE)

    def _standing(self, groups: Sequence[Group]) -> list[Group]:
        """Return what stands under each group's key: the group itself, or what another replica made of it."""
        chosen = [group for group in groups if group.unique]
        texts = [_encode(group.messages) for group in chosen]
        commands: list[Command] = []
        for group, text in zip(chosen, texts, strict=True):
            key = answer_key(group.loop, group.key)
            commands += [("SET", key, text, "NX", "EX", KEPT_S), ("GET", key)]
        replies = self.online.ask(commands)
        if replies is None:
            _unpinned(chosen)
            return list(groups)
        found = iter([_settled(*each) for each in zip(chosen, texts, replies[1::2], strict=True)])
        return [next(found) if group.unique else group for group in groups]


def _settled(group: Group, ours: bytes, stands: bytes | None) -> Group:
    if stands == ours:
        return group
    try:
        messages = () if stands is None else _decode(stands)
    except (msgspec.DecodeError, UnicodeDecodeError):
        messages = ()
    if not messages:  # it went at once, or is nothing of ours
        _unpinned([group])
        return group
    return group._replace(messages=messages, standing=True)


def _unpinned(groups: Sequence[Group]) -> None:
    for group in groups:
        if group.unique:
            metrics.count("unpinned", group.loop)
