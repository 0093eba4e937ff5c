"""Bearer tokens: every route against every kind of token, of a real provider and of one that forges."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from pipelines.access.issuer import IssuerError
from pipelines.access.keys import ROLES, USED
from pipelines.operations import evaluations
from pipelines.settings import load_settings
from pipelines.state.state import State
from serving.http import tokens
from serving.http.access import Access
from serving.http.tokens import Tokens
from serving.problems import ProblemError
from serving.routes import OF_KEYS
from serving.start import open_core
from tests.serving.http.test_access import NOT_YET, Site
from tests.serving.http.test_app import QUESTION, Caller
from tests.worlds.issuer import AUDIENCE, Issuer, Provider

CLAIMS = {"oidc_audience": AUDIENCE, "oidc_loops_claim": "loops", "oidc_tenant_claim": "tenant"}
EVERYTHING: dict[str, Any] = {"roles": ["decision:admin"], "loops": ["*"], "tenant": "acme"}
PEOPLE = [
    *({"sub": role, "roles": [f"decision:{role}", "other"], "loops": ["news"], "tenant": "acme"} for role in ROLES),
    {"sub": "nothing", "roles": ["admin", "decision:nothing"], "loops": ["news"], "tenant": "acme"},
    {"sub": "other tenant", "roles": ["decision:admin"], "loops": ["*"], "tenant": "other"},
    {"sub": "no tenant", "roles": ["decision:admin"], "loops": ["*"]},
    {"sub": "other loop", "roles": ["decision:admin"], "loops": ["open"], "tenant": "acme"},
]
REFUSED = ["no tenant", "other audience", "other provider", "tampered"]


def said(answer: Any) -> str:
    """Return what is told of a refusal: in our form, or in Personalizer's."""
    refusal = answer.json()
    return refusal["error"]["message"] if "error" in refusal else refusal["detail"]


@pytest.fixture(scope="module", autouse=True)
def no_evaluation_is_worked_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluations, "start", lambda *of: None)  # who may begin one is asked here, not what it finds
        yield


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    started = Provider(tmp_path_factory.mktemp("provider"), PEOPLE)
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def site(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    opened = Site(tmp_path_factory.mktemp("home"), oidc_issuer=provider.address, **CLAIMS)
    opened.tokens |= {person["sub"]: provider.token(person["sub"]) for person in PEOPLE}
    opened.tokens["other audience"] = provider.token("admin", "a-client")
    other = Provider(tmp_path_factory.mktemp("other"), PEOPLE)
    other.start()
    opened.tokens["other provider"] = other.token("admin")
    other.kill()
    head, claims, signature = provider.token("decide").split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"roles": ["decision:admin"]}
    forged = base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
    opened.tokens["tampered"] = f"{head}.{forged}.{signature}"
    shown = {"authorization": f"Bearer {opened.tokens['decide']}"}
    assert opened.call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "known"}, **shown).status_code == 200
    yield opened
    opened.core.close()


@pytest.mark.parametrize("kind", [*ROLES, "nothing"])
def test_a_providers_token_opens_the_routes_of_its_roles_and_no_other(site: Site, kind: str) -> None:
    for route in site.routes():
        answer = site.ask(route, kind)
        may = route.role == "anyone" or kind in (route.role, "admin")
        assert answer.status_code not in (401, 500), (route.name, answer.text)
        assert answer.status_code != 404 or route.name in NOT_YET, (route.name, answer.text)
        assert (answer.status_code == 403) == (not may), (route.name, answer.text)
        if not may:
            assert said(answer) == f"the token has no role {route.role!r}"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_providers_token_that_is_not_for_us_opens_nothing(site: Site, kind: str) -> None:
    for route in site.routes():
        answer = site.ask(route, kind)
        assert (answer.status_code == 401) == (route.role != "anyone"), (route.name, answer.text)


@pytest.mark.parametrize("kind", ["other tenant", "other loop"])
def test_for_a_token_a_loop_that_is_not_its_own_is_as_one_that_does_not_exist(site: Site, kind: str) -> None:
    for route in site.routes():
        if "{loop}" in route.path or route.tag == "personalizer":
            theirs, nobodys = site.ask(route, kind, "news"), site.ask(route, kind, "nothing")
            assert theirs.status_code == nobodys.status_code == 404, route.name
            assert theirs.text.replace("news", "LOOP") == nobodys.text.replace("nothing", "LOOP")
    shown = {"authorization": f"Bearer {site.tokens[kind]}"}
    assert "news" not in site.call("GET", "/v1/loops", **shown).text
    assert 'loop="news"' not in site.call("GET", "/metrics", **shown).text
    assert site.call("GET", "/v1/decisions/known", **shown).status_code == 404


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as opened:
        yield opened


