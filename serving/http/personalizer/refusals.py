"""Operations of Personalizer that the service does not do: each refuses with what to use instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from serving.http.personalizer.addresses import IN_QUERY, loop_of, operation
from serving.http.personalizer.errors import RefusedError
from serving.routes import Call, Method, Role, Route

NOT_DONE = "OperationNotAllowed"
"""Code of an operation that is known and not done here."""

_ERASE = "logs are evidence and are not deleted whole: `decision erase` deletes what is known of a person, with proof"
_BINARY = (
    "these are rlclientlib's binary batches: send decisions to `rank`, or one by one to /v1/loops/LOOP/decide, and "
    "rewards to `reward` or /v1/loops/LOOP/outcomes"
)
_IMPORTANCE = (
    "the importance of features is not computed apart: `decision replay LOOP --report` describes the log, and "
    "`decision replay LOOP --segment NAME` estimates by a feature's values"
)
_SINCE_QUERY = {"since": IN_QUERY}
_TABLE: tuple[tuple[Method, str, str, str, Role, str, dict[str, str]], ...] = (
    ("DELETE", "/logs", "deleteLogs", "Delete all logs", "admin", _ERASE, {}),
    (
        "POST",
        "/logs/interactions",
        "logInteractions",
        "Log interactions",
        "decide",
        _BINARY,
        {"since": "v1.1-preview.3"},
    ),
    (
        "POST",
        "/logs/observations",
        "logObservations",
        "Log observations",
        "report",
        _BINARY,
        {"since": "v1.1-preview.3"},
    ),
    ("GET", "/featureImportances", "listFeatureImportances", "List importances", "read", _IMPORTANCE, _SINCE_QUERY),
    (
        "GET",
        "/featureImportances/{importance_id}",
        "readFeatureImportance",
        "Read the importance of features",
        "read",
        _IMPORTANCE,
        _SINCE_QUERY,
    ),
    (
        "PUT",
        "/featureImportances/{importance_id}",
        "createFeatureImportance",
        "Compute the importance of features",
        "admin",
        _IMPORTANCE,
        _SINCE_QUERY,
    ),
    (
        "DELETE",
        "/featureImportances/{importance_id}",
        "deleteFeatureImportance",
        "Delete an importance of features",
        "admin",
        _IMPORTANCE,
        _SINCE_QUERY,
    ),
)


def _refuses(message: str) -> Callable[[Call], Awaitable[bytes]]:
    async def answer(call: Call) -> bytes:
        loop_of(call)  # what nobody may know of a loop, a refusal does not tell
        raise RefusedError(400, NOT_DONE, message)

    return answer


ROUTES: tuple[Route, ...] = tuple(
    operation(
        path,
        name,
        f"{summary}: refused",
        _refuses(message),
        method=method,
        role=role,
        status=204,
        errors=(400,),
        **since,
    )
    for method, path, name, summary, role, message, since in _TABLE
)
