"""What callers reach in a loop whose context has one feature that decides everything, and one that says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from decision.errors import SupportError
from pipelines.cli import app
from pipelines.evaluation.reach import reached, ways_of
from pipelines.registry.registry import Registry
from pipelines.training.train import train
from tests.worlds.synthetic import KINDS, LATER, new_loop, new_settings, open_parts, play, settle


def test_a_feature_that_decides_reaches_far_and_a_cap_holds_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "colours", '[features]\nsupplied_by_caller = ["kind"]\n[policy]\ncap = 1.0\n')
    log, lake = open_parts(settings)
    registry = Registry(settings)
    with pytest.raises(SupportError, match="no champion yet"):
        reached(lake, registry, loop)
    play(log, loop.name, 600)
    settle(log, lake, loop)
    log.close()
    plain = msgspec.structs.replace(loop, features=msgspec.structs.replace(loop.features, supplied_by_caller=()))
    versions = [train(lake, registry, one, seed=1, now=LATER).version for one in (plain, loop)]
    (without, with_cap) = (reached(lake, registry, loop, version=one, decisions=90) for one in versions)
    (feature,) = without.features
    assert (feature.features, feature.supplied, feature.tried) == (["kind"], True, 3)
    assert {one.action for one in feature.actions} == set(KINDS)
    assert all(one.most > 0.8 and one.least < 0.2 and one.uncapped is None for one in feature.actions)
    assert without.cap is None
    assert with_cap.cap == 1.0
    assert with_cap.together is not None
    # Without the kind one colour looks best and is shown nearly always: the others cannot be had any more.
    held = [one for one in with_cap.together.actions if one.most < 0.3]
    assert len(held) >= 2
    assert all(one.uncapped is not None and one.uncapped > 0.8 for one in held)
    asked = ["audit", "features", loop.name, "--version", versions[1], "--decisions", "20", "--home", str(tmp_path)]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    capfd.readouterr()
    CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(capfd.readouterr().out)["together"]["features"] == ["kind"]


def test_what_is_written_is_what_others_wrote() -> None:
    rows = [{"age": float(n), "x": 1.0} for n in range(101)] + [{"os=ios": 1.0}, {"os=ios": 1.0}, {"os=web": 1.0}]
    assert ways_of(rows, "age") == [{"age": float(n)} for n in (1, 25, 50, 75, 99)] + [{}]
    assert ways_of(rows, "os") == [{}, {"os=ios": 1.0}, {"os=web": 1.0}]
