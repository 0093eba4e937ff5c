"""A program changes some of a loop's settings: the others stay, and two programs do not undo each other's."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.operations.apply import applied, apply
from pipelines.operations.change import change, changed_at
from pipelines.settings import Settings, load_loop, load_settings

OWN = """
mode = "apprentice"
hosts = ["news.example.com"]
[reward]
window_s = 90
maximum = 2.0
[training]
variants = [{decay = 0.5}, {oracle = "linear", bag = 3}]
"""


@pytest.fixture(params=["file", "state"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "state":
        shared = load_settings({}, home=str(tmp_path), state=f"sqlite:///{tmp_path}/shared.db")
        apply(shared, OWN, "news", by="a test", environ={})
        return shared
    path = tmp_path / "loops" / "news" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    return load_settings({}, home=str(tmp_path))


def put(settings: Settings, values: dict[str, Any], environ: dict[str, str] | None = None) -> Any:
    return change(settings, "news", values, by="a test", environ=environ or {})


def test_what_is_not_named_stays_as_it_was(settings: Settings) -> None:
    before = load_loop(settings, "news", {})
    after = put(settings, {"reward.window_s": 30.0, "mode": "online"})
    assert after == load_loop(settings, "news", {})
    assert (after.reward.window_s, after.mode) == (30.0, "online")
    assert put(settings, {"reward.window_s": 90.0, "mode": "apprentice"}) == before


def test_values_that_stand_already_write_nothing(settings: Settings) -> None:
    at = changed_at(settings, "news")
    put(settings, {"reward.maximum": 2.0})
    assert changed_at(settings, "news") == at


@pytest.mark.parametrize("values", [{"reward.window": 3}, {"reward.window_s": -1}, {"reward.default": 3.0}])
def test_what_does_not_fit_changes_nothing(settings: Settings, values: dict[str, Any]) -> None:
    before = load_loop(settings, "news", {})
    with pytest.raises(FieldError, match="reward"):
        put(settings, values)
    assert load_loop(settings, "news", {}) == before


def test_what_the_environment_sets_is_not_changed_behind_its_back(settings: Settings) -> None:
    variables = {"DECISION_LOOP_NEWS__REWARD__WINDOW_S": "7"}
    with pytest.raises(FieldError, match=r"WINDOW_S|window_s"):
        put(settings, {"reward.window_s": 8.0}, variables)
    assert load_loop(settings, "news", {}).reward.window_s == 90.0


def test_a_loop_that_is_not_there_is_told_of(settings: Settings) -> None:
    with pytest.raises(FieldError, match="loop"):
        change(settings, "nothing", {"mode": "online"}, by="a test", environ={})


def test_state_knows_who_changed_what(tmp_path: Path) -> None:
    shared = load_settings({}, home=str(tmp_path), state=f"sqlite:///{tmp_path}/shared.db")
    apply(shared, OWN, "news", by="a test", environ={})
    change(shared, "news", {"reward.window_s": 30.0}, by="a client", environ={})
    assert [one.by for one in applied(shared, "news")] == ["a test", "a client"]


def test_programs_that_change_at_once_keep_each_others_values(tmp_path: Path) -> None:
    path = tmp_path / "loops" / "news" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    settings = load_settings({}, home=str(tmp_path))
    several = {"reward.window_s": 5.0, "reward.minimum": -1.0, "gate.alpha": 0.01, "guard.enabled": True}
    threads = [Thread(target=put, args=(settings, {path: value})) for path, value in several.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = load_loop(settings, "news", {})
    assert (found.reward.window_s, found.reward.minimum, found.gate.alpha, found.guard.enabled) == (
        5.0,
        -1.0,
        0.01,
        True,
    )
