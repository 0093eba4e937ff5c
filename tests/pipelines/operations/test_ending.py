"""What `decision serve` waits for when its service has ended."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.commands import running
from pipelines.ingestion.forward import forward
from pipelines.log.protocol import DECISIONS, TOPICS
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations import processes
from pipelines.operations.processes import wait_until_forwarded
from pipelines.settings import Settings, load_settings

WAITING = 500


@pytest.fixture
def forwarder() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that runs for as long as its input is open."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as started:
        yield started


@pytest.fixture
def left(tmp_path: Path) -> Iterator[LocalLog]:
    """Give the spool of a service that ended."""
    spool = LocalLog(tmp_path / "log.db")
    for topic in TOPICS:
        spool.create(topic, 2)
    spool.append_many(DECISIONS, [(b"%d" % number, b"", ()) for number in range(WAITING)])
    yield spool
    spool.close()


def settings_of(folder: Path, grace_s: float) -> Settings:
    return load_settings({}, home=str(folder), log="kafka://broker:9092", grace_s=grace_s)


def test_the_forwarder_is_waited_for_until_all_is_on_the_log(
    tmp_path: Path, left: LocalLog, forwarder: subprocess.Popen[bytes]
) -> None:
    target = LocalLog(tmp_path / "target.db")
    copying = threading.Thread(target=lambda: forward(left, target, once=True, batch_messages=20))
    copying.start()
    assert wait_until_forwarded(forwarder, settings_of(tmp_path, 3600.0)) == 0
    assert sum(target.watermarks(DECISIONS, each)[1] for each in range(2)) == WAITING
    copying.join()
    target.close()


def test_what_is_not_forwarded_within_the_grace_or_when_the_forwarder_died_is_told(
    tmp_path: Path, left: LocalLog, forwarder: subprocess.Popen[bytes]
) -> None:
    assert wait_until_forwarded(forwarder, settings_of(tmp_path, 0.0)) == WAITING
    forwarder.kill()
    forwarder.wait()
    assert wait_until_forwarded(forwarder, settings_of(tmp_path, 3600.0)) == WAITING


def test_a_forwarder_that_ends_is_started_again_for_as_long_as_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = tmp_path / "starts"
    starts.touch()
    write = f"open({str(starts)!r}, 'a').write('x')"
    until_the_third = f"import time\nwhile len(open({str(starts)!r}).read()) < 3: time.sleep(0.01)"
    monkeypatch.setattr(processes, "forward_command", lambda: [sys.executable, "-c", write])
    monkeypatch.setattr(running, "_LOOK_S", 0.01)
    monkeypatch.setattr(running.signal, "signal", lambda *_: None)
    service = [sys.executable, "-c", until_the_third]
    assert running._run_forwarded(service, settings_of(tmp_path, 0.0)) == (0, 0)  # it made no topics
    assert "the forwarder ended with status 0" in capsys.readouterr().err
