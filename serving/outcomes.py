"""What an application reports, as outcome records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from decision.errors import FieldError
from decision.records import SCHEMA_VERSION, Outcome, check_outcome, check_time
from pipelines.interactions.doubtful import doubt_of
from pipelines.settings import RewardSettings
from serving.wire import OutcomeRequest, check_id


def outcomes_of(
    loop: str, requests: Sequence[OutcomeRequest], reward: RewardSettings, now: datetime
) -> tuple[list[Outcome], Counter[str]]:
    """Return the records of what is reported in `loop`, and how many are in doubt, by field.

    Raises:
        FieldError: one does not fit.
    """
    outcomes, doubts = list[Outcome](), Counter[str]()
    for i, request in enumerate(requests):
        prefix = f"[{i}]." if len(requests) > 1 else ""
        made = _outcome(loop, request, now, prefix)
        try:
            doubt = doubt_of(made.name, made.value, reward)
        except FieldError as error:
            raise error.under(prefix) from error
        outcomes.append(made)
        if doubt is not None:
            doubts[doubt] += 1
    return outcomes, doubts


def _outcome(loop: str, request: OutcomeRequest, now: datetime, prefix: str) -> Outcome:
    check_id(f"{prefix}event_id", request.event_id)
    if request.idempotency_key is not None:
        check_id(f"{prefix}idempotency_key", request.idempotency_key)
    ts = now
    if request.ts is not None:
        try:
            ts = msgspec.convert(request.ts, datetime)
        except msgspec.ValidationError as error:
            raise FieldError(f"{prefix}ts", wanted="an RFC 3339 time with offset", got=request.ts) from error
        if ts.tzinfo is not None:
            check_time(f"{prefix}ts", ts)
    made = Outcome(
        schema_version=SCHEMA_VERSION,
        loop=loop,
        event_id=request.event_id,
        slot=request.slot,
        name=request.name,
        value=request.value,
        ts=ts,
        idempotency_key=request.idempotency_key,
        action_id=request.action_id,
    )
    try:
        check_outcome(made)
    except FieldError as error:
        raise error.under(prefix) from error
    return made
