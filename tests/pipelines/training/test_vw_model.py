"""A VW model file is a loop's first champion, and nights go on learning from it where the loop asks for that."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.artifact import MANIFEST_FILE, unpack
from decision.batch import Interactions
from decision.errors import FieldError
from decision.options import DataRules
from decision.oracles.adf.oracle import AdfOracle
from decision.oracles.kind import OracleSettings
from pipelines.registry.registry import Registry
from pipelines.settings import load_settings, parse_loop
from pipelines.training.variants import Configuration
from pipelines.training.variants import learned as learned_by
from pipelines.training.vw_model import put_in_charge, register_vw_model
from tests.pipelines import test_cli
from tests.worlds.synthetic import new_loop, new_settings
from tests.worlds.vw_models import PERSONALIZER, asked, learned, personalizer_line

run = test_cli.run
NOW = datetime(2026, 11, 5, tzinfo=UTC)
LINES = [personalizer_line(random.Random(seed)) for seed in range(200)]


def test_a_file_is_one_version_that_draws_by_its_own_epsilon_and_takes_charge_once(tmp_path: Path) -> None:
    registry = Registry(new_settings(tmp_path))
    loop = parse_loop("[policy]\nepsilon = 0.3\n", "news", {})
    model = learned(LINES, PERSONALIZER, tmp_path)
    made = register_vw_model(registry, loop, model, name="az.vw", now=NOW)
    assert (made.bits, made.epsilon) == (18, 0.2)
    assert register_vw_model(registry, loop, model, name="copy.vw", now=NOW).version == made.version
    policy, manifest = unpack(registry.files("news", made.version))
    assert manifest.training["sha256"] == made.sha256
    pmf = policy.pmf(asked(LINES[0]))
    assert sorted(pmf.round(9).tolist()) == [round(0.2 / 3, 9)] * 2 + [round(0.8 + 0.2 / 3, 9)]
    told = {"by": "ann", "now": NOW, "reason": "brought"}
    assert put_in_charge(registry, "news", made.version, **told)
    assert not put_in_charge(registry, "news", made.version, **told)
    assert registry.aliases("news") == {"champion": made.version}

    silent = register_vw_model(registry, loop, learned(LINES, "--cb_adf", tmp_path), name="adf.vw", now=NOW)
    assert silent.epsilon == 0.3  # the loop's: the file says nothing of drawing
    greedy = register_vw_model(
        registry, loop, learned(LINES, "--cb_explore_adf --epsilon 0", tmp_path), name="greedy.vw", now=NOW
    )
    assert unpack(registry.files("news", greedy.version))[0].pmf(asked(LINES[0])).min() > 0.01


def test_a_warm_start_goes_on_from_the_file_on_the_whole_decisions(tmp_path: Path) -> None:
    registry = Registry(new_settings(tmp_path))
    model = learned(LINES, PERSONALIZER, tmp_path)
    made = register_vw_model(registry, parse_loop("", "news", {}), model, name="az.vw", now=NOW)
    files = {n: data for n, data in registry.files("news", made.version).items() if n != MANIFEST_FILE}
    batch = asked(LINES[0])
    uniform = np.full(3, 1 / 3)
    log = Interactions(batch, np.array([1]), uniform[:1], np.ones(1), uniform)
    for action_ids in (False, True):
        settings = Configuration(
            oracle=OracleSettings(kind="vw"), rules=DataRules(warm_start=True), action_ids=action_ids
        )
        kind, oracle, _ = learned_by([(log, np.zeros(1, np.int64))], settings, [("vw", files)])
        assert kind == "vw"
        alone = AdfOracle(model)
        alone.fit(log)
        assert oracle.save() == alone.save()
    cold = msgspec.structs.replace(settings, rules=DataRules())
    _, oracle, _ = learned_by([(log, np.zeros(1, np.int64))], cold, [("vw", files)])
    assert not isinstance(oracle, AdfOracle)


def test_a_file_that_predicts_no_numbers_becomes_no_version(tmp_path: Path) -> None:
    registry = Registry(new_settings(tmp_path))
    model = bytearray(learned(LINES, "--cb_explore_adf", tmp_path))
    place = model.index(b"m\x00\x00\x80\xbf") + 1  # the smallest cost, to which VW cuts
    model[place : place + 8] = np.array([np.nan, np.nan], "<f4").tobytes()
    with pytest.raises(FieldError, match=r"az\.vw"):
        register_vw_model(registry, parse_loop("", "news", {}), bytes(model), name="az.vw", now=NOW)
    assert registry.versions("news") == []


def test_the_command_makes_a_version_and_puts_it_in_charge_when_asked_to(run: Any, tmp_path: Path) -> None:
    new_loop(load_settings({}, home=str(tmp_path / "home")), "news", "")
    path = tmp_path / "az.vw"
    path.write_bytes(learned(LINES, PERSONALIZER, tmp_path))
    first = run("import", "vw-model", str(path), "--into", "news", "--json").result
    assert (first["version"], first["in_charge"], first["epsilon"]) == ("1", False, 0.2)
    again = run("import", "vw-model", str(path), "--into", "news", "--in-charge", "--json").result
    assert (again["version"], again["in_charge"]) == ("1", True)
    path.write_bytes(learned(LINES, "--cb_explore_adf --bag 3", tmp_path))
    refused = run("import", "vw-model", str(path), "--into", "news")
    assert refused.status == 2
    assert "az.vw: --bag" in refused.err
