"""The spool: what a request hands its decision to, and gets it back from once it is on disk.

One thread writes. While it waits for one fsync, requests that arrive queue up and share the next, so the disk bounds
the latency of a request and not their number. Each event loop hears of a whole batch by one call. No loop of decisions
fills the queue for the others: `serving.waiting.fair` has the shares and the turns.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

from decision.errors import FieldError, Words
from pipelines.log.protocol import DECISIONS, FORWARDER_HEADERS, MAX_HEADERS, Headers, LogError, Message, check_message
from pipelines.log.sqlite.log import Group, Stored
from serving.errors import UnavailableError
from serving.telemetry.traces import CURRENT, Trace, now_ns
from serving.waiting.fair import FairQueue, QueueFull

__all__ = [
    "Answer",
    "Give",
    "Spool",
    "SpoolClosed",
    "Stored",
    "Waiting",
    "given",
    "on_disk",
    "refuse",
    "waited",
]

_logger = logging.getLogger(__name__)
MOST_GROUPS, MOST_BYTES = 20_000, 64 << 20
"""That wait for the disk at a time: a loop alone has half of the groups, and a first batch of 48 MiB."""
_GROUPS_PER_COMMIT = 512
_BYTES_PER_COMMIT = 8 << 20
_PROBE_S = 0.5
_APART_S, _MANY = 0.001, 64
"""After a commit that several share, the next begins so much later than it did, in seconds, or once so many groups
wait: a commit costs a processor about as much as ten decisions."""
_MAX_HEADERS = MAX_HEADERS - FORWARDER_HEADERS


class SpoolClosed(Exception):
    """The spool takes nothing any more."""


Answer = asyncio.Future[list[Stored]] | Future[list[Stored]]
"""What a coroutine, or a thread, waits for: what became of each of its groups."""


class Written(Protocol):
    """Where a spool writes to: a `LocalLog`, or what stands for it; methods as there."""

    def partitions(self, topic: str) -> int: ...
    def append_groups(self, groups: Sequence[Group]) -> list[Stored]: ...
    def find(self, topic: str, key: bytes) -> list[Message]: ...
    def probe(self) -> None: ...


class Waiting(NamedTuple):
    """Groups that are given together, what tells whoever gave them what became of them, and their request's trace."""

    groups: Sequence[Group]
    future: Answer
    trace: Trace | None = None


Give = Callable[[Sequence[Waiting], asyncio.AbstractEventLoop | None], None]
"""Takes what coroutines of a loop wait for, or threads where it is None, and sees to it that they are told."""


class _Entry(NamedTuple):
    """Groups that were given together and are answered together."""

    groups: Sequence[Group]
    size: int
    future: Answer
    loop: asyncio.AbstractEventLoop | None  # None: a thread waits
    trace: Trace | None
    taken_ns: int  # when, for the trace


_Told = tuple[Answer, list[Stored] | None]


