"""Bearer tokens of an OpenID Connect issuer: whether one holds, and what it allows.

A token is a JSON Web Token (RFC 7519) that the issuer has signed. PyJWT checks signature, times, issuer and audience;
what stands here is which keys and algorithms are taken at all, and what claims mean. RFC 8725 is followed: the
algorithm is the key's, never what the token says of itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from decision.errors import DecisionError
from decision.validation import prepared
from pipelines.access.keys import EVERY, ROLES, TENANT, Grant
from pipelines.settings import LOOP_NAME, Settings

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures that are taken. All have a public key that checks and cannot sign."""
MAX_TOKEN = 8 << 10
"""Bytes of a token."""
LEEWAY_S = 30.0
"""Seconds by which the issuer's clock and this machine's may differ."""
_MAX_KEYS = 64
_RSA_BITS = range(2048, 8192 + 1)
_MAX_WORDS = 256
_LATEST = 10**12
_REQUIRED = ["exp", "iss", "aud", "sub"]


class TokenError(DecisionError):
    """A token does not hold; the message says why, and nothing that a stranger could use."""


class OtherKeyError(TokenError):
    """A token is signed with a key that the issuer did not publish when it was last asked."""


class TokenGrant(Grant, frozen=True, kw_only=True):
    """What a token allows.

    Attributes:
        subject: names who shows it: a digest of ``sub``, for what is counted is kept and ``sub`` may name a person.
        ends: when it ends, the leeway included, in seconds since 1970.
    """

    subject: str
    ends: float


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """The keys that an issuer publishes (RFC 7517), as far as tokens may be signed with them.

    Args:
        document: a JSON Web Key Set. Keys for encryption, of other algorithms than `ALGORITHMS`, RSA keys outside 2,048
            to 8,192 bits, and what comes after the first 64 are left out.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, document: bytes) -> None:
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._rows: dict[str | None, dict[str, Any]] = {}
        for row in msgspec.json.decode(document, type=prepared(_KeySet)).keys[:_MAX_KEYS]:
            key = _usable(row)
            if key is not None and key.key_id not in self._keys:
                self._keys[key.key_id], self._rows[key.key_id] = key, row

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._keys)

    def __eq__(self, other: object) -> bool:
        """Return whether the other keys are the same, in any order."""
        return isinstance(other, IssuerKeys) and self._rows == other._rows

    def __hash__(self) -> int:
        """Return a number that is the same for the same keys."""
        return hash(frozenset(self._rows))

    def key_of(self, token: bytes) -> jwt.PyJWK:
        """Return the key that a token says it was signed with; one that names none means the only one.

        Raises:
            OtherKeyError: there is no such key.
            TokenError: it is no token, or names an algorithm that is not taken.
        """
        try:
            text = base64.urlsafe_b64decode(token.partition(b".")[0] + b"==")
            header = msgspec.json.decode(text, type=prepared(_Header))  # PyJWT would read the whole token a second time
        except (ValueError, RecursionError) as error:
            raise TokenError("the token is none") from error
        if header.alg not in ALGORITHMS:
            raise TokenError(f"the token must be signed with {', '.join(ALGORITHMS)}")
        key = self._keys.get(header.kid)
        if header.kid is None and len(self._keys) == 1:
            (key,) = self._keys.values()
        if key is None:
            raise OtherKeyError("the token is signed with a key that the issuer does not publish")
        return key


def verified(token: bytes, keys: IssuerKeys, settings: Settings) -> TokenGrant:
    """Return what a token allows; its times are checked against the machine's clock.

    Args:
        token: as the caller shows it, up to `MAX_TOKEN` bytes.
        keys: what the issuer publishes.
        settings: the installation: issuer, audience, and what claims mean.

    Raises:
        OtherKeyError: it is signed with another key.
        TokenError: it does not hold.
    """
    if len(token) > MAX_TOKEN:
        raise TokenError(f"the token has more than {MAX_TOKEN} bytes")
    key = keys.key_of(token)
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=settings.oidc_audience,
            issuer=settings.oidc_issuer,
            leeway=LEEWAY_S,
            options={"require": _REQUIRED},
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenError("the token has expired") from error
    except jwt.ImmatureSignatureError as error:
        raise TokenError("the token does not hold yet") from error
    except jwt.InvalidAudienceError as error:
        raise TokenError("the token is for another audience") from error
    except jwt.InvalidIssuerError as error:
        raise TokenError("the token is of another issuer") from error
    except jwt.MissingRequiredClaimError as error:
        raise TokenError(f"the token has no claim {error.claim!r}") from error
    except jwt.InvalidSignatureError as error:
        raise OtherKeyError("the token's signature does not hold") from error
    except jwt.InvalidAlgorithmError as error:
        raise TokenError("the token is not signed in the way of its key") from error
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenError("the token is none") from error
    return _grant(claims, settings)


def claimed(claims: Mapping[str, Any], where: str) -> Any:
    """Return a claim by its name, or by a JSON pointer (RFC 6901) that begins with a slash; None without one."""
    if not where.startswith("/"):
        return claims.get(where)
    found: Any = claims
    for part in where[1:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _grant(claims: Mapping[str, Any], settings: Settings) -> TokenGrant:
    said = _words(claimed(claims, settings.oidc_roles_claim))
    prefix = settings.oidc_roles_prefix
    loops, tenant = [EVERY], ""
    if settings.oidc_loops_claim:
        named = _words(claimed(claims, settings.oidc_loops_claim))
        loops = sorted({loop for loop in named if loop == EVERY or LOOP_NAME.fullmatch(loop)})
    if settings.oidc_tenant_claim:
        tenant = claimed(claims, settings.oidc_tenant_claim)
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise TokenError(f"the token names no tenant in {settings.oidc_tenant_claim!r}")
    return TokenGrant(
        roles=[role for role in ROLES if prefix + role in said],
        loops=loops,
        tenant=tenant,
        subject=hashlib.sha256(claims["sub"].encode("utf-8", "surrogatepass")).hexdigest()[:32],
        ends=min(int(claims["exp"]), _LATEST) + LEEWAY_S,
    )


def _words(claim: Any) -> set[str]:
    """Return the words of a list, or of a text with blanks between them, as ``scope`` is."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return {word for word in words[:_MAX_WORDS] if isinstance(word, str)}


def _usable(row: dict[str, Any]) -> jwt.PyJWK | None:
    if row.get("use", "sig") != "sig" or not isinstance(row.get("kid"), str | None):
        return None
    try:
        key = jwt.PyJWK(row)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None  # of a kind that we do not know, or broken: the others hold
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size not in _RSA_BITS:
        return None
    return key
