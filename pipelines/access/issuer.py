"""Asks an OpenID Connect issuer for its keys, as OpenID Connect Discovery 1.0 says where they are.

The issuer is trusted, the network is not, and a broken issuer must not hang us: sizes and times are bounded, and
nothing is followed elsewhere.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from decision.errors import DecisionError
from decision.validation import prepared
from pipelines.access.tokens import IssuerKeys

_WELL_KNOWN = "/.well-known/openid-configuration"
_SILENT_S, _WHOLE_S = 3.0, 10.0
_MAX_BYTES = 256 << 10


class IssuerError(DecisionError):
    """The issuer does not answer, or not as an issuer does."""


class Published(NamedTuple):
    """What an issuer published when it was asked.

    Attributes:
        keys: that tokens may be signed with.
        at: the issuer's time, UTC, to a second; None where it does not say.
    """

    keys: IssuerKeys
    at: datetime | None


class _Discovered(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Go nowhere else: the answer is an error then."""


_opener = urllib.request.build_opener(_Stays)


def fetch_keys(issuer: str, clock: Callable[[], float] = time.monotonic) -> IssuerKeys:
    """Return the keys that an issuer publishes now; arguments and errors are those of `published_by`."""
    return published_by(issuer, clock).keys


def published_by(issuer: str, clock: Callable[[], float] = time.monotonic) -> Published:
    """Return what an issuer publishes now; blocking, up to 20 seconds.

    Args:
        issuer: its address.
        clock: monotonic seconds.

    Raises:
        IssuerError: it does not answer, calls itself otherwise, or publishes no key that tokens may be signed with.
    """
    where = issuer.rstrip("/") + _WELL_KNOWN
    document, _ = _read(where, clock)
    try:
        found = msgspec.json.decode(document, type=prepared(_Discovered))
    except ValueError as error:
        raise IssuerError(f"what the issuer answers at {where} is no discovery document: {error}") from error
    if found.issuer != issuer:
        raise IssuerError(f"the issuer calls itself {found.issuer[:200]!r}; oidc_issuer must be the same text")
    secure, jwks = issuer.startswith("https://"), found.jwks_uri
    if not jwks.startswith("https://" if secure else ("https://", "http://")):
        raise IssuerError(f"the issuer has its keys at {jwks[:200]!r}, which is no https address")
    document, at = _read(jwks, clock)
    try:
        keys = IssuerKeys(document)
    except ValueError as error:
        raise IssuerError(f"what the issuer answers at {jwks} is no key set: {error}") from error
    if not keys:
        raise IssuerError(f"the issuer publishes no key at {jwks} that tokens may be signed with")
    return Published(keys, at)


def _read(address: str, clock: Callable[[], float]) -> tuple[bytes, datetime | None]:
    ends, body, wrong = clock() + _WHOLE_S, b"", ""
    at: datetime | None = None
    try:
        with _opener.open(address, timeout=_SILENT_S) as response:
            at = _time_in(response.headers)
            while not wrong and (part := response.read1(_MAX_BYTES)):
                body += part
                if len(body) > _MAX_BYTES:
                    wrong = f"answers more than {_MAX_BYTES} bytes"
                elif clock() > ends:
                    wrong = f"did not end its answer within {_WHOLE_S:g} s"
    except urllib.error.HTTPError as error:
        error.close()
        raise IssuerError(f"the issuer answers {error.code} at {address}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise IssuerError(f"the issuer does not answer at {address}: {error}") from error
    if wrong:
        raise IssuerError(f"the issuer {wrong} at {address}")
    return body, at


def _time_in(headers: Message) -> datetime | None:
    """Return when an answer was given, however long it lay in a cache on the way (RFC 9111, section 4.2.3)."""
    age = headers.get("age", "")
    lay = timedelta(seconds=int(age)) if re.fullmatch("[0-9]{1,7}", age) else timedelta()
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC) + lay
    except (TypeError, ValueError, OverflowError):
        return None
