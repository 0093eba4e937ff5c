"""Whatever stands in a header or a form, the answer is a refusal and never a failure of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.fairness.people import add_person, open_session
from pipelines.fairness.store import Governance
from serving.fairness.console.site import COOKIE, form_token
from serving.http.app import App
from tests.serving.http.test_app import Caller, open_at

KEY = "k\u00e9y"
WILD = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer \xff\xfe" + b"x" * 30,
    b"Bearer " + "schl\u00fcssel-".encode() * 3,
    b"Bearer " + b"\x00\x01" * 20,
    b"Basic " + b"=" * 40,
    b"\xff" * 400,
    "\u2028 Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".encode(),
]
"""Values of headers, as bytes: a socket passes on what a client library would refuse."""

NAMES = [b"cookie", b"content-type", b"content-length", b"x-forwarded-proto", b"x-decision-loop", b"host", b"accept"]
FORM = (b"content-type", b"application/x-www-form-urlencoded")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    core = open_at(tmp_path_factory.mktemp("home"), "[fairness]\nenabled = true\n", api_keys=KEY)
    made = Caller(core).app
    yield made
    made.close()


def ask(app: App, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> int:
    """Return the status of one answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    parts, _, query = path.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": parts,
        "query_string": query.encode("latin-1"),
        "headers": headers,
        "server": ("127.0.0.1", 8080),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("value", WILD)
@pytest.mark.parametrize("name", [b"authorization", b"ocp-apim-subscription-key"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/loops"), ("POST", "/v1/loops/news/decide"), ("GET", "/fairness/tasks"), ("POST", "/fairness/people")],
)
def test_any_key_that_opens_nothing_is_answered_with_401(
    app: App, method: str, path: str, name: bytes, value: bytes
) -> None:
    assert ask(app, method, path, [(name, value)]) == 401


def test_a_key_beyond_ascii_opens(app: App) -> None:
    assert ask(app, "GET", "/v1/loops", [(b"authorization", b"Bearer " + KEY.encode())]) == 200


@pytest.mark.parametrize("value", WILD)
@pytest.mark.parametrize("name", NAMES)
def test_no_other_header_makes_the_service_fail(app: App, name: bytes, value: bytes) -> None:
    key = (b"ocp-apim-subscription-key", KEY.encode())
    for method, path in (
        ("GET", "/console/login"),
        ("POST", "/console/login"),
        ("GET", "/console/review"),
        ("POST", "/console/logout"),
        ("POST", "/personalizer/v1.0/rank"),
        ("POST", "/v1/loops/news/decide"),
        ("GET", "/v1/decisions/e?loop=\xff%ff"),
    ):
        assert ask(app, method, path, [key, (name, value)], b"{") < 500


def signed_in(app: App) -> str:
    """Return the token of an administrator's session."""
    now = datetime.now(UTC)
    store = Governance.at(app.core.settings)
    try:
        person, _ = add_person(store, name="Ada", roles=["administrator"], now=now, by="test")
        return open_session(store, person, now=now)
    finally:
        store.close()


TOKENS = [b"", b"%C3%A9" * 20, "\u00e9".encode() * 20, b"%ff%fe", b"%00", b"%ED%A0%80", b"a&form=%C3%A9"]
FORMS = ["/console/people", "/console/review/t0", "/console/panels/news/assign", "/console/people/p0/revoke"]


@pytest.mark.parametrize("token", TOKENS)
def test_a_form_with_any_token_is_refused(app: App, token: bytes) -> None:
    session = (b"cookie", f"{COOKIE}={signed_in(app)}".encode())
    for path in ("/console/logout", *FORMS):
        assert ask(app, "POST", path, [FORM, session], b"form=" + token) == 403
    assert ask(app, "POST", "/console/login", [FORM], b"key=" + token + b"x" * 20) == 401


def test_a_form_that_is_no_text_is_refused(app: App) -> None:
    assert ask(app, "POST", "/console/login", [FORM], b"key=\xff\xfe") == 422


@pytest.mark.parametrize("value", TOKENS)
def test_a_form_of_ones_own_session_may_hold_anything(app: App, value: bytes) -> None:
    session = signed_in(app)
    fields = (b"name", b"roles", b"owns", b"verdict", b"note", b"payload_hash", b"panels", b"size")
    form = b"&".join([b"form=" + form_token(session).encode(), *(field + b"=" + value for field in fields)])
    for path in FORMS:
        assert ask(app, "POST", path, [FORM, (b"cookie", f"{COOKIE}={session}".encode())], form) < 500
