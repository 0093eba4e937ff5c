"""Client of the decision service: typed, for threads and tasks.

    with Client("http://127.0.0.1:8080", key=KEY) as client:
        answer = client.decide("news", DecideRequest({"hour": 9}, [Action("sport"), Action("politics")]))
        client.outcome("news", answer.outcome(1.0))

A decision is asked for by its event id, as often as it takes; where there is no answer in time the client takes the
first action and says so. Outcomes that the service cannot take wait in a queue. `InProcess` puts the service's engine
behind the same client.
"""

from decision_client.client import AsyncClient, Client
from decision_client.errors import (
    ClientError,
    ErasedError,
    EventIdReusedError,
    KeyRefusedError,
    QueueFullError,
    RefusedError,
    UnavailableError,
    UnknownError,
)
from decision_client.in_process import AsyncInProcess, InProcess
from decision_client.outcomes import Reported
from decision_client.queue import Refusal
from decision_client.settings import Counts, Loss, Settings
from decision_client.wire import (
    Action,
    DecideRequest,
    DecideResponse,
    Fallback,
    OutcomeRequest,
    Problem,
    Ranked,
    Slot,
    SlotAnswer,
)

__all__ = [
    "Action",
    "AsyncClient",
    "AsyncInProcess",
    "Client",
    "ClientError",
    "Counts",
    "DecideRequest",
    "DecideResponse",
    "ErasedError",
    "EventIdReusedError",
    "Fallback",
    "InProcess",
    "KeyRefusedError",
    "Loss",
    "OutcomeRequest",
    "Problem",
    "QueueFullError",
    "Ranked",
    "Refusal",
    "RefusedError",
    "Reported",
    "Settings",
    "Slot",
    "SlotAnswer",
    "UnavailableError",
    "UnknownError",
]
