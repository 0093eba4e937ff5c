"""Kafka beyond the common contract: addresses and secrets, absent and dying brokers, groups, the launcher."""

from __future__ import annotations

import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.log.kafka.group import KafkaGroupReader
from pipelines.log.kafka.log import KafkaLog
from pipelines.log.kafka.options import parse_address
from pipelines.log.open import open_log
from pipelines.log.protocol import LogUnavailable, Message, OffsetOutOfRange
from pipelines.operations import kafka_server as server_module
from pipelines.operations.kafka_server import KafkaServer, KafkaServerError, kafka_server, missing_parts
from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from tests.contracts.event_log import read_all
from tests.kafka_broker import lost_sockets, own_broker, shared_broker
from tests.parts import require


def test_address_gives_servers_and_options(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass word\n")
    servers, arguments = parse_address(
        "kafka://b1:9092,[::1]:9093?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&sasl_plain_username=me"
        f"&sasl_plain_password_file={tmp_path / 'secret'}&ssl_check_hostname=false"
        "&replication_factor=3&compression=zstd"
    )
    assert servers == ["b1:9092", "[::1]:9093"]
    assert arguments == {
        "client": {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "me",
            "sasl_plain_password": "pass word",
            "ssl_check_hostname": False,
        },
        "replication_factor": 3,
        "compression": "zstd",
    }
    assert "pass word" not in repr(arguments)
    log = open_log("kafka://b1:9092?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&sasl_plain_password=Xy7")
    assert "Xy7" not in repr(log) + repr(vars(log))
    log.close()


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("kafka://", "log"),
        ("kafka://host", "log"),
        ("kafka://me:word@host:9092", "log"),
        ("kafka://h:1?acks=0", "acks"),
        ("kafka://h:1?replication_factor=no", "replication_factor"),
        ("kafka://h:1?ssl_check_hostname=maybe", "ssl_check_hostname"),
        ("kafka://h:1?security_protocol=NONE", "security_protocol"),
        ("kafka://h:1?sasl_plain_password_file=/does/not/exist", "sasl_plain_password_file"),
        (
            "kafka://h:1?security_protocol=SSL&ssl_cafile=/does/not/exist",
            "ssl_cafile: .* /does/not/exist: No such file",
        ),
        ("kafka://h:1?ssl_check_hostname=true", "security_protocol: must be SASL_SSL or SSL with ssl_check_hostname"),
        ("kafka://h:1?security_protocol=SSL&sasl_plain_username=me", "security_protocol: must be SASL_PLAINTEXT or"),
        ("kafka://h:1?security_protocol=SASL_SSL&sasl_mechanism=SCRAM", "sasl_mechanism"),
        (
            "kafka://h:1?security_protocol=SASL_SSL&sasl_plain_username=me",
            "sasl_mechanism: must be given with SASL_SSL",
        ),
        ("redis://h:1", "log"),
        ("local:", "log"),
    ],
)
def test_address_that_does_not_fit_is_named_without_its_secrets(url: str, field: str) -> None:
    with pytest.raises(FieldError, match=field) as caught:
        open_log(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_absent_broker_is_unavailable_at_once_and_leaves_no_threads() -> None:
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        before = threading.active_count()
        with lost_sockets():
            for port in (1, silent.getsockname()[1]):
                log = KafkaLog([f"127.0.0.1:{port}"], connect_timeout_s=0.3)
                for _ in range(3):
                    with pytest.raises(LogUnavailable):
                        log.identity()
                    with pytest.raises(LogUnavailable):
                        log.append("t", b"k", b"v")
                    with pytest.raises(LogUnavailable):
                        log.read("t", 0, 0)
                log.close()
        wait_until(lambda: threading.active_count() <= before, "the threads to end")


def test_who_waits_for_a_broker_that_listens_and_does_not_answer_yet_leaves_no_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_START_S", 0.1)
    server = KafkaServer(tmp_path)
    before = threading.active_count()
    with (
        socket.socket() as silent,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as broker,
    ):
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server._process, server._ports = broker, (silent.getsockname()[1], 0)
        with lost_sockets(), pytest.raises(KafkaServerError, match="did not answer"):
            server._await_answer()
        server.kill()
    wait_until(lambda: threading.active_count() <= before, "the threads to end")


@pytest.mark.connected
def test_topics_that_a_power_cut_could_lose_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    log = KafkaLog(shared_broker().split(","))
    with caplog.at_level(logging.WARNING, logger="pipelines.log"):
        log.create("few-copies", 1)
    assert any("few-copies has 1 copies and min.insync.replicas=1" in message for message in caplog.messages)
    log.close()


@pytest.mark.connected
def test_group_members_share_partitions_and_go_on_from_positions_given_from_outside() -> None:
    bootstrap = shared_broker()
    log = KafkaLog([bootstrap])
    for topic in ("group-a", "group-b"):
        log.create(topic, 4)
        log.append_many(topic, [(b"k%d" % n, b"%d" % n, ()) for n in range(200)])
    positions: dict[tuple[str, int], int] = {}
    start = {("group-a", p): 3 for p in range(4)}
    collected: dict[tuple[str, int], list[int]] = {}
    lock, stop = threading.Lock(), threading.Event()
    revoked: list[tuple[str, int]] = []
    assignments: dict[str, set[tuple[str, int]]] = {}

    def take(found: list[Message]) -> None:
        with lock:  # what ingestion does in one commit: rows and positions
            for m in found:
                if m.offset >= positions.get((m.topic, m.partition), -1):
                    collected.setdefault((m.topic, m.partition), []).append(m.offset)
                    positions[m.topic, m.partition] = m.offset + 1

    def run(name: str) -> None:
        reader = KafkaGroupReader(
            [bootstrap],
            "sharing",
            ["group-a", "group-b"],
            position=lambda topic, partition: positions.get((topic, partition), start.get((topic, partition))),
            on_revoked=revoked.extend,
            session_timeout_s=3,
        )
        while not stop.is_set():
            take(reader.poll(max_messages=10, wait_s=0.2))
            assignments[name] = reader.assignment()
        reader.close()

    first, second = (threading.Thread(target=run, args=(name,), daemon=True) for name in ("first", "second"))
    try:
        first.start()
        wait_until(lambda: sum(map(len, collected.values())) >= 400 - 12, "the first member")
        second.start()
        wait_until(lambda: len(assignments.get("second", ())) == 4 == len(assignments["first"]), "the second member")
        for topic in ("group-a", "group-b"):
            log.append_many(topic, [(b"k%d" % n, b"more", ()) for n in range(100)])
        wait_until(lambda: sum(map(len, collected.values())) >= 600 - 12, "both members")
    finally:
        stop.set()
        first.join()
        second.join()
    assert not assignments["first"] & assignments["second"]
    for member in assignments.values():  # topics of equal partition counts are assigned alike
        assert {p for topic, p in member if topic == "group-a"} == {p for topic, p in member if topic == "group-b"}
    assert revoked
    for (topic, partition), offsets in collected.items():
        assert offsets == list(range(3 if topic == "group-a" else 0, log.watermarks(topic, partition)[1]))
    log.close()


@pytest.mark.connected
def test_group_position_that_is_not_kept_is_an_error() -> None:
    bootstrap = shared_broker()
    log = KafkaLog([bootstrap])
    log.create("gone", 1)
    log.append("gone", b"k", b"v")
    reader = KafkaGroupReader([bootstrap], "late", ["gone"], position=lambda *_: 77, session_timeout_s=3)
    with pytest.raises(OffsetOutOfRange) as caught:
        reader.poll(wait_s=120)
    assert (caught.value.low, caught.value.high) == (0, 1)
    reader.close()
    log.close()


@pytest.mark.connected
def test_broker_killed_while_appending_loses_nothing_acknowledged_and_keeps_the_order() -> None:
    rng = random.Random(11)
    acknowledged: dict[tuple[int, int], bytes] = {}
    with lost_sockets(), own_broker() as broker:
        log = KafkaLog([broker.bootstrap], append_timeout_s=10.0, connect_timeout_s=10.0)
        log.create("t", 2)
        stop, sent, given_up = threading.Event(), [0], [0]

        def run() -> None:
            while not stop.is_set():
                batch = [(b"k%d" % (n % 50), b"%d" % n, ()) for n in range(sent[0], sent[0] + 200)]
                while not stop.is_set():
                    try:
                        positions = log.append_many("t", batch)
                    except LogUnavailable:  # everything again, in order, as the forwarder does
                        given_up[0] += 1
                        continue
                    acknowledged.update(zip(positions, [value for _, value, _ in batch], strict=True))
                    sent[0] += len(batch)
                    break

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            wait_until(lambda: sent[0] >= 200, "the first appends")
            time.sleep(rng.uniform(0.0, 0.5))
            broker.kill()
            wait_until(lambda: given_up[0] > 0, "an append that is given up")
            broker.start()
            before = sent[0]
            wait_until(lambda: sent[0] >= before + 400, "appends after the broker came back", progress=lambda: sent[0])
        finally:
            stop.set()
            thread.join()
        for partition in (0, 1):
            messages = read_all(log, "t", partition)
            for message in messages:
                value = acknowledged.get((partition, message.offset))
                assert value in (None, message.value)
            assert {o for p, o in acknowledged if p == partition} <= {m.offset for m in messages}
            first_seen = list(dict.fromkeys(int(m.value) for m in messages))
            assert first_seen == sorted(first_seen)
        log.close()


@pytest.mark.connected
def test_launcher_runs_a_broker_in_the_foreground_until_it_is_interrupted(tmp_path: Path) -> None:
    require(not missing_parts(), f"a Kafka broker: {missing_parts()}")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "pipelines.operations.kafka_server",
        "--port",
        str(port),
        "--folder",
        str(tmp_path / "k"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"127.0.0.1:{port}\n"
    log = KafkaLog([f"127.0.0.1:{port}"])
    log.create("t", 1)
    assert log.append("t", b"k", b"v") == (0, 0)
    log.close()
    with pytest.raises(KafkaServerError, match="taken"), kafka_server(tmp_path / "second", port=port):
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert f"DECISION_LOG=kafka://127.0.0.1:{port}" in errors
    with kafka_server(tmp_path / "k") as bootstrap:  # the same data, on another port
        log = KafkaLog([bootstrap])
        assert [m.value for m in log.read("t", 0, 0)] == [b"v"]
        log.close()


@pytest.mark.connected
def test_how_long_a_topic_keeps_a_message_is_what_the_broker_says() -> None:
    """Retention and the segment that a message may wait for, in seconds; for ever where nothing is deleted."""
    log = KafkaLog(shared_broker().split(","))
    topic = f"kept-{time.time_ns()}"
    log.create(topic, 1)
    week_s = 7 * 24 * 3600.0
    assert log.kept_for_s(topic) == 2 * week_s, "Kafka's defaults"
    log.close()
