"""Errors as Personalizer told of them: ``{"error": {"code", "message", "target"}}``, and 400 where we say 422.

The codes are those of the published clients (`ErrorCode` of 1.1-preview.3); the code of a missing key is that of the
gateway in front of the service.
"""

from __future__ import annotations

import re

import msgspec

from serving.problems import ProblemError
from serving.routes import JSON, PROBLEMS, Refusals

TAG = "personalizer"
PREFIX = f"/{TAG}"
_NAMED = re.compile(rf"/loops/[^/]+{PREFIX}(/|$)")
_OF_STATUS = {
    401: "401",
    403: "OperationNotAllowed",
    404: "ResourceNotFound",
    405: "OperationNotAllowed",
    413: "PayloadSizeExceeded",
    429: "429",
}
_OF_OPERATION = {
    "rank": "InvalidRankRequest",
    "rankSlots": "InvalidRankRequest",
    "rewardEvent": "InvalidRewardRequest",
    "rewardSlots": "InvalidRewardRequest",
    "activateEvent": "InvalidEventIdToActivate",
    "activateSlots": "InvalidEventIdToActivate",
    "updateServiceConfiguration": "InvalidServiceConfiguration",
    "updatePolicy": "InvalidPolicyContract",
    "createEvaluation": "InvalidEvaluationContract",
    "startEvaluation": "InvalidEvaluationContract",
}
_SPELLED = {"context": "contextFeatures", "loop": "X-Decision-Loop"}
_MALFORMED = "body"


class ErrorDetail(msgspec.Struct, omit_defaults=True):
    """What went wrong.

    Attributes:
        code: one of Personalizer's error codes.
        message: a sentence.
        target: the field at fault, spelled as in the request.
    """

    code: str
    message: str
    target: str | None = None


class ErrorResponse(msgspec.Struct):
    """The answer to a request that was refused."""

    error: ErrorDetail


REFUSALS = Refusals(shape=ErrorResponse, content=JSON, text="An error as Azure Personalizer told of it", invalid=400)


class RefusedError(ProblemError):
    """A refusal with a code of its own.

    Attributes:
        code: one of Personalizer's error codes.
    """

    def __init__(self, status: int, code: str, detail: str, *, field: str | None = None) -> None:
        super().__init__(status, detail, field=field)
        self.code = code


def owns(path: str) -> bool:
    """Return whether a request to `path` is told of errors in this way."""
    return path.startswith(PREFIX) or (path.startswith("/loops/") and _NAMED.match(path) is not None)


def told(problem: ProblemError, operation: str) -> tuple[int, bytes, bytes]:
    """Return the status, media type and body that tell of `problem`.

    Args:
        problem: what is wrong.
        operation: name of the route; anything where no route was found.
    """
    status = REFUSALS.invalid if problem.status == PROBLEMS.invalid else problem.status
    detail, field = problem.problem.detail, problem.problem.field
    target = None if field is None else _spelled(field)
    if field is not None and target is not None and detail.startswith(field):
        detail = target + detail[len(field) :]
    if isinstance(problem, RefusedError):
        code = problem.code
    elif status >= 500:
        code = "InternalServerError"
    elif field == _MALFORMED and status == 400:
        code = "BadRequest"
    else:
        code = _OF_STATUS.get(status) or _OF_OPERATION.get(operation, "BadRequest")
    return status, REFUSALS.content.encode(), msgspec.json.encode(ErrorResponse(ErrorDetail(code, detail, target)))


def _spelled(field: str) -> str:
    """Return a field's path with its names as Personalizer spells them."""
    head, dot, rest = field.partition(".")
    head = _SPELLED.get(head, head)
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), f"{head}{dot}{rest}")
