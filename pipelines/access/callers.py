"""Who asks: anybody where no key is asked for, else who shows one or a token, as far and as often as it allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from decision.errors import DecisionError
from pipelines.access.keys import Grant, Key
from pipelines.settings import LoopSettings

_BURST_S = 2.0
_DAY_S = 86_400.0


class EndedError(DecisionError):
    """The key has ended."""


class TooManyError(DecisionError):
    """Somebody asks more often than a key or the issuer's tokens allow.

    Attributes:
        after_s: seconds after which they may ask again.
    """

    def __init__(self, after_s: float, limit: str) -> None:
        self.after_s = after_s
        super().__init__(limit)


class Caller(Protocol):
    """What a request may do.

    Attributes:
        shows: what it shows, in words.
        name: who it is, for the record of what it changes.
    """

    shows: str
    name: str

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

    shows = "key"
    name = "a key of the environment"

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


class Meter:
    """Counts what one caller asks, and says when that is too much.

    Args:
        shows: what the caller shows, in words.
        per_second: requests a second, a burst of two seconds among them; None for any.
        per_day: requests a day (UTC); None for any.
        clock: seconds since 1970.
        before: the meter of the same caller before its limits were changed; what was counted stays.
    """

    def __init__(
        self,
        shows: str,
        per_second: float | None,
        per_day: int | None,
        clock: Callable[[], float],
        before: Meter | None = None,
    ) -> None:
        self.shows, self.per_day = shows, per_day
        self._clock = clock
        self._rate = per_second or 0.0
        self._left, self._at = _BURST_S * self._rate + 1.0, clock()
        self._day = self._at // _DAY_S
        self.asked = 0
        """Requests that were admitted; the requests' thread alone changes it."""
        self.counted = 0
        """Those of them that were counted in State; the thread that counts alone changes it."""
        self.counted_at = 0.0
        """When they were, in seconds since 1970."""
        self.today = 0
        """Requests of the day that State knows of."""
        if before is not None:
            self._left, self._at = min(self._left, before._left), before._at
            self._day, self.today = before._day, before.today
            self.asked, self.counted, self.counted_at = before.asked, before.counted, before.counted_at

    @property
    def uncounted(self) -> int:
        """Requests that were not counted in State yet."""
        return self.asked - self.counted

    def admit(self) -> None:
        """Count a request; see `Caller`."""
        now = self._clock()
        if self._rate:
            self._left = min(self._left + (now - self._at) * self._rate, _BURST_S * self._rate + 1.0)
            self._at = now
            if self._left < 1.0:
                limit = f"the {self.shows} has {self._rate:g} requests a second"
                raise TooManyError((1.0 - self._left) / self._rate, limit)
            self._left -= 1.0
        if self.per_day is not None:
            if now // _DAY_S != self._day:
                self._day, self.today = now // _DAY_S, -self.uncounted
            if self.today + self.uncounted >= self.per_day:
                raise TooManyError(_DAY_S - now % _DAY_S, f"the {self.shows} has {self.per_day} requests a day")
        self.asked += 1


class Holder(Meter):
    """Whoever shows a key of State.

    Args:
        key: the key.
        clock: seconds since 1970.
        before: the same key before it was changed; what was counted stays.
    """

    def __init__(self, key: Key, clock: Callable[[], float], before: Holder | None = None) -> None:
        super().__init__("key", key.per_second, key.per_day, clock, before)
        self.key, self.name = key, f"key {key.id}"
        self.holds, self.sees, self.sees_all = key.holds, key.sees, key.sees_all
        self._ends = float("inf") if key.expires_at is None else key.expires_at.timestamp()

    def admit(self) -> None:
        """Count a request; see `Caller`."""
        if self._clock() >= self._ends:
            raise EndedError
        super().admit()


class Bearer:
    """Whoever shows a token of the issuer.

    Args:
        grant: what the token allows.
        ends: when it ends, in seconds since 1970.
        meter: of the token's subject, whatever tokens it shows.
        name: the subject, for the record of what it changes.
    """

    shows = "token"

    def __init__(self, grant: Grant, ends: float, meter: Meter, name: str = "a token") -> None:
        self.name = name
        self.holds, self.sees, self.sees_all = grant.holds, grant.sees, grant.sees_all
        self.admit = meter.admit
        self.ends = ends
