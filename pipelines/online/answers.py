"""Where the answers to event ids stand in Redis, and how they are taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.online.connection import Online

KEPT_S = 86_400
"""How long an answer stands, in seconds: as long as ingestion recognises a repetition."""


def answer_key(loop: str, event_id: bytes) -> bytes:
    """Return under which name the answer to an event id stands; no loop's name has a colon."""
    return b"answer:%s:%s" % (loop.encode(), event_id)


def forget_answers(online: Online, loops: Iterable[str], event_ids: Sequence[bytes]) -> None:
    """Take away what was answered to `event_ids` in `loops`.

    Raises:
        ConnectionError: Redis does not answer.
    """
    keys = [answer_key(loop, event_id) for loop in loops for event_id in event_ids]
    if keys and online.ask([("DEL", *keys)]) is None:
        raise ConnectionError("online: Redis does not answer")