class Spool:
    """Queue and writing thread in front of what acknowledges.

    Args:
        log: where to write; its topics exist.
        max_events: most groups that wait at a time; those of one loop are at most as many as there is room for more.
        max_bytes: most bytes that wait at a time; likewise.
        healthy: `log` takes writes now; else it is probed first.

    Attributes:
        healthy: the last write worked; after a failure the disk is probed twice a second.
        appended: groups written since the start.
        bytes: bytes of those groups.
        last_fsync_seconds: how long the latest commit took.
    """

    def __init__(
        self, log: Written, *, max_events: int = MOST_GROUPS, max_bytes: int = MOST_BYTES, healthy: bool = True
    ) -> None:
        self.healthy = healthy
        self.appended = 0
        self.bytes = 0
        self.last_fsync_seconds = 0.0
        self._log = log
        self._lock = threading.Lock()
        self._queue: FairQueue[_Entry] = FairQueue(most_groups=max_events, most_bytes=max_bytes)
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Groups that were taken and are not on disk yet."""
        return self._queue.groups

    def submit(self, groups: Sequence[Group]) -> Future[list[Stored]]:
        """Queue `groups`, for a thread; the result is what `append_all` returns or raises."""
        future: Future[list[Stored]] = Future()
        self.give((Waiting(groups, future),), None)
        return future

    async def append(
        self, key: bytes, messages: Sequence[tuple[str, bytes, Headers]], *, unique: bool = False
    ) -> Stored:
        """Return once the messages, at least one, are on disk whole, with what became of them.

        Args:
            key: the event id.
            messages: topic, value and headers of each.
            unique: write nothing when the first message's topic already holds `key`; the result is then what it
                holds (`Stored.existing`).

        Errors as `append_all`.
        """
        return (await self.append_all((Group(key, messages, unique),)))[0]

    async def append_all(self, groups: Sequence[Group]) -> list[Stored]:
        """Return once all `groups` are on disk, each whole, with what became of each.

        A coroutine that is cancelled while it waits leaves its messages to be written.

        Raises:
            QueueFull: too much is waiting, of this loop or of all.
            SpoolClosed: the spool was closed.
            FieldError: a message that does not fit.
            UnknownTopic: a topic that was not created.
            LogUnavailable: the disk did not take them; a retry with the same key is safe where `unique` is set.
        """
        return await given(self.give, groups)

    def give(self, waiting: Sequence[Waiting], loop: asyncio.AbstractEventLoop | None) -> None:
        """Take what coroutines of `loop` wait for, or threads where it is None; any thread may call it.

        What cannot be taken fails alone.

        Each future gets what became of its groups, or one of the errors of `append_all`.
        """
        entries: list[_Entry] = []
        refused: list[tuple[Answer, Exception]] = []
        for some, future, trace in waiting:
            try:
                size, taken_ns = sum(map(self._checked, some)), 0 if trace is None else now_ns()
                entries.append(_Entry(some, size, future, loop, trace, taken_ns))
            except (FieldError, LogError) as error:
                refused.append((future, error))
        with self._lock:
            first = not self._queue
            for entry in entries:
                try:
                    self._admit(entry)
                except (SpoolClosed, QueueFull) as error:
                    refused.append((entry.future, error))
            wake = first and bool(self._queue)
        if wake:
            self._wake.set()
        for future, error in refused:
            refuse((future,), error, loop)

    def find(self, topic: str, key: bytes) -> list[Message]:
        """Return what `topic` holds under `key`; sees everything acknowledged."""
        return self._log.find(topic, key)

    @property
    def partitions(self) -> int:
        """Partitions of the log that an event's key falls into."""
        return self._log.partitions(DECISIONS)

    def close(self) -> None:
        """Take nothing more, write what waits, and return."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._thread.join()

    def _checked(self, group: Group) -> int:
        """Return the group's size in bytes; done before it is taken, so that none can fail the commit of others."""
        if not group.messages:
            raise FieldError("messages", wanted="at least one", got=Words("none"))
        size = 0
        for topic, value, headers in group.messages:
            self._log.partitions(topic)
            size += check_message(group.key, value, headers, max_headers=_MAX_HEADERS)
        return size

    def _admit(self, entry: _Entry) -> None:
        if self._closed:
            raise SpoolClosed("the spool is closed")
        groups = entry.groups
        self._queue.add(groups[0].loop if groups else "", entry, len(groups), entry.size)

    def _run(self) -> None:
        while True:
            self._wake.wait(timeout=None if self.healthy else _PROBE_S)
            self._wake.clear()
            while batch := self._next():
                begun = time.perf_counter()
                self._write(batch)
                rest = begun + _APART_S - time.perf_counter()
                if len(batch) > 1 and rest > 0.0 and self._queue.waiting < _MANY and not self._closed:
                    time.sleep(rest)
            if not self.healthy:
                self._probe()
            with self._lock:
                if self._closed and not self._queue:
                    return

    def _next(self) -> list[_Entry]:
        with self._lock:
            return self._queue.take(_GROUPS_PER_COMMIT, _BYTES_PER_COMMIT)

    def _write(self, batch: list[_Entry]) -> None:
        traced = [entry for entry in batch if entry.trace is not None]
        started, started_ns = time.perf_counter(), now_ns() if traced else 0
        results: list[Stored] | None = None
        error: Exception | None = None
        try:
            results = self._log.append_groups([group for entry in batch for group in entry.groups])
        except Exception as raised:  # whatever it was, the waiters must hear of it and the thread must go on
            error = raised
        self.last_fsync_seconds = time.perf_counter() - started
        self._note(error)
        if results is not None:
            fresh = [bool(stored.positions) for stored in results]
            self.appended += sum(fresh)
            if all(fresh):
                self.bytes += sum(entry.size for entry in batch)
            else:
                groups = [group for entry in batch for group in entry.groups]
                self.bytes += sum(self._checked(group) for group, new in zip(groups, fresh, strict=True) if new)
        with self._lock:
            self._queue.done()
        ended_ns = now_ns() if traced else 0
        _answer(batch, results, error)
        for entry in traced:
            _trace(entry, started_ns, ended_ns, entries=len(batch), failed=error is not None)

    def _probe(self) -> None:
        try:
            self._log.probe()
            self._note(None)
        except LogError as error:
            self._note(error)

    def _note(self, error: Exception | None) -> None:
        """Take note of whether the disk takes writes; the log is told when that changes, and why."""
        if error is not None and self.healthy:
            _logger.error("nothing can be written down: %s", error)
        elif error is None and not self.healthy:
            _logger.warning("everything can be written down again")
        self.healthy = error is None


