"""Who a caller is, by the key or token that it shows, and what that allows: a look into a table for each request.

Keys of the environment (``DECISION_API_KEYS``) may do everything. Those in State have roles, loops, a tenant and
limits; a thread asks State what changed. Tokens are an issuer's (`serving.http.tokens`). As long as there are neither
keys nor an issuer, no key is asked for.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.access.callers import ANYBODY, Caller, Holder, Meter
from pipelines.access.keys import PREFIX, count, digest_of, fits, parsed, shown
from pipelines.access.sessions import close_session, open_session, session_of
from pipelines.settings import Settings
from pipelines.state.failures import DamagedRowError, StaleError, StateError
from pipelines.state.state import State
from pipelines.state.watch import Watch
from serving.problems import ProblemError, unavailable
from serving.refresher import Refresher

if TYPE_CHECKING:
    from serving.http.tokens import Tokens

_log = logging.getLogger(__name__)
_MOST_KNOWN = 10_000
_COUNTED_S, _NOTED_S = 10.0, 60.0
_ASKS = ((b"www-authenticate", b"Bearer"),)


class Access:
    """The keys of an installation, as this worker knows them.

    Args:
        settings: the installation.
        clock: seconds since 1970.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._static = settings.keys
        self._clock = clock
        self._state = State(settings.state_url)
        self._watch = Watch(self._state, PREFIX)
        self._holders: dict[str, Holder] = {}
        self._versions: dict[str, int] = {}
        self._known: dict[bytes, Caller] = {}
        self._looked = self._asked = False
        self._tokens = _tokens(settings, clock) if settings.oidc_issuer else None
        self._refresher = Refresher("keys", self._run, period_s=settings.reload_s)

    def start(self) -> None:
        """Look once, then keep looking in a thread."""
        try:
            self.look()
        except StateError as error:  # nobody is let in by a key of State until it answers
            _log.warning("keys are not known yet", extra={"fields": {"error": error}})
        self._refresher.start()
        if self._tokens is not None:
            self._tokens.start()

    def close(self) -> None:
        """Count what was not counted yet, and stop."""
        self._refresher.close()
        if self._tokens is not None:
            self._tokens.close()
        try:
            self._note(everything=True)
        except StateError as error:
            _log.warning("requests were not counted", extra={"fields": {"error": error}})
        self._state.close()

    @property
    def asks(self) -> bool:
        """Whether a key or a token has to be shown."""
        return bool(self._static or self._tokens or self._holders or self._asked) or not self._looked

    def look(self) -> None:
        """Ask State for the keys.

        Raises:
            StateError: it does not answer.
        """
        self._watch.look()
        holders: dict[str, Holder] = {}
        for row, entry in self._watch.entries().items():
            try:
                key = parsed(row, entry)
            except DamagedRowError as error:  # nobody shows that key any more; the others hold, and may be taken back
                if self._versions.get(row) != entry.version:
                    _log.error("a key holds no more", extra={"fields": {"error": error}})
                self._versions[row] = entry.version
                continue
            kept = self._holders.get(key.id)
            if kept is None or self._versions.get(key.id) != entry.version:
                kept = Holder(key, self._clock, kept)
                self._versions[key.id] = entry.version
            holders[key.id] = kept
        changed = holders != self._holders
        self._holders, self._looked = holders, True
        self._asked = self._asked or bool(holders)  # a State that was lost opens nothing
        if changed:
            self._known = {}

    def of(self, headers: dict[bytes, bytes]) -> Caller:
        """Return who shows the key or the token that a request's headers hold.

        Raises:
            ProblemError: 401, there is none, or it does not hold; 503, the keys are not known yet.
        """
        given = headers.get(b"ocp-apim-subscription-key", b"")
        bearer = headers.get(b"authorization", b"")
        if bearer[:7].lower() == b"bearer ":
            given = bearer[7:].strip()
        if self._tokens is not None and _is_token(given) and not self._is_static(given):
            return self._tokens.of(given)
        table = self._known  # before the holders: `look` replaces it after them, and what is found now stays in this
        known = table.get(given)
        if known is None:
            known = self._found(given)
            if len(table) < _MOST_KNOWN:
                table[given] = known
        return known

    def sign_in(self, given: bytes) -> str:
        """Open a session of the console for a key, and return what its browser has to show; blocking.

        Raises:
            ProblemError: 401, the key does not hold; 422, a token, which ends within minutes; 503.
            StateError: State cannot be reached.
        """
        if _is_token(given) and not self._is_static(given):
            wanted = "sign in with an API key; a proxy that sends the token along needs no session"
            raise ProblemError(422, wanted, field="key", wanted="an API key")
        caller, now = self._found(given), datetime.fromtimestamp(self._clock(), UTC)
        if isinstance(caller, Holder):
            return open_session(self._state, key=caller.key.id, now=now)
        return open_session(self._state, digest=digest_of(given), now=now)

    def sign_out(self, token: str) -> None:
        """End a session; blocking.

        Raises:
            StateError: State cannot be reached.
        """
        close_session(self._state, token)

    def of_session(self, token: str) -> Caller:
        """Return who shows a session's token; blocking.

        Raises:
            ProblemError: 401, the session or its key has ended; 503, State cannot be reached.
        """
        now = datetime.fromtimestamp(self._clock(), UTC)
        try:
            session = session_of(self._state, token, now)
        except StateError as error:
            raise unavailable("it is not known who is signed in; State does not answer") from error
        if session is not None and session.digest in map(digest_of, self._static):
            return ANYBODY
        holder = None if session is None else self._holders.get(session.key)
        if holder is None or not holder.key.is_valid(now):
            raise refused()
        return holder

    def _found(self, given: bytes) -> Caller:
        if self._is_static(given):
            return ANYBODY
        if not self._looked:
            raise unavailable("the keys are not known yet")
        parts = shown(given)
        holder = None if parts is None else self._holders.get(parts[0])
        now = datetime.fromtimestamp(self._clock(), UTC)
        if parts is None or holder is None or not fits(holder.key, parts[1]) or not holder.key.is_valid(now):
            raise refused("an API key" if self._tokens is None else "an API key or a token")
        return holder

    def _is_static(self, given: bytes) -> bool:
        # every key is compared, so that the time does not tell which one came close
        return bool(sum(hmac.compare_digest(given, key) for key in self._static))

    def _run(self) -> None:
        self.look()
        self._note()

    def _note(self, *, everything: bool = False) -> None:
        """Count in State what keys were used for: soon where a day's requests are limited, else once a minute."""
        now = self._clock()
        for name, meter in self._meters():
            every = _NOTED_S if meter.per_day is None else _COUNTED_S
            asked = meter.uncounted
            if not asked or not (everything or now - meter.counted_at >= every):
                continue
            try:
                today = count(self._state, name, asked, datetime.fromtimestamp(now, UTC))
            except StaleError:
                continue  # another worker did; at the next look
            meter.counted += asked
            meter.today = today
            meter.counted_at = now

    def _meters(self) -> Iterator[tuple[str, Meter]]:
        """Yield whose requests are counted: keys', and subjects' where their days are limited."""
        yield from self._holders.items()
        if self._tokens is not None:
            yield from ((name, meter) for name, meter in self._tokens.meters() if meter.per_day is not None)


def _is_token(given: bytes) -> bool:
    """Return whether what a caller shows has the form of a token: three parts, of which the first begins an object."""
    if not given.startswith(b"eyJ"):
        return False
    first, last = given.find(b"."), given.rfind(b".")  # `count` looks at each byte by itself: 7 us of a long token
    return first < last == given.find(b".", first + 1)


def _tokens(settings: Settings, clock: Callable[[], float]) -> Tokens:
    from serving.http.tokens import Tokens  # imports PyJWT and cryptography: only who has an issuer needs them

    return Tokens(settings, clock)


def refused(wanted: str = "an API key") -> ProblemError:
    """Return the answer to who shows nothing that holds."""
    return ProblemError(401, f"{wanted} is needed", headers=_ASKS)
