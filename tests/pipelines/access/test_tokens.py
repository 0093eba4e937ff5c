"""What tokens mean: claims of common issuers, key sets with odd keys, and texts that are no tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.access.tokens import IssuerKeys, TokenError, TokenGrant, claimed, verified
from pipelines.settings import load_settings
from tests.worlds.issuer import AUDIENCE, Issuer

ISSUER = Issuer()  # never opened: its keys alone are asked for
KEYS = IssuerKeys(ISSUER.key_set())
CHOSEN = load_settings({}, oidc_issuer=ISSUER.address, oidc_audience=AUDIENCE)
STRICT = msgspec.structs.replace(CHOSEN, oidc_loops_claim="loops", oidc_tenant_claim="org")


def granted(claims: dict[str, Any], **settings: str) -> TokenGrant:
    chosen = load_settings({}, oidc_issuer=ISSUER.address, oidc_audience=AUDIENCE, **settings)
    return verified(ISSUER.token("ed", **claims).encode(), KEYS, chosen)


@pytest.mark.parametrize(
    ("claims", "settings", "roles"),
    [
        ({"roles": ["decision:read", "decision:decide", "read"]}, {}, ["decide", "read"]),
        ({"scope": "openid decision:report"}, {"oidc_roles_claim": "scope"}, ["report"]),
        (
            {"realm_access": {"roles": ["decision:admin", "offline_access"]}},
            {"oidc_roles_claim": "/realm_access/roles"},
            ["admin"],
        ),
        (
            {"resource_access": {"a/b~c": {"roles": ["x-explain"]}}},
            {"oidc_roles_claim": "/resource_access/a~1b~0c/roles", "oidc_roles_prefix": "x-"},
            ["explain"],
        ),
        ({"https://example.com/r": "decision:operate"}, {"oidc_roles_claim": "https://example.com/r"}, ["operate"]),
        ({"realm_access": ["decision:admin"]}, {"oidc_roles_claim": "/realm_access/roles"}, []),
        ({"roles": {"decision:admin": True}}, {}, []),
        ({"roles": [["decision:admin"], 1, None]}, {}, []),
        ({"roles": ["decision:*", "Decision:admin", "admin"]}, {}, []),
        ({}, {}, []),
    ],
)
def test_roles_stand_in_a_list_or_a_text_under_a_name_or_a_pointer(
    claims: dict[str, Any], settings: dict[str, str], roles: list[str]
) -> None:
    assert granted(claims, **settings).roles == roles


def test_a_token_reaches_every_loop_until_a_claim_says_which_and_then_no_other() -> None:
    assert granted({}).loops == ["*"]
    where = {"oidc_loops_claim": "loops"}
    assert granted({"loops": ["shop", "news", "../etc", 7, "shop"]}, **where).loops == ["news", "shop"]
    assert granted({"loops": "news shop"}, **where).loops == ["news", "shop"]
    assert granted({"loops": ["*"]}, **where).sees_all()
    assert granted({}, **where).loops == []


@pytest.mark.parametrize("tenant", [None, "", "*", "ACME", "a" * 65, ["acme"], 7, {"acme": 1}])
def test_a_token_without_a_tenant_is_refused_where_a_claim_should_name_it(tenant: Any) -> None:
    with pytest.raises(TokenError, match="names no tenant in 'org'"):
        granted({"org": tenant}, oidc_tenant_claim="org")
    assert granted({"org": "acme"}, oidc_tenant_claim="org").tenant == "acme"
    assert not granted({"org": "acme"}, oidc_tenant_claim="org").sees_all()


def test_of_a_subject_nothing_is_kept_but_a_digest_and_ends_have_a_bound() -> None:
    name = "someone@example.com"
    grant = granted({"sub": name, "exp": 10**30})
    assert name not in repr(grant)
    assert granted({"sub": name}).subject == grant.subject != granted({"sub": "another"}).subject
    assert grant.ends == 10**12 + 30.0


@given(st.binary(max_size=200) | st.builds(lambda *parts: b".".join(parts), *[st.binary(max_size=60)] * 3))
def test_no_bytes_raise_anything_but_that_they_are_no_token(shown: bytes) -> None:
    with pytest.raises(TokenError):
        verified(shown, KEYS, CHOSEN)


GOOD = ISSUER.token("ed").encode()


@given(st.integers(0, len(GOOD) - 2), st.binary(min_size=1, max_size=3))
def test_a_token_with_other_bytes_in_it_is_refused(at: int, other: bytes) -> None:
    changed = GOOD[:at] + other + GOOD[at + len(other) :]
    assume(changed != GOOD)
    with pytest.raises(TokenError):
        verified(changed, KEYS, CHOSEN)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "roles", "loops", "org", "jti"])


@given(st.dictionaries(NAMES, ANY_JSON, max_size=6))
def test_whatever_the_issuer_signs_is_granted_or_refused(claims: dict[str, Any]) -> None:
    _, key = ISSUER.keys["ed"]
    body = json.dumps({**ISSUER.claims(org="acme"), **claims}).encode()
    token = jwt.PyJWS().encode(body, key, "EdDSA", headers={"kid": "ed"})
    with suppress(TokenError):
        assert verified(token.encode(), KEYS, STRICT).tenant


def odd_keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield keys that no token may be signed with."""
    rsa = jwt.get_algorithm_by_name("RS256")
    yield "short", json.loads(rsa.to_jwk(generate_rsa(65537, 1024).public_key()))
    yield "secret", {"kty": "oct", "k": "c2VjcmV0" * 8}
    yield "for encryption", {**ISSUER.public("rsa"), "use": "enc"}
    yield "other curve", json.loads(jwt.get_algorithm_by_name("ES384").to_jwk(generate_ec(SECP384R1()).public_key()))
    yield "other algorithm", {**ISSUER.public("rsa"), "alg": "RS512"}
    yield "HMAC", {**ISSUER.public("rsa"), "alg": "HS256"}
    yield "broken", {"kty": "RSA", "n": "!", "e": 7}
    yield "unknown", {"kty": "PQC"}
    yield "empty", {}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize(("name", "row"), list(odd_keys()))