def _trace(entry: _Entry, started_ns: int, ended_ns: int, *, entries: int, failed: bool) -> None:
    if entry.trace is not None:
        entry.trace.step("spool.queue", entry.taken_ns, started_ns, {}, failed=False)
        entry.trace.step("spool.commit", started_ns, ended_ns, {"together": entries}, failed=failed)


def _answer(batch: list[_Entry], results: list[Stored] | None, error: Exception | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Told]] = {}
    rest = None if results is None else iter(results)
    for entry in batch:
        stored = None if rest is None else list(islice(rest, len(entry.groups)))
        if entry.loop is None:
            _resolve([(entry.future, stored)], error)
        else:
            by_loop.setdefault(entry.loop, []).append((entry.future, stored))
    for loop, answers in by_loop.items():
        with suppress(RuntimeError):  # the loop is gone, and with it whoever waited; the messages are on disk
            loop.call_soon_threadsafe(_resolve, answers, error)


def refuse(futures: Sequence[Answer], error: Exception, loop: asyncio.AbstractEventLoop | None) -> None:
    """Tell the coroutines of `loop`, or threads where it is None, that nothing was taken; any thread may call it."""
    if loop is None:
        _fail(futures, error)
        return
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_fail, futures, error)


def _fail(futures: Sequence[Answer], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _resolve(answers: Sequence[_Told], error: Exception | None) -> None:
    for future, stored in answers:
        if future.done():  # cancelled
            continue
        if stored is not None:
            future.set_result(stored)
        elif error is not None:
            # one exception object shared by many waiters would collect their tracebacks
            future.set_exception(type(error)(*error.args))


async def given(give: Give, groups: Sequence[Group]) -> list[Stored]:
    """Hand over groups that are answered together, and return what became of each. Errors as `Spool.append_all`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Stored]] = loop.create_future()
    give((Waiting(groups, future, CURRENT.get()),), loop)
    return await future


async def on_disk(writing: Awaitable[list[Stored]]) -> list[Stored]:
    """Return what was written, once it is on disk.

    Raises:
        UnavailableError: nothing was written.
    """
    try:
        return await writing
    except (QueueFull, SpoolClosed, LogError) as error:
        raise _not_written(error) from error


def waited(writing: Future[list[Stored]]) -> list[Stored]:
    """As `on_disk`, for a thread that may wait."""
    try:
        return writing.result()
    except (QueueFull, SpoolClosed, LogError) as error:
        raise _not_written(error) from error


def _not_written(error: Exception) -> UnavailableError:
    if isinstance(error, QueueFull):
        whose = f" of the loop {error.loop!r}" if error.loop else ""
        return UnavailableError(f"too many requests{whose} wait to be written down")
    return UnavailableError("nothing can be written down at present")
