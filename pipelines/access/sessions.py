"""Sessions of people who signed in to the console with an API key; State holds digests and never what is shown.

A session is as good as its key: it ends with it, sees what it sees, and ends of itself after twelve hours.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import msgspec

from pipelines.access.keys import digest_of
from pipelines.state.rows import read_json
from pipelines.state.state import State

PREFIX = "access/session/"
LASTS = timedelta(hours=12)
MOST = 1_000
"""Sessions at once; the oldest ends for one more."""
TOKEN_CHARS = 43


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session.

    Attributes:
        key: id of the key of State that it stands for; "" for one of the environment.
        digest: SHA-256 of the environment's key; empty for a key of State.
        ends_at: when it ends.
    """

    key: str = ""
    digest: bytes = b""
    ends_at: datetime


def open_session(state: State, *, key: str = "", digest: bytes = b"", now: datetime) -> str:
    """Open a session for a key, and return what its browser has to show; that is kept nowhere.

    Raises:
        StateError: State cannot be reached.
    """
    held = {name: read_json(name, entry.value, Session) for name, entry in state.entries(PREFIX).items()}
    young = sorted((name for name in held if held[name].ends_at > now), key=lambda name: held[name].ends_at)
    state.forget([*(held.keys() - set(young)), *young[: max(0, len(young) - MOST + 1)]])
    token = secrets.token_urlsafe(32)
    made = Session(key=key, digest=digest, ends_at=now + LASTS)
    state.put({_key(token): (None, msgspec.json.encode(made))}, by=f"key {key}" if key else "a key of the environment")
    return token


def session_of(state: State, token: str, now: datetime) -> Session | None:
    """Return the session that a browser shows, None for one that is not there or has ended.

    Raises:
        StateError: State cannot be reached.
    """
    entry = state.get(_key(token)) if len(token) == TOKEN_CHARS else None
    found = None if entry is None else read_json(_key(token), entry.value, Session)
    return found if found is not None and now < found.ends_at else None


def close_session(state: State, token: str) -> None:
    """End a session; does nothing where there is none.

    Raises:
        StateError: State cannot be reached.
    """
    if len(token) == TOKEN_CHARS:
        state.forget([_key(token)])


def _key(token: str) -> str:
    return PREFIX + digest_of(token.encode()).hex()
