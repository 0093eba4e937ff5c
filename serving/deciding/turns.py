"""What is asked at the same time is decided, and handed to the disk, together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from typing import NamedTuple

from decision.records import Decision
from pipelines.log.sqlite.log import Group, Stored
from serving.deciding.question import Question
from serving.spool import Answer, Waiting, on_disk, waited
from serving.telemetry.traces import CURRENT, Trace, now_ns

AT_ONCE = 50  # questions between which others get a turn


class Decided(NamedTuple):
    """What a question came to, before it is on disk."""

    event_id: str
    question: Question
    records: list[Decision]
    group: Group


@dataclass(slots=True, eq=False)
class _Asked:
    """A question that waits to be decided together with others, and later for the disk."""

    loop: str
    question: Question
    future: Answer
    trace: Trace | None = None
    decided: Decided | None = None

    def answered(self, stored: Sequence[Stored]) -> tuple[Decided, Stored]:
        if self.decided is None:
            raise RuntimeError("written before it was decided")
        return self.decided, stored[0]


@dataclass(slots=True)
class Turns:
    """Gathers questions into turns.

    Attributes:
        decide: what the questions of one loop come to, each a decision or the error that says why not.
        give: hands what was decided to the disk.
    """

    decide: Callable[[str, Sequence[Question]], Sequence[Decided | Exception]]
    give: Callable[[Sequence[Waiting], asyncio.AbstractEventLoop | None], None]
    _turns: dict[asyncio.AbstractEventLoop, list[_Asked]] = field(init=False, default_factory=dict)
    _asked: deque[_Asked] = field(init=False, default_factory=deque)
    _deciding: threading.Lock = field(init=False, default_factory=threading.Lock)

    async def ask(self, loop: str, question: Question) -> tuple[Decided, Stored]:
        """Return what `question` came to, once it is on disk.

        What the coroutines of an event loop ask in one of its turns is decided together.

        Raises:
            Exception: whatever `decide` gave in place of a decision.
            UnavailableError: nothing was written.
        """
        running = asyncio.get_running_loop()
        future: asyncio.Future[list[Stored]] = running.create_future()
        asked = _Asked(loop, question, future, CURRENT.get())
        turn = self._turns.get(running)
        if turn is None:
            turn = self._turns[running] = []
            running.call_soon(self._end, running, context=Context())  # it is of all who ask, not of the first
        turn.append(asked)
        return asked.answered(await on_disk(future))

    def ask_here(self, loop: str, question: Question) -> tuple[Decided, Stored]:
        """As `ask`, for a thread that may wait.

        Threads that ask while another one decides are decided together by whoever comes next.
        """
        future: Future[list[Stored]] = Future()
        asked = _Asked(loop, question, future)
        self._asked.append(asked)
        with self._deciding:
            turn: list[_Asked] = []
            while self._asked:
                turn.append(self._asked.popleft())
            self._take(turn, None)
        return asked.answered(waited(future))

    def _end(self, running: asyncio.AbstractEventLoop) -> None:
        self._take(self._turns.pop(running), running)

    def _take(self, turn: Sequence[_Asked], running: asyncio.AbstractEventLoop | None) -> None:
        by_loop: dict[str, list[_Asked]] = {}
        for asked in turn:
            if not asked.future.done():  # else whoever asked has gone
                by_loop.setdefault(asked.loop, []).append(asked)
        for loop, some in by_loop.items():
            for start in range(0, len(some), AT_ONCE):
                self._decide_and_give(loop, some[start : start + AT_ONCE], running)

    def _decide_and_give(self, loop: str, turn: Sequence[_Asked], running: asyncio.AbstractEventLoop | None) -> None:
        traced = [asked for asked in turn if asked.trace is not None]
        begun_ns = now_ns() if traced else 0
        try:
            decided = self.decide(loop, [asked.question for asked in turn])
        except Exception as error:  # the loop is gone since it was asked
            decided = [error] * len(turn)
        waiting: list[Waiting] = []
        for asked, each in zip(turn, decided, strict=True):
            if isinstance(each, Exception):
                asked.future.set_exception(each)
            else:
                asked.decided = each
                waiting.append(Waiting((each.group,), asked.future, asked.trace))
        ended_ns = now_ns() if traced else 0
        self.give(waiting, running)
        for asked in traced:
            _trace(asked, begun_ns, ended_ns, together=len(turn))


def _trace(asked: _Asked, begun_ns: int, ended_ns: int, *, together: int) -> None:
    if asked.trace is None:
        return
    told: dict[str, str] = {"loop": asked.loop}
    if asked.decided is not None:
        told |= {"event_id": asked.decided.event_id, "version": asked.decided.records[0].policy_version}
    asked.trace.about(told)
    asked.trace.step("decide", begun_ns, ended_ns, {**told, "together": together}, failed=asked.decided is None)
