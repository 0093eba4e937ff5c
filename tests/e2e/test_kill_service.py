"""The service is killed under load, twenty times: what it acknowledged is on disk, once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from decision.draw import draw
from decision.records import decode_decision
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings

KILLS = 20
BODY = {"context": {"hour": 3}, "actions": [{"id": "a"}, {"id": "b", "features": {"x": 1}}]}


class Load(threading.Thread):
    """Sends decisions and outcomes on one connection until told to stop; remembers what was acknowledged."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True, name=name)
        self.port = port
        self.stop = threading.Event()
        self.decided: list[str] = []
        self.reported: list[str] = []
        self.number = 0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.stop.is_set():
            self.number += 1
            event_id = f"{self.name}-{self.number}"
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                if self._post(connection, "decide", BODY | {"event_id": event_id}) == 200:
                    self.decided.append(event_id)
                if self._post(connection, "outcomes", {"event_id": event_id, "value": 1}) == 202:
                    self.reported.append(event_id)
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.02)
        if connection is not None:
            connection.close()

    @staticmethod
    def _post(connection: http.client.HTTPConnection, what: str, body: dict) -> int:
        connection.request("POST", f"/v1/loops/news/{what}", json.dumps(body))
        response = connection.getresponse()
        response.read()
        return response.status


def kill_all(home: Path) -> None:
    """Kill -9 every process that serves `home`: the supervisor and its workers, which have sessions of their own."""
    wanted = f"DECISION_HOME={home}".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            if pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.connected
def test_service_killed_at_twenty_random_moments_loses_and_repeats_nothing_it_acknowledged(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), port=free_port())
    loop = settings.loop_path("news")
    loop.parent.mkdir(parents=True)
    loop.write_text("")
    rng = random.Random(7)
    loads = [Load(settings.port, f"l{i}") for i in range(4)]
    for load in loads:
        load.start()
    output = tmp_path / "service.log"
    for _ in range(KILLS):
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            time.sleep(rng.uniform(0.05, 0.6))
            kill_all(tmp_path)
            running.wait()
    for load in loads:
        load.stop.set()
        load.join()
    log = LocalLog(settings.spool_path)
    counts: dict[str, Counter[str]] = {}
    for topic in ("decisions", "outcomes"):
        counts[topic] = Counter()
        for partition in range(log.partitions(topic)):
            offset = log.watermarks(topic, partition)[0]
            while messages := log.read(topic, partition, offset, max_messages=1000):
                counts[topic].update(message.key.decode() for message in messages)
                offset = messages[-1].offset + 1
                for message in messages if topic == "decisions" else ():
                    record = decode_decision(message.value)
                    assert draw(record.pmf, record.seed) == record.action_index
    log.close()
    decided = [event_id for load in loads for event_id in load.decided]
    reported = [event_id for load in loads for event_id in load.reported]
    assert len(decided) > KILLS, "the load never got through; the test proves nothing"
    assert [e for e in decided if counts["decisions"][e] != 1] == []
    assert [e for e in reported if counts["outcomes"][e] != 1] == []
    assert max(counts["decisions"].values()) == 1
