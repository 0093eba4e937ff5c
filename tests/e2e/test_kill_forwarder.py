"""From spool to Kafka while the forwarder and the broker are killed: all of it, in order, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.ingestion.forward import lags
from pipelines.log.kafka.log import KafkaLog
from pipelines.log.protocol import TOPICS
from pipelines.log.sqlite.log import Group, LocalLog
from pipelines.operations.waiting import wait_until
from pipelines.progress import Progress, counted, silent
from serving.spool import Spool
from tests.contracts.event_log import read_all
from tests.kafka_broker import lost_sockets, own_broker

pytestmark = pytest.mark.connected

PARTITIONS = 3
FORWARDER = """
from pipelines.ingestion.forward import run_forwarder
from pipelines.settings import load_settings
told = []
def tell(done):
    if done.messages and not told:
        told.append(print("forwarding", flush=True))
print("ready", flush=True)
run_forwarder(load_settings(), on_pass=tell)
"""


class Load:
    """A service under load: decisions, and several outcomes per decision, through a spool."""

    def __init__(self, log: LocalLog, per_second: float) -> None:
        self.acknowledged: dict[str, list[tuple[bytes, bytes]]] = {topic: [] for topic in TOPICS}
        self._spool = Spool(log)
        self._pause_s = 20 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._spool.close()

    def _run(self) -> None:
        n = 0
        while not self._stop.is_set():
            futures = []
            for _ in range(20):
                n += 1
                decision, outcome = (b"e%d" % n, b"decision %d" % n), (b"e%d" % (n % 40), b"outcome %d" % n)
                futures += [
                    (self._spool.submit((Group(key, [(topic, value, ())], topic == "decisions"),)), topic, key, value)
                    for topic, (key, value) in zip(TOPICS, (decision, outcome), strict=True)
                ]
            for future, topic, key, value in futures:
                future.result(300)
                self.acknowledged[topic].append((key, value))
            self._stop.wait(self._pause_s)


def start_forwarder(home: Path, bootstrap: str) -> subprocess.Popen[bytes]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DECISION_")},
        "DECISION_HOME": str(home),
        "DECISION_LOG": f"kafka://{bootstrap}",
        "DECISION_PARTITIONS": str(PARTITIONS),
    }
    process = subprocess.Popen([sys.executable, "-c", FORWARDER], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def await_no_lag(source: LocalLog) -> None:
    def arrived() -> bool:
        found = lags(source)
        return bool(found) and not any(lag for by_partition in found.values() for lag in by_partition.values())

    wait_until(arrived, "the forwarder", progress=lambda: lags(source))


def check_all_arrived_in_order(load: Load, source: LocalLog, bootstrap: str) -> None:
    target = KafkaLog([bootstrap])
    for topic in TOPICS:
        arrived: dict[bytes, list[bytes]] = {}
        for partition in range(PARTITIONS):
            offsets: dict[int, None] = {}
            for message in read_all(target, topic, partition):
                headers = dict(message.headers)
                assert headers["spool"] == source.identity().encode()
                offset = int(headers["spool_offset"])
                if offset not in offsets:
                    arrived.setdefault(message.key, []).append(message.value)
                offsets[offset] = None
            assert list(offsets) == list(range(source.watermarks(topic, partition)[1]))
        wanted: dict[bytes, list[bytes]] = {}
        for key, value in load.acknowledged[topic]:
            wanted.setdefault(key, []).append(value)
        assert arrived == wanted
    target.close()


@pytest.fixture
def source(tmp_path: Path):
    log = LocalLog(tmp_path / "log.db")
    for topic in TOPICS:
        log.create(topic, PARTITIONS)
    yield log
    log.close()


def test_forwarder_killed_at_random_moments_loses_nothing_and_keeps_the_order(source: LocalLog, tmp_path: Path) -> None:
    assert kill_forwarder(source, tmp_path, 4, seed=42) > 400


def kill_forwarder(source: LocalLog, folder: Path, kills: int, seed: int, progress: Progress = silent) -> int:
    """Kill a forwarder under load so many times, check what arrived, and return how many outcomes it brought."""
    rng = random.Random(seed)
    with lost_sockets(), own_broker() as broker:
        with Load(source, per_second=1500) as load:
            process = start_forwarder(folder, broker.bootstrap)
            for n in counted(range(kills), progress, "kills", total=kills):
                if n % 2:  # while it starts and connects, or in the midst of forwarding
                    assert process.stdout is not None
                    assert process.stdout.readline() == b"forwarding\n"
                time.sleep(rng.uniform(0.0, 0.4))
                kill(process)
                process = start_forwarder(folder, broker.bootstrap)
        try:
            await_no_lag(source)
        finally:
            kill(process)
        check_all_arrived_in_order(load, source, broker.bootstrap)
    return len(load.acknowledged["outcomes"])


def test_broker_killed_under_load_is_caught_up_with_once_it_is_back(source: LocalLog, tmp_path: Path) -> None:
    assert broker_away(source, tmp_path, 500, per_second=1500) >= 500


def broker_away(source: LocalLog, folder: Path, decisions: int, *, per_second: float) -> int:
    """Kill the broker until so many decisions were acknowledged without it, start it, and check what arrived.

    Returns how many were acknowledged while it was away; each has an outcome, that was acknowledged, too.
    """
    with lost_sockets(), own_broker() as broker:
        process = start_forwarder(folder, broker.bootstrap)
        try:
            with Load(source, per_second) as load:
                assert process.stdout is not None
                assert process.stdout.readline() == b"forwarding\n"
                address = broker.bootstrap
                broker.kill()
                before = len(load.acknowledged["decisions"])
                wait_until(  # the service does not notice
                    lambda: len(load.acknowledged["decisions"]) >= before + decisions,
                    "decisions to be acknowledged",
                    progress=lambda: len(load.acknowledged["decisions"]),
                )
                away = len(load.acknowledged["decisions"]) - before
                broker.start()
                assert broker.bootstrap == address
            await_no_lag(source)
            assert process.poll() is None
        finally:
            kill(process)
        check_all_arrived_in_order(load, source, broker.bootstrap)
    return away
