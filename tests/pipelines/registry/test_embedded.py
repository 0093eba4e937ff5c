"""An embedded registry decides by a file of its own; MLflow's aliases mirror it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from pipelines.operations.waiting import wait_until
from pipelines.registry.mirror import mirror_apart
from pipelines.registry.registry import Registry
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import Tracking
from pipelines.settings import Settings
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


def charge_of(settings: Settings) -> Path:
    return settings.root / "mlflow.charge.db"


def everything(charge: Registry | ServedCharge) -> tuple[object, ...]:
    return charge.versions(LOOP), charge.aliases(LOOP), charge.verdicts(LOOP)


def test_the_mirror_shows_what_the_file_says(settings: Settings) -> None:
    assert everything(Registry(settings)) == everything(in_mlflow(settings))
    Registry(settings).set_alias(LOOP, "candidate", None, {})
    assert in_mlflow(settings).aliases(LOOP) == {"champion": "2"}


def test_what_an_mlflow_from_before_knows_is_taken_over(settings: Settings) -> None:
    before = everything(Registry(settings))
    charge_of(settings).unlink()
    registry = Registry(settings)
    assert everything(registry) == before
    assert registry.set_alias(LOOP, "champion", "1", {}, expected="2").number == 5


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
    with sqlite3.connect(charge_of(settings)) as connection:
        connection.execute("DELETE FROM versions WHERE version = 3")  # it is in MLflow alone
    connection.close()
    assert [version.version for version in registry.versions(LOOP)] == ["1", "2"]
    assert registry.register(LOOP, packed(a=b"3"), key="key-3") == "3"
    assert [version.version for version in registry.versions(LOOP)] == ["1", "2", "3"]


def test_a_verdict_and_its_move_are_there_together_or_not_at_all(settings: Settings) -> None:
    registry = Registry(settings)
    before = everything(registry)
    with sqlite3.connect(charge_of(settings)) as connection:
        connection.execute("CREATE TRIGGER cut BEFORE INSERT ON aliases BEGIN SELECT raise(ABORT, 'cut'); END")
    connection.close()
    with pytest.raises(Exception, match="cut"):
        registry.set_alias(LOOP, "champion", "1", {})
    assert everything(registry) == before
