"""Records that come late, early, out of order, by a clock that jumps, or from newer code: each is booked once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from decision.records import SCHEMA_VERSION, decode_decision, encode
from pipelines.ingestion.ingest import ingest
from pipelines.ingestion.parse import NewerError
from pipelines.interactions.counters import Counters, counters
from pipelines.interactions.join import join
from pipelines.log.protocol import DECISIONS, OUTCOMES
from tests.faults.site import LOOP, Site

HOURS_48 = 48 * 3600.0
PENDING = 20_000


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "home")


def test_a_clock_that_jumps_ahead_and_back_loses_and_doubles_nothing(site: Site) -> None:
    site.start()
    for jump in (0.0, HOURS_48, -HOURS_48, -HOURS_48, HOURS_48):
        site.now += jump
        assert set(site.live(30, at_once=10)) == {200, 202}
    site.stop()
    assert site.night().status == "done"
    site.now += HOURS_48  # so that no window is open
    site.check()


def test_a_decision_that_is_repeated_after_the_clock_went_back_is_answered_as_before(site: Site) -> None:
    site.start()
    question = {"event_id": "again", "context": {}, "actions": [{"id": "a"}, {"id": "b"}]}
    first = site.ask("POST", f"/v1/loops/{LOOP}/decide", question).json()
    site.now -= HOURS_48
    assert site.ask("POST", f"/v1/loops/{LOOP}/decide", question).json() == first
    site.stop()


def test_outcomes_that_come_before_their_decisions_count(site: Site) -> None:
    site.start()
    assert set(site.live(40, at_once=10, reports_first=True)) == {200, 202}
    site.stop()
    site.check()
    with site.parts() as parts:
        counted = counters(parts.lake, parts.loop(LOOP), site.later)
    assert (counted.joined, counted.late_outcomes, counted.orphan_outcomes) == (40, 0, 0)


def test_outcomes_that_are_ingested_before_their_decisions_count(site: Site) -> None:
    """The log gives the outcomes first, as one does whose partitions of decisions were away."""
    site.start()
    site.live(40, at_once=10)
    site.stop()
    with site.parts() as parts:
        for topic in (OUTCOMES, DECISIONS):
            ingest(_Only(parts.log, topic), parts.lake, loops=parts.loops)  # type: ignore[arg-type]
    site.check()


class _Only:
    """A log of which one topic alone has messages."""

    def __init__(self, log: object, topic: str) -> None:
        self._log, self._topic = log, topic

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        low, high = self._log.watermarks(topic, partition)  # type: ignore[attr-defined]
        return (low, high) if topic == self._topic else (low, low)

    def read(self, topic: str, *given: object, **more: object) -> list[object]:
        return self._log.read(topic, *given, **more) if topic == self._topic else []  # type: ignore[attr-defined]


def test_many_pending_decisions_are_counted_and_settled_once(site: Site) -> None:
    site.start()
    site.live(PENDING, at_once=1000)
    site.stop()

    def counted(now: object) -> Counters:
        with site.parts() as parts:
            ingest(parts.log, parts.lake, loops=parts.loops)
            join(parts.lake, parts.loop(LOOP), now)  # type: ignore[arg-type]
            return counters(parts.lake, parts.loop(LOOP), now)  # type: ignore[arg-type]

    first = counted(site.later.replace(year=2020))
    assert (first.decided, first.pending, first.mature, first.balanced) == (PENDING, PENDING, 0, True)
    last = counted(site.later)
    assert (last.decided, last.pending, last.balanced) == (PENDING, 0, True)
    site.check()


def test_a_record_of_newer_code_is_waited_for_and_not_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.start()
    site.live(20, at_once=10)
    site.stop()
    with site.parts() as parts:
        place = next(p for p in range(2) if parts.log.watermarks(DECISIONS, p)[1])
        record = decode_decision(parts.log.read(DECISIONS, place, 0, max_messages=1)[0].value)
        newer = msgspec.structs.replace(record, event_id="newer", schema_version=SCHEMA_VERSION + 1)
        parts.log.append(DECISIONS, b"newer", encode(newer))
    for _ in range(2):
        with site.parts() as parts, pytest.raises(NewerError, match="bring ingestion and nights up to date"):
            ingest(parts.log, parts.lake, loops=parts.loops)
        with pytest.raises(NewerError):
            site.night()
    with site.parts() as parts:
        assert parts.lake.dead_letters().num_rows == 0
    # the release that knows the record
    for module in ("decision.records", "pipelines.ingestion.parse"):
        monkeypatch.setattr(f"{module}.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setitem(__import__("decision.records").records._DECISION_UPGRADES, SCHEMA_VERSION, dict)
    monkeypatch.setitem(__import__("decision.records").records._OUTCOME_UPGRADES, SCHEMA_VERSION, dict)
    site.decided["newer"] = newer.action_ids[newer.action_index]
    site.check()


@pytest.mark.parametrize("version", [0, -1, SCHEMA_VERSION + 11, 99, 1 << 70])
def test_a_number_that_is_no_release_is_a_dead_letter_and_stops_nothing(site: Site, version: int) -> None:
    site.start()
    site.live(10, at_once=10)
    site.stop()
    with site.parts() as parts:
        parts.log.append(DECISIONS, b"odd", b'{"schema_version":%d,"event_id":"odd"}' % version)
    site.check()
    with site.parts() as parts:
        assert parts.lake.dead_letters()["field"].to_pylist() == ["schema_version"]
