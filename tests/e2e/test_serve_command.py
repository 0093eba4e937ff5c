"""`decision serve`, as a user starts it: it answers, it picks up a new loop, it ends when told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from serving.start import check_logs
from tests.worlds.fleet import Member, processes_of

ROOT = Path(__file__).resolve().parents[2]


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def knows(url: str) -> bool:
    """Return whether the service knows the loop at `url`."""
    try:
        with urllib.request.urlopen(url, timeout=300):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 404:
            raise
        return False


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as log:
        log.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("partitions", "damage", "status", "told"),
    [
        (5, None, 2, "error: partitions: must be 3, as 'decisions' was created with, is 5"),
        (3, newer, 1, "log.db: must have schema 1 or older, has 99: newer code wrote it"),
        (3, lambda path: path.write_bytes(b"no database" * 999), 1, "log.db: the event log is damaged"),
    ],
)
def test_serve_ends_at_once_where_every_worker_would_fail_and_loses_nothing(
    tmp_path: Path, partitions: int, damage: Callable[[Path], object] | None, status: int, told: str
) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port(), partitions=3)
    init_loop(settings, "shop")
    check_logs(settings)
    if damage is not None:
        damage(settings.spool_path)
    before = settings.spool_path.read_bytes()
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--home", settings.home, "--port", str(settings.port)]
    environment = os.environ | {"DECISION_PARTITIONS": str(partitions)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stderr.splitlines()[-1]) == (status, True), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert settings.spool_path.read_bytes() == before


@pytest.mark.connected
def test_serve_answers_picks_up_a_new_loop_and_ends_in_good_order(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port())
    init_loop(settings, "shop")
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--home", settings.home, "--port", str(settings.port)]
    output = tmp_path / "output"
    with output.open("wb") as file:
        service = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until_ready(service, settings, output)
        init = [sys.executable, "-m", "pipelines.cli", "init", "news", "--home", settings.home]
        subprocess.run(init, cwd=ROOT, check=True, capture_output=True)
        body = {"event_id": "e1", "context": {"hour": 8}, "actions": [{"id": "a"}, {"id": "b"}]}
        url = f"http://127.0.0.1:{settings.port}/v1/loops/news"
        wait_until(lambda: knows(url), "the new loop to be picked up")
        answer = ask(f"{url}/decide", body)
        assert answer["policy_version"] == "baseline:uniform"
        assert answer["propensity"] == 0.5
        ask(f"{url}/outcomes", {"event_id": "e1", "value": 1.0})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGTERM)
        service.wait(300)
    assert "DECISION_FILES" in output.read_text()  # where the addresses lead
    ingest = [sys.executable, "-m", "pipelines.cli", "ingest", "--home", settings.home, "--json"]
    done = subprocess.run(ingest, cwd=ROOT, check=True, capture_output=True, text=True)
    assert {"decisions": 1, "outcomes": 1}.items() <= json.loads(done.stdout).items()


@pytest.fixture
def forwarding(tmp_path: Path) -> Iterator[tuple[Member, Path]]:
    """Give `decision serve` that has begun to start a service and a forwarder, towards a broker that is away."""
    (output := tmp_path / "output").mkdir()
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port(), log="kafka://127.0.0.1:1", grace_s=0.0)
    member = Member(settings, [sys.executable, "-m", "pipelines.cli", "serve"], output)
    member.start()
    try:
        wait_until(lambda: len(processes_of(settings.root)) >= 3, "the service and the forwarder to be started")
        yield member, settings.root
    finally:
        member.kill()


def test_serve_that_is_told_to_end_while_its_service_starts_ends_in_good_order(
    forwarding: tuple[Member, Path],
) -> None:
    member, home = forwarding
    assert member.end() == 0
    assert not processes_of(home)


def test_a_killed_serve_takes_its_service_and_its_forwarder_with_it(forwarding: tuple[Member, Path]) -> None:
    member, home = forwarding
    first = member.process
    assert first is not None
    first.kill()
    wait_until(lambda: not processes_of(home), "the service and the forwarder to end")
