"""What one machine erases, the services of the others empty in their own spools; nothing kept says of whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.retention.erasures import Erasures, announce
from pipelines.state.state import State

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(f"sqlite:///{tmp_path / 'state.db'}") as opened:
        yield opened


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[list[LocalLog]]:
    """Two machines' spools; ``ann-1`` was asked at both, ``bob-1`` at the second."""
    made = [LocalLog(tmp_path / f"{name}.db") for name in ("a", "b")]
    for log in made:
        for topic in (DECISIONS, OUTCOMES):
            log.create(topic, 2)
            log.append(topic, b"ann-1", b"of ann")
    made[1].append(DECISIONS, b"bob-1", b"of bob")
    yield made
    for log in made:
        log.close()


def values(log: LocalLog) -> dict[bytes, bytes]:
    found = {key: [*log.find(DECISIONS, key), *log.find(OUTCOMES, key)] for key in (b"ann-1", b"bob-1")}
    return {key: message.value for key, messages in found.items() for message in messages}


def test_every_spool_forgets_the_subject_and_nobody_else(state: State, spools: list[LocalLog]) -> None:
    announce(state, [b"ann-1", b"ann-never-asked"], NOW, by="ann")
    assert [Erasures(state, log).follow(NOW) for log in spools] == [2, 2]
    assert values(spools[0]) == {b"ann-1": b""}
    assert values(spools[1]) == {b"ann-1": b"", b"bob-1": b"of bob"}
    assert all(b"ann" not in entry.value for entry in state.entries("erasure/").values())


def test_what_was_carried_out_is_not_looked_for_again(state: State, spools: list[LocalLog]) -> None:
    announce(state, [b"ann-1"], NOW, by="ann")
    told: list[bytes] = []
    erasures = Erasures(state, spools[1], told.extend)
    assert erasures.follow(NOW) == 2
    assert erasures.follow(NOW) == 0
    assert set(told) == {b"ann-1"}, "what else holds it forgets it, too"
    announce(state, [b"bob-1"], NOW, by="ann")
    assert erasures.follow(NOW) == 1


def test_a_machine_that_was_away_for_days_still_hears_of_it(state: State, spools: list[LocalLog]) -> None:
    announce(state, [b"ann-1"], NOW, by="ann")
    assert Erasures(state, spools[0]).follow(NOW + timedelta(days=7)) == 2
    assert Erasures(state, spools[1]).follow(NOW + timedelta(days=9)) == 0, "no spool keeps anything for so long"
