"""A Redis on the request path: asked in one round trip, never waited for long, done without while it is away.

What stands there is shared by every machine of an installation and may be lost at any moment: answers by event id,
pins of episodes, memories of users, features. Whoever asks gets None while it does not answer, and goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from pipelines.settings import Settings

_log = logging.getLogger(__name__)
_TIMEOUT_S, _AGAIN_S = 0.1, 1.0

Command = Sequence[str | bytes | int | float]
"""Name and arguments."""


class Online:
    """Connections to one Redis; safe to share between threads.

    After a failure nothing is asked until a thread of its own was answered: of a Redis that hangs, one question waits.

    Args:
        url: ``redis://host:port/db``.
        timeout_s: how long a reply may keep silent, in seconds; a tenth of one when None.
        again_s: seconds between attempts to reach it again.
    """

    def __init__(self, url: str, *, timeout_s: float | None = None, again_s: float = _AGAIN_S) -> None:
        import redis  # an installation without an address for it does without the library
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._errors = (redis.RedisError, OSError)
        # once more where a connection was closed meanwhile, never after a silence
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        silent_s = _TIMEOUT_S if timeout_s is None else timeout_s
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=silent_s, socket_connect_timeout=silent_s, retry=retry
        )
        self._again_s = again_s
        self._closed = threading.Event()
        self._turn = threading.Lock()
        self._away: threading.Thread | None = None

    @property
    def away(self) -> bool:
        """Whether it did not answer the last time, so that nothing is asked at present."""
        return self._away is not None

    def ask(self, commands: Sequence[Command]) -> list[Any] | None:
        """Return the reply to each command, all sent at once; None where it does not answer, or refuses one."""
        if self._away is not None or not commands:
            return None if commands else []
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return pipe.execute()
        except self._errors as error:
            self._lost(error)
            return None

    def close(self) -> None:
        """Close the connections; does nothing when they were closed before."""
        self._closed.set()
        self._client.close()

    def _lost(self, error: Exception) -> None:
        with self._turn:
            if self._away is None and not self._closed.is_set():
                _log.warning("online: does not answer, goes on without: %s", type(error).__name__)
                self._away = threading.Thread(target=self._look, name="online", daemon=True)
                self._away.start()

    def _look(self) -> None:
        while not self._closed.wait(self._again_s):
            try:
                self._client.ping()
            except self._errors:
                continue
            _log.warning("online: answers again")
            break
        self._away = None


def open_online(settings: Settings) -> Online | None:
    """Return the connections of an installation; None where everything lies in the home folder."""
    return Online(settings.online) if settings.online else None
