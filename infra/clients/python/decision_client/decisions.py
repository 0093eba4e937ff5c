"""The calls that ask for decisions."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from decision_client.attempts import AGAIN, Attempts, path_of, read
from decision_client.effects import Call, Pause, Run, Send
from decision_client.errors import RefusedError, UnavailableError, refused
from decision_client.fallback import first_action
from decision_client.ids import uuid7
from decision_client.queue import Queue
from decision_client.settings import Loss
from decision_client.wire import DecideRequest, DecideResponse, Fallback, Problem, invalid, not_finite

MAX_BATCH = 1_000
"""Most questions of a batch, as the service has it."""


class _Batch(msgspec.Struct):
    decisions: list[msgspec.Raw]


class _Status(msgspec.Struct):
    status: int | None = None


_answer = msgspec.json.Decoder(DecideResponse)
_batch = msgspec.json.Decoder(_Batch)
_status = msgspec.json.Decoder(_Status)
_problem = msgspec.json.Decoder(Problem)


class _Asked(msgspec.Struct, frozen=True):
    """A question with its event id, as it is sent."""

    request: DecideRequest
    body: bytes

    @property
    def event_id(self) -> str:
        return self.request.event_id or ""


class Decisions:
    """Asks for decisions.

    Args:
        attempts: what the calls of the client share.
        queue: remembers the answers of the fallback.
    """

    def __init__(self, attempts: Attempts, queue: Queue) -> None:
        self._attempts = attempts
        self._queue = queue

    def decide(self, loop: str, request: DecideRequest) -> Call[DecideResponse]:
        """Ask for one decision.

        Raises:
            RefusedError: the request does not fit, or its event id belongs to another.
            UnavailableError: there was no answer in time, and no fallback is wanted.
        """
        self._attempts.check_open()
        asked, settings = _asked(request), self._attempts.settings
        remembered = self._remembered(loop, asked)
        if remembered is not None:
            return remembered
        if self._rests(loop):
            return (yield from self._fall_back(loop, asked, _resting()))
        send = Send("POST", path_of(loop, "/decide"), asked.body, settings.timeout_s)
        try:
            answer = read(_answer, (yield from self._attempts.answered(send, seconds=settings.deadline_s)))
        except UnavailableError as error:
            return (yield from self._unanswered(loop, asked, error))
        self._attempts.count("decided")
        return answer

    def decide_batch(self, loop: str, requests: Sequence[DecideRequest]) -> Call[list[DecideResponse | RefusedError]]:
        """Ask for many decisions; each is answered or refused on its own.

        Raises:
            RefusedError: there are none or too many, or the batch as a whole does not fit.
            UnavailableError: some had no answer in time, and no fallback is wanted.
        """
        self._attempts.check_open()
        if not 1 <= len(requests) <= MAX_BATCH:
            raise refused(invalid("decisions", f"1 to {MAX_BATCH} requests", len(requests)))
        asked = [_asked(request, f"decisions[{i}].") for i, request in enumerate(requests)]
        answers: dict[int, DecideResponse | RefusedError] = {}
        for i, one in enumerate(asked):
            try:
                remembered = self._remembered(loop, one)
            except RefusedError as error:
                answers[i] = error
                continue
            if remembered is not None:
                answers[i] = remembered
        error = yield from self._answer_all(loop, asked, answers)
        for i, one in enumerate(asked):
            if i not in answers:
                answers[i] = yield from self._unanswered(loop, one, error or _resting())
        return [answers[i] for i in range(len(asked))]

    def _answer_all(
        self, loop: str, asked: Sequence[_Asked], answers: dict[int, DecideResponse | RefusedError]
    ) -> Call[UnavailableError | None]:
        """Put the service's answers to those who have none, and return why some still have none."""
        settings, wait = self._attempts.settings, self._attempts.settings.first_wait_s
        deadline = time.monotonic() + settings.deadline_s + settings.batch_timeout_s
        while left := [i for i in range(len(asked)) if i not in answers]:
            if self._rests(loop):
                return _resting()
            body = b'{"decisions":[' + b",".join(asked[i].body for i in left) + b"]}"
            send = Send("POST", path_of(loop, "/decide/batch"), body, settings.batch_timeout_s)
            try:
                reply = yield from self._attempts.answered(send, seconds=deadline - time.monotonic())
                said = read(_batch, reply).decisions
                if len(said) != len(left):
                    return UnavailableError(f"{len(said)} answers to {len(left)} questions", maybe_taken=True)
                for i, raw in zip(left, said, strict=True):
                    self._take(i, raw, answers)
            except UnavailableError as error:
                return error
            except msgspec.DecodeError as error:
                return UnavailableError(f"the answer cannot be read: {error}", maybe_taken=True)
            if all(i in answers for i in left):
                return None
            if time.monotonic() + wait >= deadline:
                return UnavailableError("the service took only some questions of the batch")
            self._attempts.count("retried")
            yield Pause(wait)
            wait = min(2 * wait, settings.longest_wait_s)
        return None

    def _take(self, i: int, raw: msgspec.Raw, answers: dict[int, DecideResponse | RefusedError]) -> None:
        """Put one answer of a batch in its place, unless another attempt may change it."""
        status = _status.decode(raw).status
        if status is None:
            answers[i] = _answer.decode(raw)
            self._attempts.count("decided")
        elif status not in AGAIN:
            answers[i] = refused(_problem.decode(raw))

    def _rests(self, loop: str) -> bool:
        return self._attempts.settings.fallback == "first" and self._attempts.rests(loop)

    def _unanswered(self, loop: str, asked: _Asked, error: UnavailableError) -> Call[DecideResponse]:
        if self._attempts.settings.fallback == "none":
            raise error
        self._attempts.rest(loop, error)
        return (yield from self._fall_back(loop, asked, error))

    def _fall_back(self, loop: str, asked: _Asked, error: UnavailableError) -> Call[DecideResponse]:
        answer = first_action(asked.request, Fallback(str(error), error.maybe_taken))
        yield Run(lambda: self._queue.remember(loop, asked.body, answer))
        self._attempts.count("fallbacks")
        if error.maybe_taken:
            self._attempts.count("maybe_logged")
        self._attempts.tell(Loss("decision", loop, answer.event_id, str(error)))
        return answer

    def _remembered(self, loop: str, asked: _Asked) -> DecideResponse | None:
        """Return the answer that the fallback gave to this question before: an event id has one answer.

        Raises:
            EventIdReusedError: it gave one to another question.
        """
        found = self._queue.remembered(loop, asked.event_id)
        if found is None:
            return None
        if found[0] != asked.body:
            detail = "this event_id was used for another request"
            raise refused(Problem(title="Conflict", status=409, detail=detail, field="event_id", got=asked.event_id))
        return found[1]


def _asked(request: DecideRequest, prefix: str = "") -> _Asked:
    """Return a question with an event id, under which it may be asked again.

    Raises:
        RefusedError: a number in it is not finite.
    """
    if request.event_id is None:
        request = msgspec.structs.replace(request, event_id=uuid7())
    body = msgspec.json.encode(request)
    if b"null" in body:  # what a number that JSON does not have is written as; a missing value, too
        at = not_finite(msgspec.to_builtins(request))
        if at is not None:
            raise refused(invalid(f"{prefix}{at}", "a finite number", "NaN or infinity"))
    return _Asked(request, body)


def _resting() -> UnavailableError:
    return UnavailableError("the service did not answer a moment ago, and is left alone")
