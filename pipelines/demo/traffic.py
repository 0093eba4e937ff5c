"""An application, for the demo: it asks over HTTP, acts, and reports the outcome late, out of order, sometimes twice.

Run as a process of its own (``python -m pipelines.demo.traffic``), it takes orders on stdin, one a line (``burst
1500``: that many decisions as fast as they are answered; ``trickle 40``: as many a second until the next order;
``stop``), tells how it stands on stdout, and writes every acknowledgement to its own journal: what a loss is counted
against.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import msgspec
import numpy as np

from decision.validation import prepared
from simulators.environments.classification import ClassificationWorld, classification_world

_encode = msgspec.json.Encoder().encode
_STATUS_S = 0.2
_TIMEOUT_S = 30.0
_RETRIES = 5
_SENDERS = 2
_MOST_REPORTS = 100


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """How the application reports.

    Attributes:
        delay_s: an outcome is reported at most this long after its decision, in seconds.
        silent: share of the wrong choices of which nothing is ever reported; their reward is the default.
        late: share of the other wrong choices reported after the reward window.
        late_s: how long after the decision those are reported, in seconds.
        twice: share of the reports that are sent again under the same idempotency key.
        asked_again: share of the requests that are repeated under the same event id.
    """

    delay_s: float = 1.2
    silent: float = 0.5
    late: float = 0.02
    late_s: float = 4.0
    twice: float = 0.05
    asked_again: float = 0.02


class Acknowledged(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One line of the journal: a decision, an outcome or a failure, as the application saw it.

    Attributes:
        kind: ``decision``, ``outcome``, or ``failed`` for a request that was not answered with success.
        event_id: the decision's.
        at: seconds since the application started.
        row: row of the world that the decision was about.
        action_id: the action returned.
        propensity: the probability returned with it.
        expected: probability that the answer's ranking gives to the right action: the expected reward.
        version: policy version of the answer.
        ms: how long the answer took, in milliseconds.
        key: the outcome's idempotency key.
        value: the outcome's value.
        detail: of a failure.
    """

    kind: str
    event_id: str
    at: float
    row: int = -1
    action_id: str = ""
    propensity: float = 0.0
    expected: float = 0.0
    version: str = ""
    ms: float = 0.0
    key: str = ""
    value: float = 0.0
    detail: str = ""


class Status(msgspec.Struct, kw_only=True):
    """How the application stands.

    Attributes:
        decided: decisions acknowledged.
        reported: outcomes acknowledged, repeated ones included.
        failed: requests that were not answered with success.
        reconnected: requests asked again at once, because the server had closed the idle connection.
        repeated: requests that were sent again under the same event id.
        changed: those of them that were answered otherwise than the first time.
        open: outcomes that wait to be reported.
        version: policy version of the latest answer.
        bursts: bursts that are done.
        stopped: everything is reported.
    """

    decided: int = 0
    reported: int = 0
    failed: int = 0
    reconnected: int = 0
    repeated: int = 0
    changed: int = 0
    open: int = 0
    version: str = ""
    bursts: int = 0
    stopped: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome as it is sent: what it was, and when it happened (ISO 8601)."""

    event_id: str
    value: float
    idempotency_key: str
    ts: str


class Answer(msgspec.Struct):
    """What the application reads of a decision's answer; it ignores the rest."""

    event_id: str
    action_id: str
    propensity: float
    ranking: list[dict[str, Any]]
    policy_version: str


