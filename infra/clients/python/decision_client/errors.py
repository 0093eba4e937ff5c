"""Errors of the client.

ClientError
├── RefusedError            the request can never be taken as it is; `problem` names the field
│   ├── KeyRefusedError     no key, or one that may not ask this
│   ├── UnknownError        there is no such loop, or no decision under this id
│   ├── EventIdReusedError  the id belongs to the decision of another request
│   └── ErasedError         the decision under this id was erased
├── UnavailableError        no answer in time; the same request may be sent again
└── QueueFullError          the service takes no outcomes and the queue has no room; nothing of the call was kept
"""

from __future__ import annotations

from decision_client.wire import Problem


class ClientError(Exception):
    """An error of this client; its message is a sentence."""


class RefusedError(ClientError):
    """The request was refused.

    Attributes:
        problem: the problem document.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or f"{problem.status} {problem.title}")
        self.problem = problem

    @property
    def field(self) -> str | None:
        """The field at fault, as a path."""
        return self.problem.field


class KeyRefusedError(RefusedError):
    """There is no key, or the key may not ask this."""


class UnknownError(RefusedError):
    """There is no such loop, or no decision under this id."""


class EventIdReusedError(RefusedError):
    """The event id belongs to the decision of another request."""


class ErasedError(RefusedError):
    """The decision under this id was erased."""


class UnavailableError(ClientError):
    """There was no answer in time.

    Attributes:
        maybe_taken: whether the service may have taken the request all the same.
    """

    def __init__(self, reason: str, *, maybe_taken: bool = False) -> None:
        super().__init__(reason)
        self.maybe_taken = maybe_taken


class QueueFullError(ClientError):
    """The queue of outcomes has no room."""


_BY_STATUS = {
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: UnknownError,
    409: EventIdReusedError,
    410: ErasedError,
}


def refused(problem: Problem) -> RefusedError:
    """Return the error that a problem document stands for."""
    return _BY_STATUS.get(problem.status, RefusedError)(problem)
