"""State decides who is in charge; MLflow's aliases mirror it, and what was known before State is taken over."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pipelines.operations.waiting import wait_until
from pipelines.registry.mirror import mirror_apart
from pipelines.registry.registry import Registry
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import Tracking
from pipelines.settings import Settings
from pipelines.state.state import State
from tests.contracts.registry import packed
from tests.worlds.synthetic import new_settings

LOOP = "news"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return an installation whose loop has three versions, the second in charge."""
    settings = new_settings(tmp_path)
    registry = Registry(settings)
    for number in range(1, 4):
        registry.register(LOOP, packed(a=b"%d" % number), tags={"kind": "policy"}, key=f"key-{number}")
    for version in ("1", "2"):
        registry.set_alias(LOOP, "champion", version, {"verdict": "promoted", "reasons": ["better"]})
    registry.set_alias(LOOP, "candidate", "3", {})
    registry.refuse(LOOP, "3", {"verdict": "refused", "reasons": ["worse"]})
    return settings


def in_mlflow(settings: Settings) -> ServedCharge:
    return ServedCharge(Tracking(settings))


def state_of(settings: Settings) -> Path:
    return settings.root / "state.db"


def former(settings: Settings, *, mirrored: int) -> None:
    """Write the file in which an earlier release kept who is in charge, and take State away."""
    registry = Registry(settings)
    rows = [(LOOP, int(entry.version), msgspec.json.encode(entry)) for entry in registry.versions(LOOP)]
    told = [(LOOP, e.number, msgspec.json.encode(e), e.number <= mirrored) for e in registry.verdicts(LOOP)]
    with closing(sqlite3.connect(settings.root / "mlflow.charge.db", isolation_level=None)) as file:
        file.execute("CREATE TABLE versions (loop TEXT, version INTEGER, body BLOB, PRIMARY KEY (loop, version))")
        file.execute("CREATE TABLE aliases (loop TEXT, alias TEXT, version TEXT, PRIMARY KEY (loop, alias))")
        file.execute("CREATE TABLE verdicts (loop TEXT, number INTEGER, body BLOB, mirrored INTEGER)")
        file.executemany("INSERT INTO versions VALUES (?, ?, ?)", rows)
        file.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?)", told)
        file.executemany(
            "INSERT INTO aliases VALUES (?, ?, ?)", [(LOOP, *entry) for entry in registry.aliases(LOOP).items()]
        )
    state_of(settings).unlink()


def everything(charge: Registry | ServedCharge) -> tuple[object, ...]:
    return charge.versions(LOOP), charge.aliases(LOOP), charge.verdicts(LOOP)


def test_the_mirror_shows_what_the_file_says(settings: Settings) -> None:
    assert everything(Registry(settings)) == everything(in_mlflow(settings))
    Registry(settings).set_alias(LOOP, "candidate", None, {})
    assert in_mlflow(settings).aliases(LOOP) == {"champion": "2"}


def test_what_an_mlflow_from_before_knows_is_taken_over(settings: Settings) -> None:
    before = everything(Registry(settings))
    state_of(settings).unlink()
    registry = Registry(settings)
    assert everything(registry) == before
    assert registry.set_alias(LOOP, "champion", "1", {}, expected="2").number == 5


def test_what_the_file_of_an_earlier_release_says_is_taken_over_with_what_mlflow_was_not_told(
    settings: Settings,
) -> None:
    Registry(settings).set_alias(LOOP, "champion", "3", {"verdict": "promoted"}, mirror=False)
    before = everything(Registry(settings))
    former(settings, mirrored=4)
    assert in_mlflow(settings).aliases(LOOP)["champion"] == "2"
    registry = Registry(settings)
    assert everything(registry) == before
    registry.mirror()
    assert everything(registry) == everything(in_mlflow(settings))


def test_what_is_taken_over_by_several_at_once_is_there_once(settings: Settings) -> None:
    before = everything(Registry(settings))
    former(settings, mirrored=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: everything(Registry(settings)), range(4)))
    assert found == [before] * 4


def test_a_move_that_does_not_wait_for_mlflow_counts_at_once_and_is_mirrored_by_the_next(settings: Settings) -> None:
    registry = Registry(settings)
    registry.set_alias(LOOP, "champion", "1", {"verdict": "rolled_back"}, mirror=False)
    assert Registry(settings).aliases(LOOP)["champion"] == "1"
    assert in_mlflow(settings).aliases(LOOP)["champion"] == "2"
    registry.refuse(LOOP, "3", {})
    assert everything(registry) == everything(in_mlflow(settings))


def test_a_process_of_its_own_mirrors_the_moves(settings: Settings) -> None:
    Registry(settings).set_alias(LOOP, "champion", None, {"verdict": "rolled_back"}, mirror=False)
    child = mirror_apart(settings)
    wait_until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the mirror")
    assert everything(Registry(settings)) == everything(in_mlflow(settings))


def test_without_mlflow_a_version_still_loses_its_place(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    (settings.root / "mlflow.db").write_text("no database")
    registry = Registry(settings)
    registry.set_alias(LOOP, "champion", "1", {"verdict": "rolled_back"})
    assert registry.aliases(LOOP)["champion"] == "1"
    assert registry.files(LOOP, "1") == packed(a=b"1")
    assert "MLflow does not show the last moves yet" in caplog.text


def test_a_registration_that_a_crash_cut_short_is_found_by_its_key(settings: Settings) -> None:
    registry = Registry(settings)
    with State(settings.state_url) as state:
        state.put({f"registered/{LOOP}/000000003": (1, None)})  # it is in MLflow alone
    assert [version.version for version in registry.versions(LOOP)] == ["1", "2"]
    assert registry.register(LOOP, packed(a=b"3"), key="key-3") == "3"
    assert [version.version for version in registry.versions(LOOP)] == ["1", "2", "3"]


def test_a_verdict_and_its_move_are_there_together_or_not_at_all(settings: Settings) -> None:
    registry = Registry(settings)
    before = everything(registry)
    with closing(sqlite3.connect(state_of(settings), isolation_level=None)) as file:
        file.execute(
            "CREATE TRIGGER cut BEFORE INSERT ON state WHEN NEW.key LIKE 'verdict/%' "
            "BEGIN SELECT raise(ABORT, 'cut'); END"
        )
    with pytest.raises(Exception, match="cut"):
        registry.set_alias(LOOP, "champion", "1", {})
    assert everything(registry) == before
