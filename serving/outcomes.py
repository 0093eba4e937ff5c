"""What an application reports, as outcome records."""

from __future__ import annotations

from datetime import datetime

import msgspec

from decision.errors import FieldError
from decision.records import SCHEMA_VERSION, Outcome, check_outcome
from serving.wire import OutcomeRequest, check_id


def outcome(loop: str, request: OutcomeRequest, now: datetime, prefix: str = "") -> Outcome:
    """Return the record of one report in `loop`; `prefix` leads to it in the fields that errors name.

    Raises:
        FieldError: it does not fit.
    """
    check_id(f"{prefix}event_id", request.event_id)
    if request.idempotency_key is not None:
        check_id(f"{prefix}idempotency_key", request.idempotency_key)
    ts = now
    if request.ts is not None:
        try:
            ts = msgspec.convert(request.ts, datetime)
        except msgspec.ValidationError as error:
            raise FieldError(f"{prefix}ts", wanted="an RFC 3339 time with offset", got=request.ts) from error
    made = Outcome(
        schema_version=SCHEMA_VERSION,
        loop=loop,
        event_id=request.event_id,
        slot=request.slot,
        name=request.name,
        value=request.value,
        ts=ts,
        idempotency_key=request.idempotency_key,
    )
    try:
        check_outcome(made)
    except FieldError as error:
        raise error.under(prefix) from error
    return made
