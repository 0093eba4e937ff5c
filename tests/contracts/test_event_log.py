"""Every adapter keeps the contract of an event log, Kafka's against a real broker."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.log.open import SCHEMES, open_log
from pipelines.log.protocol import EventLog
from tests.contracts.event_log import CHECKS
from tests.kafka_broker import shared_broker

_numbers = itertools.count()


ADDRESSES: dict[str, Callable[[Path], str]] = {
    "local": lambda folder: f"local:{folder / 'log.db'}",
    "kafka": lambda folder: f"kafka://{shared_broker()}",
}


@pytest.fixture(
    params=[name if name == "local" else pytest.param(name, marks=pytest.mark.connected) for name in SCHEMES]
)
def opener(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[[], EventLog]]:
    url = ADDRESSES[request.param](tmp_path)
    caplog.set_level(logging.ERROR, logger="pipelines.log")
    opened: list[EventLog] = []

    def open_one() -> EventLog:
        opened.append(open_log(url))
        return opened[-1]

    yield open_one
    for log in opened:
        log.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_event_log(check: Callable[[Callable[[], EventLog], str], None], opener: Callable[[], EventLog]) -> None:
    check(opener, f"contract-{next(_numbers)}")
