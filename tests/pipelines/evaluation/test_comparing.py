"""Two versions side by side: what differs, a lift that holds the truth, where they part; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from decision.artifact import unpack
from pipelines.cli import app
from pipelines.evaluation.comparing import Comparison, compare_versions
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import MissingError
from pipelines.settings import LoopSettings, Settings, parse_loop
from pipelines.training.train import train
from tests.worlds.synthetic import KINDS, LATER, new_loop, new_settings, open_parts, play, settle, value_of

NAME = "colours"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("comparing"))


@pytest.fixture(scope="module")
def loop(settings: Settings) -> LoopSettings:
    return new_loop(settings, NAME, '[policy]\noracle = "linear"\n')


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture(scope="module")
def lake(settings: Settings, loop: LoopSettings, registry: Registry) -> Lake:
    """A lake from which version 1 learned to draw alike, and version 2, later and from more, to draw well."""
    log, lake = open_parts(settings)
    uniform = parse_loop('[policy]\noracle = "linear"\nexploration = "uniform"\n', NAME, {})
    play(log, NAME, 400)
    settle(log, lake, loop)
    assert train(lake, registry, uniform, seed=1, now=LATER).version == "1"
    play(log, NAME, 1_400, first=400)
    settle(log, lake, loop)
    assert train(lake, registry, loop, seed=1, now=LATER).version == "2"
    log.close()
    return lake


@pytest.fixture(scope="module")
def found(lake: Lake, registry: Registry, loop: LoopSettings) -> Comparison:
    return compare_versions(lake, registry, loop, "1", "2")


def test_what_they_learned_from_and_which_settings_differ_is_told(found: Comparison) -> None:
    assert [one.version for one in found.trained] == ["1", "2"]
    assert [one.rows for one in found.trained] == [400, 1_800]
    differ = {setting.name: (setting.first, setting.second) for setting in found.settings}
    assert differ["training.exploration"][0] == "uniform"
    assert "seed" not in differ
    assert "oracle" not in differ


def test_the_paired_lift_holds_the_true_one(found: Comparison, registry: Registry) -> None:
    """One interval of 95% on fixed data."""
    first, second = (value_of(unpack(registry.files(NAME, version))[0]) for version in ("1", "2"))
    assert second - first > 0.2
    assert found.lift.low <= second - first <= found.lift.high
    assert found.lift.low > 0.0
    apart = [value.high - value.low for value in found.values]
    assert found.lift.high - found.lift.low < sum(apart)


def test_where_they_part_is_told_by_segment_and_action(found: Comparison) -> None:
    assert {part.of for part in found.segments} == {f"kind={kind}" for kind in KINDS}
    assert sum(part.rows for part in found.segments) == found.rows
    assert all(part.lift.low > 0.0 for part in found.segments)
    assert 0.3 < found.apart < 0.7
    for share in found.actions:
        assert share.first == pytest.approx(1 / 3)


def test_a_version_is_no_better_than_itself(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    same = compare_versions(lake, registry, loop, "2", "2")
    assert (same.settings, same.actions, same.apart, same.same_choice) == ([], [], 0.0, 1.0)
    assert (same.lift.value, same.lift.low, same.lift.high) == (0.0, 0.0, 0.0)


def test_turned_round_it_says_the_opposite_and_writes_nothing(
    found: Comparison, lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    before = registry.metrics(NAME, "1"), registry.verdicts(NAME)
    other = compare_versions(lake, registry, loop, "2", "1")
    assert other.lift.value == pytest.approx(-found.lift.value)
    assert (registry.metrics(NAME, "1"), registry.verdicts(NAME)) == before


def test_an_unknown_version_is_named(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    with pytest.raises(MissingError, match="version 9"):
        compare_versions(lake, registry, loop, "1", "9")


def test_the_command_tells_people_and_scripts(
    lake: Lake, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "1", "2", "--loop", NAME, "--home", str(Path(settings.root))]
    assert CliRunner().invoke(app, [*arguments, "--json"]).exit_code == 0
    told = json.loads(capfd.readouterr().out)
    assert told["lift"]["low"] > 0.0
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    text = shown.stdout + capfd.readouterr().out
    assert "lift of 2 over 1: +" in text
    assert "kind=red" in text


def test_a_run_of_mlflow_says_in_words_what_it_is_and_has_a_card(lake: Lake, registry: Registry) -> None:
    said, card = registry.said(NAME, "2")
    assert said.startswith("A policy for colours: linear under ")
    assert "of 1,800 decisions" in said
    assert said.endswith("Not evaluated yet.")
    assert card.startswith("# colours\n")
    assert "## What to mind" in card
