"""Attempts: which answers another one may change, how long to wait between them, and when to leave a loop alone.

What makes a second attempt safe is the same in all calls: a decision is asked for by its event id, under which the
service gives the same answer, and an outcome has an idempotency key, under which it counts once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TypeVar
from urllib.parse import quote

import msgspec

from decision_client.effects import Call, NoReply, Pause, Reply, Send
from decision_client.errors import UnavailableError, refused
from decision_client.settings import Counts, Loss, Settings
from decision_client.wire import Problem

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may change."""
_NOTHING_WRITTEN = ("urn:decision:problem:unavailable", "urn:decision:problem:too-many-requests")
_log = logging.getLogger("decision_client")
_problem = msgspec.json.Decoder(Problem)
_T = TypeVar("_T")


class Attempts:
    """What the calls of one client share; safe to share between threads.

    Attributes:
        settings: the client's settings.
        counts: what it did.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts = Counts()
        self._lock = threading.Lock()
        self._rests_until: dict[str, float] = {}
        self._closed = False

    def answered(self, send: Send, *, seconds: float) -> Call[Reply]:
        """Return the first answer that another attempt would not change.

        Args:
            send: what to ask.
            seconds: how long to go on; 0 is one attempt.

        Raises:
            UnavailableError: there was none in time.
        """
        settings, wait, maybe = self.settings, self.settings.first_wait_s, False
        deadline = time.monotonic() + seconds
        while True:
            reply: Reply | NoReply = yield send
            if isinstance(reply, Reply) and reply.status not in AGAIN:
                return reply
            reason, taken, asked_for = _why(reply)
            maybe = maybe or taken
            pause = max(asked_for, wait * random.uniform(0.5, 1.0))  # noqa: S311 - clients are not to come all at once
            left = deadline - time.monotonic() - pause
            if left <= 0:
                raise UnavailableError(reason, maybe_taken=maybe)
            self.count("retried")
            yield Pause(pause)
            send = msgspec.structs.replace(send, timeout_s=min(send.timeout_s, left))
            wait = min(2 * wait, settings.longest_wait_s)

    def rests(self, loop: str) -> bool:
        """Return whether a loop that did not answer is still left alone."""
        return time.monotonic() < self._rests_until.get(loop, 0.0)

    def rest(self, loop: str, error: Exception) -> None:
        """Leave a loop alone for a while, since it did not answer."""
        if not self.rests(loop):
            _log.warning("loop %s is left alone for %g s: %s", loop, self.settings.rest_s, error)
        self._rests_until[loop] = time.monotonic() + self.settings.rest_s

    def tell(self, loss: Loss) -> None:
        """Tell the application of a loss."""
        if self.settings.on_loss is not None:
            self.settings.on_loss(loss)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            setattr(self.counts, name, getattr(self.counts, name) + by)

    def check_open(self) -> None:
        """Refuse a call after the client was closed.

        Raises:
            UnavailableError: it was.
        """
        if self._closed:
            raise UnavailableError("the client is closed")

    def close(self) -> bool:
        """Take no more calls, and return whether any were taken before."""
        with self._lock:
            was, self._closed = self._closed, True
        return not was


def path_of(loop: str, what: str) -> str:
    """Return the path of something of a loop."""
    return f"/v1/loops/{quote(loop, safe='')}{what}"


def read(decoder: msgspec.json.Decoder[_T], reply: Reply) -> _T:
    """Return what an answer says.

    Raises:
        RefusedError: it says no.
        UnavailableError: it cannot be read, so it is not the service's.
    """
    if not 200 <= reply.status < 300:
        raise refused(problem_in(reply))
    try:
        return decoder.decode(reply.body)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"the answer cannot be read: {error}", maybe_taken=True) from error


def problem_in(reply: Reply) -> Problem:
    """Return the problem document of an answer, or one made of its status where it has none: a proxy's, for example."""
    try:
        return msgspec.structs.replace(_problem.decode(reply.body), status=reply.status)
    except msgspec.DecodeError:
        return Problem(status=reply.status, detail=f"the answer was {reply.status}, without a problem document")


def _why(reply: Reply | NoReply) -> tuple[str, bool, float]:
    """Return why there is no answer, whether the request may have been taken, and the wait asked for in seconds."""
    if isinstance(reply, NoReply):
        return reply.reason, reply.maybe_taken, 0.0
    problem = problem_in(reply)
    return problem.detail, problem.type not in _NOTHING_WRITTEN, reply.retry_after_s
