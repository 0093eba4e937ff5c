"""Bearer tokens, as a worker knows them: verified once each, then a look into a table until they end.

A thread asks the issuer for its keys: every five minutes, and at most every ten seconds when a token names one that is
not known. Requests never wait for the issuer. Its keys hold for a day after it last answered.

A known token is found by its end, which is the signature's, and is then compared whole: a digest of 7 KB takes 10 us,
this .3 us. The comparison may stop where two tokens differ. Whoever gets that far has the last 43 characters, 256 bits
that the issuer's private key made, and Python's table does not tell how many of them were right: it compares hashes
that are keyed anew in each process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pipelines.access.callers import Bearer, Meter
from pipelines.access.issuer import IssuerError, fetch_keys
from pipelines.access.keys import SUBJECTS
from pipelines.access.tokens import IssuerKeys, OtherKeyError, TokenError, verified
from pipelines.settings import Settings
from serving.problems import ProblemError
from serving.refresher import Refresher

_log = logging.getLogger(__name__)
_MOST_KNOWN = 10_000
_MOST_BYTES = 16 << 20
"""Of tokens that are known."""
_END = 43
"""Characters of a token's end: 256 bits. The shortest signature that is taken has 86 (ES256, EdDSA)."""
_LOOK_S, _AGAIN_S, _EVERY_S, _HELD_S = 1.0, 10.0, 300.0, 86_400.0
_FIRST_S = 3.0


class _Known:
    """The issuer's keys, and the tokens that they were found to have signed: both go at once."""

    def __init__(self, keys: IssuerKeys | None) -> None:
        self.keys = keys
        self._callers: dict[bytes, tuple[bytes, Bearer]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._callers)

    def of(self, token: bytes) -> Bearer | None:
        """Return who shows a token, or None where it was never verified, or so long ago that others took its place."""
        found = self._callers.get(token[-_END:])
        return found[1] if found is not None and found[0] == token else None

    def keep(self, token: bytes, caller: Bearer) -> None:
        """Know a token from now on, in place of those that were verified the longest ago where there are too many."""
        self._drop(token[-_END:])
        self._callers[token[-_END:]] = token, caller
        self._bytes += len(token)
        while len(self._callers) > _MOST_KNOWN or self._bytes > _MOST_BYTES:
            self._drop(next(iter(self._callers)))

    def _drop(self, end: bytes) -> None:
        before = self._callers.pop(end, None)
        self._bytes -= 0 if before is None else len(before[0])


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
        found = known.of(given)
        if found is None:
            found = self._found(given, known.keys)
            known.keep(given, found)
        if self._clock() >= found.ends:
            raise _refused(TokenError("the token has expired"))
        return found

    def meters(self) -> list[tuple[str, Meter]]:
        """Return what counts the requests of each subject, by the name under which State keeps their number."""
        return [(f"{SUBJECTS}{subject}", meter) for subject, meter in list(self._meters.items())]

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
        return Bearer(grant, grant.ends, meter, f"token of {grant.subject}")


def _refused(error: TokenError) -> ProblemError:
    return ProblemError(401, str(error), headers=((b"www-authenticate", b'Bearer error="invalid_token"'),))
