"""Traffic that remembers what was acknowledged, and the log's account of it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from decision.draw import draw
from decision.records import decode_decision
from pipelines.log.sqlite.log import LocalLog

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
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
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


def booked(spool: Path) -> dict[str, Counter[str]]:
    """Return how often each event id stands in each topic of a spool; every draw is repeated on the way."""
    counts: dict[str, Counter[str]] = {}
    log = LocalLog(spool)
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
    return counts


def check_booked_once(loads: Sequence[Load], spool: Path) -> int:
    """End `loads`, check that all they were told is in the spool once, and return how many decisions that is."""
    for load in loads:
        load.stop.set()
        load.join()
    counts = booked(spool)
    decided = [event_id for load in loads for event_id in load.decided]
    reported = [event_id for load in loads for event_id in load.reported]
    assert [e for e in decided if counts["decisions"][e] != 1] == []
    assert [e for e in reported if counts["outcomes"][e] != 1] == []
    assert max(counts["decisions"].values()) == 1
    return len(decided)
