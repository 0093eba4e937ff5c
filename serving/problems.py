"""Every error as an RFC 9457 problem document that names the field: the one place that knows errors' HTTP statuses."""

from __future__ import annotations

import logging
import math

import msgspec

from decision.errors import DecisionError, FieldError
from pipelines.access.callers import EndedError, TooManyError
from pipelines.fairness.errors import ForbiddenError, NoTaskError, StoreError
from pipelines.log.protocol import LogError
from pipelines.registry.tracking import RegistryError
from pipelines.state.failures import StateError
from serving.errors import (
    ErasedDecisionError,
    EventIdReusedError,
    UnavailableError,
    UnknownDecisionError,
    UnknownLoopError,
)
from serving.wire import Problem

_log = logging.getLogger(__name__)
TITLES = {
    400: "Malformed request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Erased",
    413: "Request too large",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
    504: "Out of time",
}
_IN_A_SECOND = (b"retry-after", b"1")
PROBLEM = b"application/problem+json"
"""Media type of a problem document."""


class ProblemError(Exception):
    """An answer that is a problem document.

    Attributes:
        status: HTTP status.
        problem: the document.
        headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        wanted: str | None = None,
        got: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        title = TITLES[status]
        self.problem = Problem(
            f"urn:decision:problem:{title.lower().replace(' ', '-')}", title, status, detail, field, wanted, got
        )

    def body(self) -> bytes:
        """Return the document as JSON."""
        return msgspec.json.encode(self.problem)


def problem_of(error: Exception) -> ProblemError | None:
    """Return the problem document that tells of `error`; None for one that is no caller's."""
    match error:
        case ProblemError():
            return error
        case UnknownLoopError():
            return ProblemError(404, str(error), field="loop", wanted="a loop that exists", got=repr(error.loop))
        case EndedError():
            return ProblemError(401, "the key has ended", headers=((b"www-authenticate", b"Bearer"),))
        case TooManyError():
            wait = b"%d" % max(1, math.ceil(error.after_s))
            return ProblemError(429, str(error), headers=((b"retry-after", wait),))
        case UnknownDecisionError():
            return ProblemError(404, str(error), field="event_id")
        case ErasedDecisionError():
            return ProblemError(410, str(error), field="event_id", wanted="the id of a decision that is kept")
        case EventIdReusedError():
            wanted = "a new id, or the same request again"
            return ProblemError(409, str(error), field="event_id", wanted=wanted, got=repr(error.event_id))
        case UnavailableError():
            return unavailable(str(error))
        case (
            LogError() | StateError() | RegistryError() | StoreError()
        ):  # whose words name files: they are the operator's
            _log.warning("a store does not answer", extra={"fields": {"error": error}})
            return unavailable("what the service keeps elsewhere does not answer; its log says what, and what to do")
        case NoTaskError():
            return ProblemError(404, str(error), field="task_id")
        case ForbiddenError():
            return ProblemError(403, str(error))
        case FieldError():
            status = 400 if error.field == "body" else 422
            return ProblemError(status, str(error), field=error.field, wanted=error.wanted, got=error.got)
        case DecisionError():
            return ProblemError(422, str(error))
        case _:
            return None


def failed() -> ProblemError:
    """Return the 500 that says that the fault is ours; its cause is in the log alone."""
    return ProblemError(500, "the service failed; nothing about the request is wrong")


def late(seconds: float) -> ProblemError:
    """Return the 504 of a request that had no answer after so many seconds."""
    said = f"there was no answer within {seconds:g} seconds; the same request may be sent again"
    return ProblemError(504, said, headers=(_IN_A_SECOND,))


def late_body(seconds: float) -> ProblemError:
    """Return the 408 of a request whose body had not come whole after so many seconds."""
    return ProblemError(408, f"the body did not come whole within {seconds:g} seconds", field="body")


def unavailable(detail: str) -> ProblemError:
    """Return a 503 that asks to try again in a second."""
    return ProblemError(503, detail, headers=(_IN_A_SECOND,))
