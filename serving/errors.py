"""Errors of the service's core. `serving.problems` alone knows what they are in HTTP.

DecisionError
├── UnknownLoopError       there is no such loop
├── UnknownDecisionError   no decision is kept under this id
├── ErasedDecisionError    the decision under this id was erased
├── EventIdReusedError     the id belongs to the decision of another request
└── UnavailableError       nothing was taken; the same request may succeed in a moment
"""

from __future__ import annotations

from decision.errors import DecisionError

_SHOWN = 80


class UnknownLoopError(DecisionError):
    """There is no loop of this name.

    Attributes:
        loop: the name, shortened.
    """

    def __init__(self, loop: str) -> None:
        self.loop = loop[:_SHOWN]
        super().__init__(f"there is no loop {self.loop!r}")


class UnknownDecisionError(DecisionError):
    """No decision is kept under this id.

    Attributes:
        event_id: the id, shortened.
    """

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id[:_SHOWN]
        super().__init__(f"there is no decision {self.event_id!r}")


class ErasedDecisionError(DecisionError):
    """The decision under this id was erased; nothing is known of it any more but that there was one."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id[:_SHOWN]
        super().__init__(f"the decision {self.event_id!r} was erased")


class EventIdReusedError(DecisionError):
    """The event id belongs to another request, so no answer can be given that the log would confirm.

    Attributes:
        event_id: the id, shortened.
    """

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id[:_SHOWN]
        super().__init__("this event_id was used for another request")


class UnavailableError(DecisionError):
    """The service takes nothing at present; nothing was written, and a retry is safe."""