def test_odd_keys_are_left_out_and_the_others_hold(name: str, row: dict[str, Any]) -> None:
    keys = IssuerKeys(json.dumps({"keys": [{**row, "kid": name}, ISSUER.public("ec")]}).encode())
    assert len(keys) == 1
    assert keys.key_of(ISSUER.token("ec").encode()).key_id == "ec"


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"\xff"])
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's errors have no more in common
        IssuerKeys(document)


def test_key_sets_are_equal_in_any_order_and_bounded() -> None:
    rows = [ISSUER.public(name) for name in ("rsa", "ec", "ed")]
    assert IssuerKeys(json.dumps({"keys": rows[::-1]}).encode()) == KEYS
    assert IssuerKeys(json.dumps({"keys": rows[:2]}).encode()) != KEYS
    renamed = [{**rows[0], "kid": f"{number}"} for number in range(200)]
    assert len(IssuerKeys(json.dumps({"keys": renamed}).encode())) == 64


def test_a_token_without_the_name_of_its_key_means_the_only_one() -> None:
    token = jwt.encode(ISSUER.claims(), ISSUER.keys["ec"][1], "ES256").encode()
    only = IssuerKeys(json.dumps({"keys": [ISSUER.public("ec")]}).encode())
    assert verified(token, only, CHOSEN).roles == []
    with pytest.raises(TokenError, match="does not publish"):
        verified(token, KEYS, CHOSEN)


def test_a_pointer_that_leads_nowhere_finds_nothing() -> None:
    assert claimed({"a": {"b": 1}}, "/a/b") == 1
    assert claimed({"a": {"b": 1}, "/a/b": 2}, "/a/b/c") is None
    assert claimed({"a": ["x"]}, "/a/0") is None
    assert claimed({"a.b": 3}, "a.b") == 3
