"""Who asks: anybody where no key is asked for, else who holds a key, as far as it reaches and as often as it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from decision.errors import DecisionError
from pipelines.access.keys import EVERY, Key
from pipelines.settings import LoopSettings

_BURST_S = 2.0
_DAY_S = 86_400.0


class EndedError(DecisionError):
    """The key has ended."""


class TooManyError(DecisionError):
    """A key was used more often than it may be.

    Attributes:
        after_s: seconds after which it may be used again.
    """

    def __init__(self, after_s: float, limit: str) -> None:
        self.after_s = after_s
        super().__init__(f"the key has {limit}")


class Caller(Protocol):
    """What a request may do."""

    def holds(self, role: str) -> bool:
        """Return whether the caller has a role."""
        ...

    def sees(self, loop: LoopSettings) -> bool:
        """Return whether a loop is there for the caller."""
        ...

    def sees_all(self) -> bool:
        """Return whether every loop is there for the caller."""
        ...

    def admit(self) -> None:
        """Count a request.

        Raises:
            TooManyError: it is one too many, or comes too late.
        """
        ...


class Anybody:
    """Whoever asks where no key is asked for, or shows one of the environment's."""

    def holds(self, role: str) -> bool:
        """Return True."""
        return True

    def sees(self, loop: LoopSettings) -> bool:
        """Return True."""
        return True

    def sees_all(self) -> bool:
        """Return True."""
        return True

    def admit(self) -> None:
        """Count nothing."""


ANYBODY = Anybody()


class Holder:
    """Whoever shows a key of State.

    Args:
        key: the key.
        clock: seconds since 1970.
        before: the same key before it was changed; what was counted stays.
    """

    def __init__(self, key: Key, clock: Callable[[], float], before: Holder | None = None) -> None:
        self.key = key
        self.holds, self.sees = key.holds, key.sees
        self._clock = clock
        self._ends = float("inf") if key.expires_at is None else key.expires_at.timestamp()
        self._rate = key.per_second or 0.0
        self._left, self._at = _BURST_S * self._rate + 1.0, clock()
        self._day = self._at // _DAY_S
        self.asked = 0
        """Requests that were admitted; the requests' thread alone changes it."""
        self.counted = 0
        """Those of them that were counted in State; the thread that counts alone changes it."""
        self.today = 0
        """Requests of the day that State knows of."""
        if before is not None:
            self._left, self._at = min(self._left, before._left), before._at
            self._day, self.today = before._day, before.today
            self.asked, self.counted = before.asked, before.counted

    @property
    def uncounted(self) -> int:
        """Requests that were not counted in State yet."""
        return self.asked - self.counted

    def sees_all(self) -> bool:
        """Return whether every loop is there for the caller."""
        return not self.key.tenant and EVERY in self.key.loops

    def admit(self) -> None:
        """Count a request; see `Caller`."""
        now = self._clock()
        if now >= self._ends:
            raise EndedError
        if self._rate:
            self._left = min(self._left + (now - self._at) * self._rate, _BURST_S * self._rate + 1.0)
            self._at = now
            if self._left < 1.0:
                raise TooManyError((1.0 - self._left) / self._rate, f"{self.key.per_second:g} requests a second")
            self._left -= 1.0
        if self.key.per_day is not None:
            if now // _DAY_S != self._day:
                self._day, self.today = now // _DAY_S, -self.uncounted
            if self.today + self.uncounted >= self.key.per_day:
                raise TooManyError(_DAY_S - now % _DAY_S, f"{self.key.per_day} requests a day")
        self.asked += 1
