"""The doctor tells of every address what there is to know, and sees through a store that loses commits."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis

from pipelines import cli
from pipelines.operations.doctor import ADDRESSES, Finding, Refused, examine, keeps_conditions
from pipelines.operations.processes import free_port
from pipelines.settings import Settings
from pipelines.storage import Storage
from tests.redis_server import own_redis
from tests.worlds.issuer import Issuer
from tests.worlds.s3 import BUCKET, S3


class Careless(BaseHTTPRequestHandler):
    """A store that takes every write, whatever the condition."""

    refuses = False

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(501 if self.refuses and "If-None-Match" in self.headers else 200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"<DeleteResult/>")

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Plain(Careless):
    """A store that knows no conditions, and says so."""

    refuses = True


@contextmanager
def store(kind: type[Careless]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with store(Careless) as address:
        for name, value in S3.environment_of(address).items():
            monkeypatch.setenv(name, value)
        yield


def ask(capfd: pytest.CaptureFixture[str], home: Path) -> tuple[int, dict[str, dict[str, dict[str, object]]]]:
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--json", "--home", str(home)])
    return int(str(end.value.code)), json.loads(capfd.readouterr().out)


def test_one_folder_needs_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    found = examine(Settings(home=str(tmp_path / "new" / "home")))
    assert [finding.variable for finding in found] == [
        f"DECISION_{name.upper()}" for name in ADDRESSES if name != "oidc_issuer"
    ]
    assert {(finding.shared, finding.reachable, finding.probe, finding.advice) for finding in found} == {
        (False, True, "none", "")
    }
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_takes_no_files_is_not_reachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    home = next(f for f in examine(Settings(home=str(tmp_path / "file"))) if f.variable == "DECISION_HOME")
    assert not home.reachable


@pytest.mark.usefixtures("careless")
def test_a_store_that_ignores_the_condition_is_refused_by_name(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_FILES", "s3://bucket/prefix")
    status, answer = ask(capfd, tmp_path)
    assert status == 3
    assert answer["refused"] == ["files"]
    files = answer["addresses"]["files"]
    assert (files["reachable"], files["probe"]) == (True, "refused")
    assert "If-None-Match" in str(files["advice"])


def test_a_store_without_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with store(Plain) as address:
        for name, value in S3.environment_of(address).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Refused, match="cannot write on condition"):
            keeps_conditions(Storage("s3://bucket", persists=False), {})


@pytest.mark.connected
def test_a_store_that_keeps_the_condition_passes_and_is_left_as_it_was(
    s3: S3, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_FILES", f"s3://{BUCKET}/doctor")
    status, answer = ask(capfd, tmp_path)
    assert status == 0
    files = answer["addresses"]["files"]
    assert (files["shared"], files["reachable"], files["probe"], files["advice"]) == (True, True, "passed", "")
    assert Storage(f"s3://{BUCKET}/doctor").list("") == []
    # whoever shares one address is told of those that stay on this machine
    assert "DECISION_STATE=postgresql://" in str(answer["addresses"]["state"]["advice"])


@pytest.mark.connected
def test_a_bucket_that_is_not_there_is_said_not_to_be(
    s3: S3, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECISION_FILES", f"s3://nobodys/{'deep/' * 40}prefix")
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--json", "--home", str(tmp_path)])
    assert end.value.code == 1
    files = json.loads(capfd.readouterr().out)["addresses"]["files"]
    assert files["advice"] == "NoSuchBucket: The specified bucket does not exist"


@pytest.mark.connected
def test_an_unsafe_setting_is_refused(s3: S3) -> None:
    with pytest.raises(Refused, match="AWS_S3_ALLOW_UNSAFE_RENAME"):
        keeps_conditions(Storage(f"s3://{BUCKET}/unsafe"), {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"})


def test_what_does_not_answer_is_named_and_shows_no_password(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for name, value in S3.environment_of(f"http://{nowhere}").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DECISION_FILES", "s3://bucket/prefix")
    monkeypatch.setenv("DECISION_STATE", f"postgresql://me:hush@{nowhere}/decisions")
    monkeypatch.setenv("DECISION_ONLINE", f"redis://:hush@{nowhere}/0")
    monkeypatch.setenv("DECISION_TRACKING_URI", f"http://me:hush@{nowhere}")
    monkeypatch.setenv("DECISION_ONLINE", f"redis://:hush@{nowhere}/0")
    monkeypatch.setenv(
        "DECISION_LOG", f"kafka://{nowhere}?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&sasl_plain_password=hush"
    )
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--json", "--home", str(tmp_path)])
    told = capfd.readouterr().out
    assert end.value.code == 1
    assert json.loads(told)["unreachable"] == ["log", "files", "state", "online", "tracking_uri"]
    assert "hush" not in told


def test_a_redis_passes(tmp_path: Path) -> None:
    with own_redis() as server:
        found = next(
            f for f in examine(Settings(home=str(tmp_path), online=server.url)) if f.variable == "DECISION_ONLINE"
        )
        assert (found.shared, found.reachable, found.probe) == (True, True, "passed")


@pytest.mark.connected
def test_state_on_a_server_passes(postgres_database: str, tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), state=postgres_database)
    for _ in range(2):
        state = next(f for f in examine(settings) if f.variable == "DECISION_STATE")
        assert (state.shared, state.reachable, state.probe) == (True, True, "passed")


@pytest.mark.connected
def test_a_redis_that_takes_writes_passes_and_a_replica_is_refused(tmp_path: Path) -> None:
    with own_redis() as server:
        settings = Settings(home=str(tmp_path), online=server.url)
        online = next(f for f in examine(settings) if f.variable == "DECISION_ONLINE")
        assert (online.shared, online.reachable, online.probe) == (True, True, "passed")
        with Redis.from_url(server.url) as client:
            assert client.dbsize() == 0
            client.replicaof("127.0.0.1", "9")
        online = next(f for f in examine(settings) if f.variable == "DECISION_ONLINE")
        assert (online.reachable, online.probe) == (True, "refused")


def test_a_home_that_others_can_look_into_is_told_of(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    told = {}
    for mode in (0o755, 0o700):
        home.chmod(mode)
        told[mode] = next(f for f in examine(Settings(home=str(home))) if f.variable == "DECISION_HOME").advice
    assert told == {0o755: f"Others may look into it: chmod go= {home}", 0o700: ""}


def issued(issuer: Issuer) -> Finding:
    settings = Settings(home="unused", oidc_issuer=issuer.address, oidc_audience="us")
    (found,) = [finding for finding in examine(settings) if finding.variable == "DECISION_OIDC_ISSUER"]
    return found


def test_an_issuer_is_asked_for_its_keys_and_its_time() -> None:
    with Issuer() as issuer:
        found = issued(issuer)
        assert (found.address, found.reachable, found.probe, found.advice) == (issuer.address, True, "passed", "")
        issuer.keys.clear()
        found = issued(issuer)
        assert (found.reachable, found.probe) == (False, "none")
        assert "publishes no key" in found.advice
    assert "does not answer" in issued(issuer).advice


@pytest.mark.parametrize(
    ("off_s", "age", "probe", "says"),
    [
        # a busy machine asks late
        (-45, "", "refused", r"this machine's clock is (4[5-9]|[5-9]\d) s ahead of the issuer's"),
        (300, "", "refused", r"this machine's clock is (2[5-9]\d|300) s behind the issuer's"),
        (-3600, "3600", "passed", ""),
        (-20, "x" * 50, "passed", ""),
    ],
)
def test_a_clock_that_differs_from_the_issuers_is_told_of(off_s: float, age: str, probe: str, says: str) -> None:
    with Issuer() as issuer:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=off_s), usegmt=True)
        issuer.answers["/keys"] = (200, {"date": date, "age": age}, issuer.key_set())
        found = issued(issuer)
    assert (found.reachable, found.probe) == (True, probe)
    assert re.search(says, found.advice)


def test_an_issuer_is_no_part_that_machines_share_and_none_is_no_row() -> None:
    with Issuer() as issuer:
        settings = Settings(home="unused", oidc_issuer=issuer.address, oidc_audience="us")
        assert not any("DECISION_OIDC_ISSUER do not see it" in finding.advice for finding in examine(settings))
    assert "DECISION_OIDC_ISSUER" not in {finding.variable for finding in examine(Settings(home="unused"))}
