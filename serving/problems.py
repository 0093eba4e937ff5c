"""Every error as an RFC 9457 problem document that names the field."""

from __future__ import annotations

import msgspec

from decision.errors import FieldError
from serving.wire import Problem

_TITLES = {
    400: "Malformed request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Request too large",
    422: "Invalid request",
    500: "Internal error",
    503: "Unavailable",
}


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
        title = _TITLES[status]
        self.problem = Problem(
            f"urn:decision:problem:{title.lower().replace(' ', '-')}", title, status, detail, field, wanted, got
        )

    def body(self) -> bytes:
        """Return the document as JSON."""
        return msgspec.json.encode(self.problem)


def of_field(error: FieldError) -> ProblemError:
    """Return the 422 (400 when it is no JSON at all) that tells of a field."""
    status = 400 if error.field == "body" else 422
    return ProblemError(status, str(error), field=error.field, wanted=error.wanted, got=error.got)


def unavailable(detail: str) -> ProblemError:
    """Return a 503 that asks to try again in a second."""
    return ProblemError(503, detail, headers=((b"retry-after", b"1"),))
