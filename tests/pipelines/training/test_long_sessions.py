"""A long log, in short: its readers share one installation, and hold no more users than are learned from."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from contextlib import closing

import pytest

from pipelines.lake.lake import Lake
from pipelines.settings import Settings
from tests.parts import require
from tests.worlds.logged import append
from tests.worlds.synthetic import new_loop, new_settings

require(importlib.util.find_spec("torch"), "torch is not installed")

from pipelines.training.session_log import log_of  # noqa: E402 it imports torch
from tests.soak.long_sessions import LOOP, child, tables  # noqa: E402

DECISIONS, USERS = 600, 60


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = new_settings(tmp_path_factory.mktemp("long"))
    append(Lake(settings.lake_url), tables(DECISIONS, USERS))
    return settings


def test_a_reader_of_the_log_leaves_the_registry_as_the_one_before_left_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(settings.root / "mlflow.db")) as registry:
        registry.execute("create table left_by_the_one_before (number)")
    child(settings.root, "", 1.0)
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["method"], row["cpu"] > 0.0, row["beside_mb"] >= 0.0) == ("trajectories alone", True, True)
    with closing(sqlite3.connect(settings.root / "mlflow.db")) as registry:
        assert registry.execute("select count(*) from left_by_the_one_before").fetchone() == (0,)


def test_of_a_long_log_as_many_users_as_are_learned_from_are_kept_with_all_their_decisions(settings: Settings) -> None:
    loop = new_loop(settings, LOOP, "[session]\nusers = 30\n")
    lake = Lake(settings.lake_url)
    found = log_of(lake, loop, lake.version("interactions"))
    assert len(found) == 30
    assert found.inside.sum(axis=1).tolist() == [DECISIONS // USERS] * 30
