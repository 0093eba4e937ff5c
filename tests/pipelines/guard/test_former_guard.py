"""A guard that an earlier release kept in files of the home folder goes on where it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pipelines.guard.operate import operate
from pipelines.guard.replay import replay
from pipelines.guard.state import GuardState
from pipelines.guard.store import GuardStore
from pipelines.state.state import State
from serving.start import open_core
from tests.worlds.rollout import GuardedLoop, published_bytes

FORMER = """
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE attempts (number INTEGER PRIMARY KEY, candidate TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE folds (number INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, until BLOB NOT NULL);
CREATE TABLE moves (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[GuardedLoop]:
    """A loop whose rollout is under way, with everything of its guard in the files of an earlier release."""
    made = GuardedLoop(tmp_path)
    made.point("candidate", "2")
    state = made.step()
    for _ in range(2):
        made.serve(state, 150, 0.3, 0.2)
        state = made.step()
    _downgrade(made)
    yield made
    made.close()


def _downgrade(shop: GuardedLoop) -> None:
    store, folder = GuardStore(shop.settings, "shop"), shop.settings.root / "guard"
    folder.mkdir()
    kept, encode = store.load(), msgspec.msgpack.encode
    (folder / "shop.json").write_bytes(published_bytes(shop.settings))
    with closing(sqlite3.connect(folder / "shop.db", isolation_level=None)) as file:
        file.executescript(FORMER)
        file.execute("INSERT INTO state VALUES (1, ?, ?)", (kept.epoch, encode(kept)))
        for number in range(1, kept.attempt_number + 1):
            began, folds = store.attempt(number)
            file.execute("INSERT INTO attempts VALUES (?, ?, ?)", (number, began.candidate_version, encode(began)))
            rows = [(number, encode(until)) for until in folds]
            file.executemany("INSERT INTO folds (attempt, until) VALUES (?, ?)", rows)
        file.executemany("INSERT INTO moves (body) VALUES (?)", [(encode(move),) for move in store.moves()])
    with State(shop.settings.state_url) as state:
        ours = state.entries("loop/shop/guard") | state.entries("loop/shop/snapshot") | state.entries("guard/shop/")
        state.put({key: (entry.version, None) for key, entry in ours.items()})


def told(shop: GuardedLoop) -> tuple[GuardState, list[str], bool]:
    store = GuardStore(shop.settings, "shop")
    return store.load(), [move.kind for move in store.moves()], replay(shop.settings, shop.loop, shop.world.lake).same


def test_evidence_moves_and_folds_go_on(shop: GuardedLoop) -> None:
    state, kinds, same = told(shop)
    assert (state.candidate_version, state.attempt_number, same) == ("2", 1, True)
    assert sum(part.sums.decisions for part in state.parts.values() if part.sums) == 300
    assert kinds[0] == "started"
    shop.serve(state, 100, 0.3, 0.2)
    after = shop.step()
    assert after.epoch > state.epoch
    assert sum(part.sums.decisions for part in after.parts.values() if part.sums) == 400
    assert told(shop)[2]


def test_a_service_that_begins_first_serves_what_was_published(shop: GuardedLoop) -> None:
    core = open_core(shop.settings)
    try:
        guard = core.snapshot("shop").guard
        assert guard is not None
        assert guard.candidate_version == "2"
    finally:
        core.close()
    assert told(shop)[2]


def test_an_operator_stops_it_before_anything_else_ran(shop: GuardedLoop) -> None:
    state = operate(shop.settings, shop.loop, now=shop.now, by="ann", stop=True)
    assert (state.stopped, state.weight) == (True, 0.0)
    assert msgspec.json.decode(published_bytes(shop.settings))["weight"] == 0.0
    assert told(shop)[1][-1] == "stopped"
