"""The calls that report outcomes, and the queue of those that the service could not take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from decision_client.attempts import Attempts, path_of, problem_in, read
from decision_client.effects import Call, Pause, Run, Send
from decision_client.errors import UnavailableError, refused
from decision_client.ids import uuid7
from decision_client.queue import Queue, Waiting
from decision_client.settings import Loss
from decision_client.wire import OutcomeRequest, Problem, invalid, not_finite

MAX_OUTCOMES = 1_000
"""Most outcomes of a call, as the service has it."""
_AT_ONCE = 500
_OF_KEYS = (401, 403)
_log = logging.getLogger("decision_client")
_outcome = msgspec.json.Decoder(OutcomeRequest)


class Reported(msgspec.Struct, frozen=True):
    """What became of the outcomes of one call.

    Attributes:
        accepted: how many the service has on disk.
        queued: how many wait in the client's queue.
    """

    accepted: int
    queued: int


class _Accepted(msgspec.Struct):
    accepted: int


_accepted = msgspec.json.Decoder(_Accepted)


class Outcomes:
    """Reports outcomes.

    Args:
        attempts: what the calls of the client share.
        queue: holds what the service could not take; knows the answers of the fallback.
    """

    def __init__(self, attempts: Attempts, queue: Queue) -> None:
        self._attempts = attempts
        self._queue = queue
        self._lock = threading.Lock()
        self._draining = False

    def report(self, loop: str, outcomes: Sequence[OutcomeRequest]) -> Call[Reported]:
        """Report outcomes, all or none; those that the service cannot take now are queued.

        Raises:
            RefusedError: one does not fit; none was taken.
            UnavailableError: there was no answer in time, and there is no queue.
            QueueFullError: the same, and the queue has no room.
        """
        self._attempts.check_open()
        settings = self._attempts.settings
        if not 1 <= len(outcomes) <= MAX_OUTCOMES:
            raise refused(invalid("outcomes", f"1 to {MAX_OUTCOMES} reports a call", len(outcomes)))
        for i, outcome in enumerate(outcomes):
            at = not_finite(outcome.value, f"[{i}].value" if len(outcomes) > 1 else "value")
            if at is not None:
                raise refused(invalid(at, "a finite number", outcome.value))
        keyed = [self._keyed(loop, outcome) for outcome in outcomes]
        if settings.queue is None:
            return Reported((yield from self._sent(loop, keyed, settings.deadline_s)), 0)
        if self._attempts.rests(loop):
            return (yield from self._queued(loop, keyed))
        try:
            accepted = yield from self._sent(loop, keyed, 0.0)
        except UnavailableError as error:
            self._attempts.rest(loop, error)
            return (yield from self._queued(loop, keyed))
        if self._queue.may_hold:  # the service is there: some of what waited goes with it
            yield from self._drain(time.monotonic(), patient=True)
        return Reported(accepted, 0)

    def flush(self, seconds: float) -> Call[int]:
        """Send what is queued, trying for so many seconds; return how many outcomes still wait."""
        until, wait = time.monotonic() + seconds, self._attempts.settings.first_wait_s
        while True:
            yield from self._drain(until, patient=False)
            left: int = yield Run(self._queue.waiting)
            if not left or time.monotonic() + wait >= until:
                return left
            yield Pause(wait)
            wait = min(2 * wait, self._attempts.settings.longest_wait_s)

    def end(self) -> Call[None]:
        """Send what is queued once more; what is left in memory is lost, and told."""
        if self._attempts.settings.queue is not None and self._queue.may_hold:
            yield from self._drain(time.monotonic() + self._attempts.settings.deadline_s, patient=False)
            if not self._queue.on_disk:
                for loop in self._queue.loops():
                    self._lose(loop)
        self._queue.close()

    def _keyed(self, loop: str, outcome: OutcomeRequest) -> OutcomeRequest:
        """Return an outcome that may be sent twice; one of a fallback names its action, so that it counts for no other.

        The service may hold a decision under the fallback's event id that the application never saw.
        """
        key, action = outcome.idempotency_key or uuid7(), outcome.action_id
        found = self._queue.remembered(loop, outcome.event_id) if action is None else None
        if found is not None:
            slots = {slot.id: slot.action_id for slot in found[1].slots or ()}
            action = slots.get(outcome.slot, found[1].action_id)
        return msgspec.structs.replace(outcome, idempotency_key=key, action_id=action)

    def _sent(self, loop: str, outcomes: Sequence[OutcomeRequest], seconds: float) -> Call[int]:
        settings, body = self._attempts.settings, msgspec.json.encode(outcomes if len(outcomes) > 1 else outcomes[0])
        timeout = settings.timeout_s if len(outcomes) == 1 else settings.batch_timeout_s
        send = Send("POST", path_of(loop, "/outcomes"), body, timeout)
        accepted = read(_accepted, (yield from self._attempts.answered(send, seconds=seconds))).accepted
        self._attempts.count("accepted", accepted)
        return accepted

    def _queued(self, loop: str, outcomes: Sequence[OutcomeRequest]) -> Call[Reported]:
        """Queue outcomes with the moment at which they were reported: they may be sent hours later."""
        now = datetime.now(UTC).isoformat()
        dated = [each if each.ts else msgspec.structs.replace(each, ts=now) for each in outcomes]
        queued = yield Run(lambda: self._queue.put(loop, dated))
        self._attempts.count("queued", queued)
        return Reported(0, queued)

    def _drain(self, until: float, *, patient: bool) -> Call[None]:
        """Send what is queued: a list of every loop at least, and others until the clock says `until`.

        Args:
            until: by `time.monotonic`.
            patient: whether loops that did not answer lately are left alone.
        """
        with self._lock:
            if self._draining:
                return  # another call is at it
            self._draining = True
        try:
            for loop in (yield Run(self._queue.loops)):
                if not (patient and self._attempts.rests(loop)):
                    yield from self._drain_loop(loop, until)
        finally:
            self._draining = False

    def _drain_loop(self, loop: str, until: float) -> Call[None]:
        size = _AT_ONCE
        while True:
            rows: list[Waiting] = yield Run(lambda size=size: self._queue.oldest(loop, size))
            if not rows:
                return
            body = b"[" + b",".join(row.body for row in rows) + b"]"
            send = Send("POST", path_of(loop, "/outcomes"), body, self._attempts.settings.batch_timeout_s)
            try:
                reply = yield from self._attempts.answered(send, seconds=0.0)
            except UnavailableError as error:
                self._attempts.rest(loop, error)
                return
            if 200 <= reply.status < 300:
                yield Run(lambda rows=rows: self._queue.remove(rows))
                self._attempts.count("accepted", len(rows))
                size = min(2 * size, _AT_ONCE)
            elif reply.status in _OF_KEYS:  # not the outcomes' fault: they wait for a key that may
                self._attempts.rest(loop, refused(problem_in(reply)))
                return
            elif len(rows) > 1:  # a list is taken as a whole or not at all: halve it to find the one at fault
                size = len(rows) // 2
                continue
            else:
                yield from self._refused(rows[0], problem_in(reply))
            if time.monotonic() >= until:
                return

    def _refused(self, row: Waiting, problem: Problem) -> Call[None]:
        yield Run(lambda: self._queue.refuse(row, problem))
        self._attempts.count("refused")
        event_id = _outcome.decode(row.body).event_id
        _log.warning("a queued outcome was refused, loop %s, event %s: %s", row.loop, event_id, problem.detail)
        self._attempts.tell(Loss("outcome", row.loop, event_id, problem.detail))

    def _lose(self, loop: str) -> None:
        reason = "the client was closed, and its queue is in memory"
        rows = self._queue.oldest(loop, self._attempts.settings.queue_limit)
        _log.error("%d outcomes of loop %s are lost: %s", len(rows), loop, reason)
        self._attempts.count("lost", len(rows))
        for row in rows:
            self._attempts.tell(Loss("outcome", loop, _outcome.decode(row.body).event_id, reason))