class Application:
    """The application.

    Args:
        world: what is asked about and what is right.
        url: the loop's address, ``http://host:port/v1/loops/NAME``.
        seed: seed of everything it does at random, and prefix of its event ids.
        journal: where acknowledgements are written.
        habits: how it reports.
        connections: requests under way at a time.
    """

    def __init__(
        self,
        world: ClassificationWorld,
        url: str,
        *,
        seed: int,
        journal: BinaryIO,
        habits: Habits,
        connections: int = 8,
    ) -> None:
        self.status = Status()
        self._world = world
        self._url = url
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._journal = journal
        self._habits = habits
        self._numbers = itertools.count()
        self._connections = connections
        self._due: asyncio.Queue[tuple[Report, asyncio.Future[bool]]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = time.perf_counter()
        actions = world.action_features()
        pairs = zip(world.action_ids, actions, strict=True)
        self._actions = [{"id": action_id, "features": features} for action_id, features in pairs]
        self._decoder = msgspec.json.Decoder(Answer)

    async def run(self, orders: asyncio.Queue[str]) -> None:
        """Follow `orders` until ``stop``, then wait until every outcome is reported."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=2 * self._connections)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as session:
            self._session = session
            senders = [asyncio.create_task(self._send_reports()) for _ in range(_SENDERS)]
            trickle: asyncio.Task[None] | None = None
            while True:
                order, _, number = (await orders.get()).partition(" ")
                if trickle is not None:
                    trickle.cancel()
                    trickle = None
                if order == "burst":
                    await self._burst(int(number))
                elif order == "trickle":
                    trickle = asyncio.create_task(self._trickle(float(number)))
                else:
                    break
            while self._tasks:
                await asyncio.wait(self._tasks)
            for sender in senders:
                sender.cancel()
        self.status.stopped = True

    async def _burst(self, count: int) -> None:
        async def worker(numbers: range) -> None:
            for _ in numbers:
                await self._decide()

        shares = [
            range(count * i // self._connections, count * (i + 1) // self._connections)
            for i in range(self._connections)
        ]
        await asyncio.gather(*(worker(share) for share in shares))
        self.status.bursts += 1

    async def _trickle(self, per_second: float) -> None:
        due = time.perf_counter()
        while True:
            self._later(self._decide())
            due += 1.0 / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _decide(self) -> None:
        row = int(self._rng.choice(self._world.train))
        again = self._rng.random() < self._habits.asked_again
        event_id = f"{self._world.name}-{self._seed}-{next(self._numbers):07d}"
        body = _encode({"event_id": event_id, "context": self._world.context(row), "actions": self._actions})
        answer = await self._ask(event_id, row, body)
        if answer is None:
            return
        if again:
            repeated = await self._ask(event_id, -1, body)
            self.status.repeated += repeated is not None
            self.status.changed += repeated not in (None, answer)
        self._plan(event_id, row, answer.action_id)

    async def _ask(self, event_id: str, row: int, body: bytes) -> Answer | None:
        started = time.perf_counter()
        data = await self._post("/decide", body, event_id)
        if data is None:
            return None
        answer = self._decoder.decode(data)
        if row >= 0:
            right = self._world.action_ids[int(self._world.labels[row])]
            expected = sum(entry["probability"] for entry in answer.ranking if entry["id"] == right)
            self.status.decided += 1
            self.status.version = answer.policy_version
            self._write(
                Acknowledged(
                    kind="decision",
                    event_id=event_id,
                    at=self._now(),
                    row=row,
                    action_id=answer.action_id,
                    propensity=answer.propensity,
                    expected=expected,
                    version=answer.policy_version,
                    ms=(time.perf_counter() - started) * 1e3,
                )
            )
        return answer

    def _plan(self, event_id: str, row: int, action_id: str) -> None:
        value = self._world.reward(row, action_id)
        silent, late, twice, delay, gap = self._rng.random(5)
        wait = delay * self._habits.delay_s
        if value == 0.0:
            # Only what changes no reward is left out or late, so that the true value stays known.
            if silent < self._habits.silent:
                return
            if late < self._habits.late:
                wait = self._habits.late_s
        self._later(self._report(event_id, value, wait, gap if twice < self._habits.twice else None))

    async def _report(self, event_id: str, value: float, wait: float, gap: float | None) -> None:
        await asyncio.sleep(wait)
        key = f"{event_id}-result"
        at = datetime.now(UTC).isoformat()
        for pause in (0.0, gap):
            if pause is None:
                return
            await asyncio.sleep(pause)
            sent = asyncio.get_running_loop().create_future()
            self._due.put_nowait((Report(event_id=event_id, value=value, idempotency_key=key, ts=at), sent))
            if await sent:
                self.status.reported += 1
                self._write(Acknowledged(kind="outcome", event_id=event_id, at=self._now(), key=key, value=value))

    async def _send_reports(self) -> None:
        """Send what is due, as many in one request as there are."""
        while True:
            due = [await self._due.get()]
            while len(due) < _MOST_REPORTS and not self._due.empty():
                due.append(self._due.get_nowait())
            answer = await self._post("/outcomes", _encode([report for report, _ in due]), due[0][0].event_id)
            for _, sent in due:
                sent.set_result(answer is not None)

    async def _post(self, path: str, body: bytes, event_id: str) -> bytes | None:
        """Return the answer's body; a request that failed is counted, and tried again under the same id."""
        for attempt in range(_RETRIES):
            try:
                headers = {"content-type": "application/json"}
                async with self._session.post(self._url + path, data=body, headers=headers) as response:
                    data = await response.read()
                    if response.status < 300:
                        return data
                    detail = f"{path} {response.status} {data[:300].decode(errors='replace')}"
            except (aiohttp.ClientError, TimeoutError) as error:
                detail = f"{path} {type(error).__name__}: {error}"
                if not attempt and _closed_while_idle(error):
                    self.status.reconnected += 1
                    continue
            self.status.failed += 1
            self._write(Acknowledged(kind="failed", event_id=event_id, at=self._now(), detail=detail))
            await asyncio.sleep(0.1 * 2**attempt)
        return None

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self.status.open = len(self._tasks)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.status.open = len(self._tasks)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.status.failed += 1
            self._write(Acknowledged(kind="failed", event_id="", at=self._now(), detail=repr(error)))

    def _now(self) -> float:
        return round(time.perf_counter() - self._started, 4)

    def _write(self, entry: Acknowledged) -> None:
        self._journal.write(_encode(entry) + b"\n")


def _closed_while_idle(error: Exception) -> bool:
    """Return whether the server closed a kept connection, as servers may; the ids make it safe to ask again."""
    if isinstance(error, aiohttp.ClientConnectorError):  # nobody took the connection
        return False
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def read_journal(path: Path) -> list[Acknowledged]:
    """Return the journal's lines in order."""
    decoder = msgspec.json.Decoder(Acknowledged)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


async def _main(arguments: argparse.Namespace) -> None:
    world = classification_world(arguments.world, seed=arguments.seed)
    orders: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with Path(arguments.journal).open("wb") as journal:
        habits = msgspec.json.decode(arguments.habits, type=prepared(Habits))
        application = Application(world, arguments.url, seed=arguments.seed, journal=journal, habits=habits)

        async def listen() -> None:
            while line := await reader.readline():
                orders.put_nowait(line.decode().strip())
            orders.put_nowait("stop")  # whoever gave the orders is gone

        async def tell() -> None:
            while True:
                _tell(application.status)
                await asyncio.sleep(_STATUS_S)

        background = [asyncio.create_task(listen()), asyncio.create_task(tell())]
        await application.run(orders)
        for task in background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    _tell(application.status)


def _tell(status: Status) -> None:
    sys.stdout.write(_encode(status).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An application that asks a loop for decisions and reports outcomes.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--world", default="digits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--habits", default="{}")
    asyncio.run(_main(parser.parse_args()))