@pytest.fixture(scope="module")
def own(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    opened = Site(tmp_path_factory.mktemp("home"), oidc_issuer=issuer.address, **CLAIMS)
    decided = opened.call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "known"}, **bearer(issuer))
    assert decided.status_code == 200
    yield opened
    opened.core.close()


def bearer(issuer: Issuer, key: str = "rsa", **what: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {issuer.token(key, **{**EVERYTHING, **what})}"}


def forged(issuer: Issuer, kind: str) -> str:
    """Return a token that is good but for one thing."""
    now, algorithm = int(time.time()), "RS256"
    claims = issuer.claims(**EVERYTHING)
    match kind:
        case "expired":
            return issuer.token(**EVERYTHING, exp=now - 60)
        case "not yet":
            return issuer.token(**EVERYTHING, nbf=now + 120)
        case "other issuer":
            return issuer.token(**EVERYTHING, iss=issuer.address + "/")
        case "other audience":
            return issuer.token(**EVERYTHING, aud=["a-client", AUDIENCE + "2"])
        case "another key under a known id":
            return jwt.encode(claims, generate_private_key(65537, 2048), algorithm, headers={"kid": "rsa"})
        case "another key":
            return jwt.encode(claims, generate_private_key(65537, 2048), algorithm, headers={"kid": "new"})
        case "a key in the token":
            key = generate_private_key(65537, 2048)
            own = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
            return jwt.encode(claims, key, algorithm, headers={"jwk": own, "kid": "rsa"})
        case "no signature":
            return jwt.encode(claims, None, "none", headers={"kid": "rsa"})
        case "a signature that is left out":
            return issuer.token(**EVERYTHING).rpartition(".")[0] + "."
        case "HMAC with the public key":
            return issuer.hmac_token(**EVERYTHING)
        case "another algorithm of the same key":
            return jwt.encode(claims, issuer.keys["rsa"][1], "PS256", headers={"kid": "rsa"})
        case "another key's algorithm":
            return jwt.encode(claims, issuer.keys["ec"][1], "ES256", headers={"kid": "rsa"})
        case "too long":
            return issuer.token(**EVERYTHING, filler="x" * 8192)
        case "no algorithm":
            return jwt.utils.base64url_encode(b'{"typ": "JWT"}').decode() + "." + issuer.token().partition(".")[2]
        case "nested":
            return "eyJ" + base64.urlsafe_b64encode(b"[" * 6_000).decode().rstrip("=") + ".e30.AA"
        case _:
            return issuer.token(**{**EVERYTHING, kind.removeprefix("without "): None})


REASONS = {
    "expired": "has expired",
    "not yet": "does not hold yet",
    "other issuer": "of another issuer",
    "other audience": "for another audience",
    "another key": "does not publish",
    "another key under a known id": "signature does not hold",
    "a key in the token": "signature does not hold",
    "no signature": "must be signed with",
    "a signature that is left out": "signature does not hold",
    "HMAC with the public key": "must be signed with",
    "another algorithm of the same key": "must be signed with",
    "another key's algorithm": "not signed in the way of its key",
    "too long": "more than 8192 bytes",
    "no algorithm": "is none",
    "nested": "is none",
    "without exp": "has no claim 'exp'",
    "without aud": "has no claim 'aud'",
    "without iss": "has no claim 'iss'",
    "without sub": "has no claim 'sub'",
    "without tenant": "names no tenant in 'tenant'",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_token_that_is_good_but_for_one_thing_opens_nothing(own: Site, issuer: Issuer, kind: str) -> None:
    own.tokens[kind] = forged(issuer, kind)
    for route in own.routes():
        answer = own.ask(route, kind)
        assert (answer.status_code == 401) == (route.role != "anyone"), (route.name, answer.text)
        if answer.status_code == 401:
            assert REASONS[kind] in said(answer)
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("key", ["rsa", "ec", "ed"])
def test_tokens_of_each_algorithm_hold_and_clocks_may_differ_a_little(own: Site, issuer: Issuer, key: str) -> None:
    now = int(time.time())
    for what in ({}, {"exp": now - 10}, {"nbf": now + 10}):
        assert own.call("GET", "/v1/loops", **bearer(issuer, key, **what)).json()["loops"] == ["news"]


def known(issuer: Issuer, now: list[float], ticks: list[float] | None = None, **settings: Any) -> Tokens:
    chosen = load_settings({}, oidc_issuer=issuer.address, **{**CLAIMS, **settings})
    ticks = [0.0] if ticks is None else ticks
    return Tokens(chosen, lambda: now[0], lambda: ticks[0])


def refused(found: Tokens, token: str) -> str:
    with pytest.raises(ProblemError) as told:
        found.of(token.encode())
    assert told.value.status == 401
    return str(told.value)


def test_a_key_that_the_provider_takes_back_signs_nothing_more_and_its_new_one_does(tmp_path: Path) -> None:
    rotating = Provider(tmp_path, PEOPLE)
    rotating.start()
    ticks = [0.0]
    settings = load_settings({}, oidc_issuer=rotating.address, **CLAIMS)
    found = Tokens(settings, time.time, lambda: ticks[0])
    found.look()
    before = rotating.token("decide")
    assert found.of(before.encode()).holds("decide")
    rotating.kill()
    rotating.start()
    after = rotating.token("decide")
    assert "signature" in refused(found, after)
    ticks[0] += 10.0
    found.look()
    assert found.of(after.encode()).holds("decide")
    assert "signature" in refused(found, before)  # although it was known, and has not ended
    rotating.kill()


def test_an_unknown_key_makes_the_issuer_be_asked_again_but_not_more_often_than_every_ten_seconds() -> None:
    with Issuer() as issuer:
        ticks = [0.0]
        found, token = known(issuer, [time.time()], ticks), forged(issuer, "another key")
        for second in range(65):
            ticks[0] = float(second)
            refused(found, token)
            found.look()
        assert issuer.asked.count("/keys") == 7
        quiet = known(issuer, [time.time()], ticks)
        issuer.asked.clear()
        for second in range(0, 905, 5):
            ticks[0] = float(second)
            quiet.look()
        assert issuer.asked.count("/keys") == 4


def test_keys_go_on_where_the_issuer_does_not_answer(tmp_path: Path) -> None:
    issuer = Issuer()
    site = Site(tmp_path, oidc_issuer=issuer.address, **CLAIMS)
    token = bearer(issuer)
    answer = site.call("GET", "/v1/loops", **token)
    assert (answer.status_code, answer.json()["detail"][:34]) == (401, "the issuer's keys are not known ye")
    assert site.call("GET", "/readyz").status_code == 200
    assert site.call("GET", "/v1/loops", authorization=f"Bearer {site.tokens['read']}").json()["loops"] == ["news"]
    assert site.call("GET", "/v1/loops").json()["detail"] == "an API key or a token is needed"
    site.core.close()


def test_tokens_hold_as_soon_as_the_issuer_answers() -> None:
    issuer, ticks = Issuer(), [0.0]
    found, token = known(issuer, [time.time()], ticks), issuer.token(**EVERYTHING)
    with pytest.raises(IssuerError, match="does not answer"):
        found.look()
    with issuer:
        ticks[0] = 9.0
        found.look()
        assert "not known yet" in refused(found, token)
        ticks[0] = 10.0
        found.look()
        assert found.of(token.encode()).holds("decide")


def test_what_the_issuer_said_last_holds_for_a_day() -> None:
    with Issuer() as issuer:
        ticks = [0.0]
        found = known(issuer, [time.time()], ticks)
        found.look()
        token = issuer.token(**EVERYTHING)
        issuer.close()
        for hour in range(1, 25):
            ticks[0] = hour * 3_600.0
            with pytest.raises(IssuerError, match="does not answer"):
                found.look()
            assert found.of(token.encode()).holds("decide")
        ticks[0] += 10.0
        with pytest.raises(IssuerError):
            found.look()
        assert "not known yet" in refused(found, token)


def test_a_token_is_verified_once_and_ends_when_it_says(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [time.time()], list[bytes]()
    verify = tokens.verified
    monkeypatch.setattr(tokens, "verified", lambda token, *others: (calls.append(token), verify(token, *others))[1])
    found = known(issuer, now)
    found.look()
    token = issuer.token(**EVERYTHING, exp=int(now[0]) + 100)
    first = found.of(token.encode())
    assert all(found.of(token.encode()) is first for _ in range(100))
    assert len(calls) == 1
    now[0] += 131.0
    assert refused(found, token) == "the token has expired"


def test_what_is_kept_of_tokens_and_subjects_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_KNOWN", 3)
    found = known(issuer, [time.time()])
    found.look()
    shown = [issuer.token("ed", **EVERYTHING, sub=str(number)).encode() for number in range(8)]
    for token in [*shown, *shown]:
        assert found.of(token).holds("admin")
        assert len(found._known) <= 3
        assert len(found.meters()) <= 3


def test_known_tokens_take_no_more_room_than_they_may(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_BYTES", 9_600)
    verify, calls = tokens.verified, list[bytes]()
    monkeypatch.setattr(tokens, "verified", lambda token, *others: (calls.append(token), verify(token, *others))[1])
    found = known(issuer, [time.time()])
    found.look()
    shown = [issuer.token("ed", **EVERYTHING, jti=f"{number}" * 2_000).encode() for number in range(5)]
    assert 2_400 < len(shown[0]) <= 3_200  # three have room
    for token in shown:
        found.of(token)
    assert len(found._known) == 3
    for token in shown[2:]:
        found.of(token)
    assert calls == shown
    found.of(shown[0])
    assert calls == [*shown, shown[0]]


@pytest.mark.parametrize("key", ["rsa", "ec", "ed"])
def test_a_known_tokens_end_opens_nothing_under_another_beginning(issuer: Issuer, key: str) -> None:
    found = known(issuer, [time.time()])
    found.look()
    weak, strong = (
        issuer.token(key, **EVERYTHING | {"roles": [f"decision:{role}"]}).encode() for role in ("read", "admin")
    )
    assert not found.of(weak).holds("admin")
    head, _, signature = weak.rpartition(b".")
    for other in (strong.rpartition(b".")[0], head + b"A", head[:-1]):
        for _ in range(2):
            refused(found, (other + b"." + signature).decode())
    refused(found, weak[-43:].decode())
    assert not found.of(weak).holds("admin")
    assert found.of(strong).holds("admin")


def test_a_subjects_tokens_share_its_limits(issuer: Issuer) -> None:
    now = [time.time()]
    found = known(issuer, now, oidc_per_second=2.0)
    found.look()
    ours = [found.of(issuer.token(**EVERYTHING, jti=name).encode()) for name in ("a", "b")]
    theirs = found.of(issuer.token(**EVERYTHING, sub="bob").encode())
    for _ in range(2):
        for caller in ours:
            caller.admit()
    ours[0].admit()
    for caller in ours:
        with pytest.raises(Exception, match="the subject has 2 requests a second"):
            caller.admit()
    theirs.admit()


def test_a_subjects_day_is_counted_over_workers_without_its_name(own: Site, issuer: Issuer) -> None:
    chosen = load_settings({}, home=own.settings.home, oidc_issuer=issuer.address, oidc_per_day=5, **CLAIMS)
    headers = {b"authorization": f"Bearer {issuer.token(**EVERYTHING, sub='carol@example.com')}".encode()}
    for _ in range(2):
        worker = Access(chosen)
        worker.start()
        caller = worker.of(headers)
        caller.admit()
        caller.admit()
        worker.close()
    with State(own.settings.state_url) as state:
        counted = {name: json.loads(entry.value)["requests"] for name, entry in state.entries(USED).items()}
    (ours,) = [name for name in counted if name.startswith(f"{USED}oidc-")]
    assert counted[ours] == 4
    assert "carol" not in ours


def test_an_issuer_alone_makes_every_route_ask(issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "loops" / "news").mkdir(parents=True)
    (tmp_path / "loops" / "news" / "loop.toml").write_text("")
    chosen = load_settings({}, home=str(tmp_path), host="0.0.0.0", oidc_issuer=issuer.address, oidc_audience=AUDIENCE)
    call = Caller(open_core(chosen))
    _ = call.app.core
    for route in call.app._routes:
        if route.role in OF_KEYS:
            body = None if route.request is None else route.example
            assert call(route.method, route.path.replace("{loop}", "news"), body).status_code == 401, route.name
    assert call("GET", "/v1/loops", **bearer(issuer)).json()["loops"] == ["news"]
    call.core.close()


@pytest.mark.parametrize("issuer", ["", "https://login.example.com"])
def test_without_an_issuer_nothing_that_reads_tokens_is_imported(tmp_path: Path, issuer: str) -> None:
    code = (
        "import sys, serving.http.app; from serving.http.access import Access; "
        "from pipelines.settings import load_settings; Access(load_settings()); "
        "print([name for name in ('jwt', 'cryptography') if name in sys.modules])"
    )
    named = {"DECISION_OIDC_ISSUER": issuer, "DECISION_OIDC_AUDIENCE": AUDIENCE} if issuer else {}
    variables = {**os.environ, "DECISION_HOME": str(tmp_path), **named}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(["jwt", "cryptography"] if issuer else [])
