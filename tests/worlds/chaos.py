"""Disturbances of a fleet: processes that are killed and stopped, parts that go away and come back."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.worlds.fleet import Member

_LOOK_S, _REST_S = 0.2, 1.0


class Part(NamedTuple):
    """A part that goes away for a while."""

    away: Callable[[], object]
    back: Callable[[], object]


class Chaos:
    """Disturbs the members and the parts until its time is over.

    Args:
        members: processes; one that ended is started again after a second.
        parts: what may be away, by name: each is, once.
        seed: of whom it hits, how and when.
        every_s: seconds between two hits.
        away_s: how long a part is away, in seconds.

    Attributes:
        killed: how often each member was killed, with all its processes.
        hurt: how often one process that it had started was.
        stopped: how often each was stopped for a while.
    """

    def __init__(
        self, members: Sequence[Member], parts: Mapping[str, Part], seed: int, *, every_s: float, away_s: float
    ) -> None:
        self._members, self._parts, self._every_s, self._away_s = members, parts, every_s, away_s
        self._rng = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        self._paused: dict[str, list[int]] = {}
        self._down: dict[str, float] = {}
        self.killed, self.hurt, self.stopped = Counter[str](), Counter[str](), Counter[str]()

    def run(self, seconds: float, told: Callable[[str], object]) -> None:
        """Disturb for so many seconds; afterwards all is there again, and goes on."""
        self._begun, self._told = time.monotonic(), told
        with ThreadPoolExecutor(len(self._parts)) as pool:
            gone = [
                pool.submit(self._outage, name, seconds * (place + 1) / (len(self._parts) + 1))
                for place, name in enumerate(self._rng.sample(sorted(self._parts), len(self._parts)))
            ]
            self._at(self._every_s, self._hit)
            while time.monotonic() - self._begun < seconds or not all(each.done() for each in gone):
                while self._due and self._due[0][0] <= time.monotonic():
                    heapq.heappop(self._due)[2]()
                for member in self._members:
                    self._restart(member)
                time.sleep(_LOOK_S)
        for each in gone:
            each.result()
        for name in list(self._paused):
            self._go_on(name)
        for member in self._members:
            if not member.runs():
                member.kill()
                member.start()

    def _restart(self, member: Member) -> None:
        if member.runs():
            self._down.pop(member.name, None)
        elif time.monotonic() - self._down.setdefault(member.name, time.monotonic()) > _REST_S:
            member.kill()  # what it left behind, as whatever started it would
            self._paused.pop(member.name, None)
            member.start()

    def _at(self, seconds: float, then: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, then))

    def _hit(self) -> None:
        self._at(self._every_s, self._hit)
        member = self._rng.choice(self._members)
        how = self._rng.choices(("killed", "hurt", "stopped"), (4, 2, 4))[0]
        if how == "stopped" and member.name not in self._paused:
            seconds = self._rng.uniform(2.0, 8.0)
            self.stopped[member.name] += 1
            self._say(f"{member.name} stopped for {seconds:.1f} s")
            self._paused[member.name] = member.pause()
            self._at(seconds, lambda: self._go_on(member.name))
        elif how == "hurt" and (name := member.hurt(self._rng)):
            self.hurt[member.name] += 1
            self._say(f"{member.name}: {name} killed")
        else:
            self._paused.pop(member.name, None)
            self.killed[member.name] += 1
            self._say(f"{member.name} killed")
            member.kill()

    def _go_on(self, name: str) -> None:
        if (processes := self._paused.pop(name, None)) is not None:
            Member.go_on(processes)

    def _outage(self, name: str, after_s: float) -> None:
        time.sleep(after_s)
        self._say(f"{name} away for {self._away_s:.0f} s")
        self._parts[name].away()
        try:
            time.sleep(self._away_s)
        finally:
            self._parts[name].back()
        self._say(f"{name} back")

    def _say(self, what: str) -> None:
        self._told(f"{time.monotonic() - self._begun:7.1f} s  {what}")
