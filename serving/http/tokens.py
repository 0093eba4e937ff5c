"""Bearer tokens, as a worker knows them: verified once each, then a look into a table until they end.

A thread asks the issuer for its keys: every five minutes, and at most every ten seconds when a token names one that is
not known. Requests never wait for the issuer. Its keys hold for a day after it last answered.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable

from pipelines.access.callers import Bearer, Meter
from pipelines.access.issuer import IssuerError, fetch_keys
from pipelines.access.tokens import IssuerKeys, OtherKeyError, TokenError, verified
from pipelines.settings import Settings
from serving.problems import ProblemError
from serving.refresher import Refresher

_log = logging.getLogger(__name__)
_MOST_KNOWN = 10_000
_LOOK_S, _AGAIN_S, _EVERY_S, _HELD_S = 1.0, 10.0, 300.0, 86_400.0
_FIRST_S = 3.0


class _Known:
    """The issuer's keys, and the tokens that they were found to have signed: both go at once."""

    def __init__(self, keys: IssuerKeys | None) -> None:
        self.keys = keys
        self.callers: dict[bytes, Bearer] = {}


class Tokens:
    """The tokens of an installation's issuer.

    Args:
        settings: the installation; it has an issuer.
        clock: seconds since 1970.
        monotonic: seconds.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._clock, self._monotonic = settings, clock, monotonic
        self._known = _Known(None)
        self._meters: dict[str, Meter] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._wanted = False
        self._tried = threading.Event()
        self._refresher = Refresher("issuer", self.look, period_s=_LOOK_S, at_once=True)

    def start(self) -> None:
        """Ask for the keys in a thread, from now on; wait for them, but not long: keys of State do without."""
        self._refresher.start()
        self._tried.wait(_FIRST_S)

    def close(self) -> None:
        """Stop asking."""
        self._refresher.close()

    def look(self) -> None:
        """Ask the issuer for its keys if it is time to.

        Raises:
            IssuerError: it does not answer; what it said last holds for a day.
        """
        now = self._monotonic()
        if now - self._tried_at < _AGAIN_S or (now - self._fetched_at < _EVERY_S and not self._wanted):
            return
        self._tried_at, self._wanted = now, False
        try:
            keys = fetch_keys(self._settings.oidc_issuer)
        except IssuerError:
            if now - self._fetched_at > _HELD_S:
                self._known = _Known(None)
            raise
        finally:
            self._tried.set()
        self._fetched_at = now
        if self._known.keys != keys:
            _log.info("issuer's keys", extra={"fields": {"keys": len(keys)}})
            self._known = _Known(keys)

    def of(self, given: bytes) -> Bearer:
        """Return who shows a token.

        Raises:
            ProblemError: 401, it does not hold.
        """
        known = self._known  # once: what is found with its keys stays with them
        digest = hashlib.sha256(given).digest()
        found = known.callers.get(digest)
        if found is None:
            found = self._found(given, known.keys)
            if len(known.callers) >= _MOST_KNOWN:
                del known.callers[next(iter(known.callers))]  # the one that was verified the longest ago
            known.callers[digest] = found
        if self._clock() >= found.ends:
            raise _refused(TokenError("the token has expired"))
        return found

    def meters(self) -> list[tuple[str, Meter]]:
        """Return what counts the requests of each subject, by the name under which State keeps their number."""
        return [(f"oidc-{subject}", meter) for subject, meter in list(self._meters.items())]

    def _found(self, given: bytes, keys: IssuerKeys | None) -> Bearer:
        try:
            if keys is None:
                raise TokenError("the issuer's keys are not known yet: it has not answered")
            grant = verified(given, keys, self._settings)
        except TokenError as error:
            self._wanted = self._wanted or isinstance(error, OtherKeyError)
            raise _refused(error) from error
        per_second, per_day = self._settings.oidc_per_second or None, self._settings.oidc_per_day or None
        meter = self._meters.pop(grant.subject, None) or Meter("subject", per_second, per_day, self._clock)
        if len(self._meters) >= _MOST_KNOWN:
            del self._meters[next(iter(self._meters))]
        self._meters[grant.subject] = meter
        return Bearer(grant, grant.ends, meter)


def _refused(error: TokenError) -> ProblemError:
    return ProblemError(401, str(error), headers=((b"www-authenticate", b'Bearer error="invalid_token"'),))
