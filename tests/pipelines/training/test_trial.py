"""A training that would leave something unservable leaves its reason instead, and a bad row leaves its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.batch import Batch, Interactions
from decision.errors import SupportError
from decision.oracles.logistic import NUMBERS_FILE, ORACLE, LogisticOracle
from pipelines.interactions.arrays import read_apart, to_interactions
from pipelines.nightly import nightly
from pipelines.registry.registry import Registry
from pipelines.training.train import train
from pipelines.training.trial import alarms_of
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play, settle


class Played:
    def __init__(self, home: Path) -> None:
        self.settings = new_settings(home)
        self.loop = new_loop(self.settings, "colours")
        self.log, self.lake = open_parts(self.settings)
        self.registry = Registry(self.settings)
        play(self.log, "colours", 300)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    played = Played(tmp_path_factory.mktemp("trial"))
    settle(played.log, played.lake, played.loop)
    yield played
    played.log.close()


def test_a_model_that_does_not_load_is_not_registered_and_the_night_ends(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LogisticOracle.save

    def broken(oracle: LogisticOracle) -> dict[str, bytes]:
        files = whole(oracle)
        return files | {NUMBERS_FILE: np.array([np.nan]).tobytes() + files[NUMBERS_FILE][8:]}

    monkeypatch.setattr(LogisticOracle, "save", broken)
    with pytest.raises(SupportError, match="cannot be served: FieldError"):
        train(played.lake, played.registry, played.loop, seed=1, now=LATER)
    run = nightly(played.settings, played.log, played.lake, played.registry, played.loop, now=LATER, run_id="broken")
    assert (run.status, run.verdict) == ("done", "skipped")
    assert "cannot be served" in (run.result("train") or {})["skipped"]
    assert played.registry.versions("colours") == []


def test_a_model_that_answers_otherwise_once_loaded_is_not_registered(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:

    def other(files: dict[str, bytes]) -> LogisticOracle:
        oracle = LogisticOracle.load(files)
        oracle._mean = oracle._mean + 0.01
        return oracle

    monkeypatch.setattr("decision.oracles.logistic.ORACLE", ORACLE._replace(load=other))
    with pytest.raises(SupportError, match="scores otherwise"):
        train(played.lake, played.registry, played.loop, seed=1, now=LATER)


def test_what_a_learner_cannot_learn_from_ends_the_training_and_not_the_night(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ArithmeticError("no end in sight")

    monkeypatch.setattr(LogisticOracle, "fit_chunks", failing)
    run = nightly(played.settings, played.log, played.lake, played.registry, played.loop, now=LATER, run_id="failing")
    assert run.status == "done"
    assert "no end in sight" in (run.result("train") or {})["skipped"]


def test_a_row_that_cannot_be_read_is_left_out_by_name(played: Played) -> None:
    """As if the lake held texts that no reader takes any more."""
    rows = played.lake.interactions("colours")
    assert read_apart(rows)[1] == {}
    context = rows["context"].to_pylist()
    context[7] = '{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}'
    at = rows.schema.get_field_index("context")
    broken = rows.set_column(at, rows.schema.field("context"), pa.array(context))
    broken = broken.set_column(
        broken.schema.get_field_index("features_version"), "features_version", pa.nulls(len(rows), pa.int32())
    )
    log, errors = read_apart(broken)
    assert list(errors) == [7]
    assert log.batch.contexts[7] == {}
    assert list(log.batch.contexts)[8:] == list(to_interactions(rows).batch.contexts)[8:]


def test_requests_of_25_kilobytes_train_on_and_the_alarm_names_what_found_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("decision.oracles.logistic.MAX_WEIGHTS", 2_400)  # a hundredth, and so the requests
    monkeypatch.setattr("decision.oracles.logistic.MAX_PAIRS", 100)
    n = 6
    contexts = [{f"c{i:03}": 1.0 + j for i in range(200 - j)} for j in range(n)]
    actions = [{f"a{i:02}": 1.0 for i in range(11)}] * n
    batch = Batch(contexts, actions, ["a"] * n, np.arange(n + 1))
    oracle = LogisticOracle()
    oracle.fit(Interactions(batch, np.arange(n), np.ones(n), np.arange(n) % 2.0, np.ones(n)))
    (alarm,) = alarms_of(oracle, {})
    assert alarm.startswith("10 context features found no room and were left out, the most frequent of them c190, ")
    assert alarms_of(oracle, {"e7": "context.x: must be text"})[0].startswith("1 rows could not be read")
    assert msgspec.json.decode(msgspec.json.encode(alarm)) == alarm
