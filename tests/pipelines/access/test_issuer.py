"""What is asked of an issuer over the network, and what of its answers is not taken."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pipelines.access import issuer as asking
from pipelines.access.issuer import IssuerError, fetch_keys
from pipelines.operations.processes import free_port
from tests.worlds.issuer import Issuer

WELL_KNOWN = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def opened() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(opened: Issuer) -> Issuer:
    opened.address = f"http://127.0.0.1:{opened.port}"
    opened.asked.clear()
    opened.answers.clear()
    return opened


def test_keys_are_found_by_discovery_whether_or_not_the_address_ends_with_a_slash(issuer: Issuer) -> None:
    assert len(fetch_keys(issuer.address)) == 3
    assert issuer.asked == [WELL_KNOWN, "/keys"]
    issuer.address += "/"
    issuer.answers[WELL_KNOWN] = 200, {}, issuer.answer(WELL_KNOWN).replace(b"//keys", b"/keys")
    assert len(fetch_keys(issuer.address)) == 3


def found(**what: str) -> bytes:
    """Return a discovery document of the issuer that is asked, changed as said."""
    return json.dumps({"issuer": "ISSUER", "jwks_uri": "ISSUER/keys", **what}).encode()


BROKEN: list[tuple[str, int, bytes, str]] = [
    (WELL_KNOWN, 500, b"", "^the issuer answers 500"),
    (WELL_KNOWN, 302, b"", "^the issuer answers 302"),
    (WELL_KNOWN, 200, b"<html>", "is no discovery document"),
    (WELL_KNOWN, 200, b"{}", "is no discovery document"),
    (WELL_KNOWN, 200, b" " * (300 << 10), "^the issuer answers more than 262144 bytes"),
    (WELL_KNOWN, 200, found(issuer="https://evil.example"), "calls itself 'https://evil.example'"),
    (WELL_KNOWN, 200, found(jwks_uri="file:///etc/passwd"), "no https address"),
    (WELL_KNOWN, 200, found(jwks_uri="http://["), "^the issuer does not answer"),
    ("/keys", 404, b"", "^the issuer answers 404"),
    ("/keys", 307, b"", "^the issuer answers 307"),
    ("/keys", 200, b"[]", "^what the issuer answers at .*/keys is no key set"),
    ("/keys", 200, b'{"keys": []}', "no key at"),
    ("/keys", 200, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "rsa"}]}', "no key at"),
]


@pytest.mark.parametrize(("path", "status", "body", "told"), BROKEN)
def test_an_issuer_that_answers_otherwise_gives_no_keys_and_is_told_why(
    issuer: Issuer, path: str, status: int, body: bytes, told: str
) -> None:
    body = body.replace(b"ISSUER", issuer.address.encode())
    issuer.answers[path] = status, {"location": "/elsewhere"} if 300 <= status < 400 else {}, body
    with pytest.raises(IssuerError, match=told):
        fetch_keys(issuer.address)
    assert "/elsewhere" not in issuer.asked


def test_an_https_issuer_has_its_keys_at_an_https_address(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = found(issuer="https://login.example", jwks_uri=f"{issuer.address}/keys")
    monkeypatch.setattr(
        asking, "_read", lambda address, clock: (answer, None)
    )  # no certificate holds for a test's address
    with pytest.raises(IssuerError, match="no https address"):
        fetch_keys("https://login.example")


def test_an_answer_that_does_not_end_is_given_up(issuer: Issuer) -> None:
    ticks = iter(range(0, 1_000, 11))
    with pytest.raises(IssuerError, match=r"^the issuer did not end its answer within 10 s"):
        fetch_keys(issuer.address, lambda: float(next(ticks)))


def test_nobody_there_is_an_error_with_the_address() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(IssuerError, match=f"^the issuer does not answer at {address}/.well-known"):
        fetch_keys(address)
