"""What a loop's own log says of the simulators learned from it: where not to believe them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.settings import Settings
from tests.parts import require
from tests.worlds.satisfaction import IDS, TEXT, fill, habit
from tests.worlds.synthetic import new_loop, new_settings, open_parts, settle

require(importlib.util.find_spec("torch"), "torch is not installed")

from pipelines.studies.sim2rec_log import doubts  # noqa: E402 it imports torch

SMALL = '[training]\nholdout = 0.35\n[session]\nhorizon = 16\nmembers = 2\neffort = 0.1\ntrend = "wears_out"\n'


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = new_settings(tmp_path_factory.mktemp("feed"))
    loop = new_loop(made, "feed", TEXT + SMALL)
    log, lake = open_parts(made)
    fill(log, "feed", habit(0, 80, 16))
    settle(log, lake, loop)
    log.close()
    return made


def study(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["study", *arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capfd.readouterr().out)


def test_a_loops_log_tells_what_its_simulators_know_and_what_nobody_was_shown(
    settings: Settings, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("sim2rec", "--log", "feed", "--home", str(settings.root), "--out", str(tmp_path), "--quick")
    status, found = study(capfd, *words)
    assert status == 0
    assert found["log"]["users"] + found["log"]["users_apart"] == 80
    assert list(found["members"]) == ["1 plain300", "2 reservoir100", "held out"]
    # Learned from so few users, simulators know less than the last reward says, and the study says so.
    told = " ".join(found["doubts"])
    assert "knows nothing of the next reward" in told
    for name, row in found["members"].items():
        assert (f"{name} is left out" in told) == (not row["kept"])
        if row["kept"]:
            assert (f"{name} knows nothing" in told) == (row["error"] >= found["log"]["last_error"])
        assert list(row["ahead"]) == [str(steps) for steps in found["horizons"]]
    unknown = [row["id"] for row in found["actions"] if not row["executed"]]
    assert unknown == IDS[:2] + IDS[-2:]
    assert any(all(name in text for name in unknown) for text in found["doubts"])
    assert json.loads((tmp_path / "result.json").read_text()) == found
    assert (tmp_path / "figures" / "ahead.svg").exists()
    assert "Where not to believe them" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["sim2rec", "--log", "feed", "--seeds", "1,2"], "seeds"),
        (["sim2rec", "--log", "feed", "--world", "retention"], "log"),
        (["sim2rec", "--log", "nowhere"], "loop"),
        (["fairness", "--log", "feed"], "log"),
    ],
)
def test_bad_arguments_are_named(
    settings: Settings, capfd: pytest.CaptureFixture[str], arguments: list[str], field: str
) -> None:
    status, found = study(capfd, *arguments, "--home", str(settings.root))
    assert (status, found["field"]) == (2, field)


def row(**changes: Any) -> dict[str, Any]:
    near = {"1": {"off": 0.0, "off_ci": [-0.1, 0.1]}, "5": {"off": 0.0, "off_ci": [-0.1, 0.1]}}
    usual = {"kept": True, "error": 0.2, "explained": 0.9, "surprise": 1.0, "logged": {"1": 2.0, "5": 2.0}}
    return usual | {"ahead": near} | changes


def result(*actions: tuple[str, bool, float], share: float = 0.1, **members: dict[str, Any]) -> dict[str, Any]:
    return {
        "log": {"last_error": 0.5, "deviation": 0.6, "share_of_users": share},
        "members": {"one": row(), **members, "held out": row()},
        "actions": [{"id": name, "executed": ok, "disagreement_held": apart} for name, ok, apart in actions],
        "held": 5,
        "versions": [],
    }


SHOWN = [("a", True, 0.1), ("b", True, 0.1), ("c", True, 0.1)]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (result(*SHOWN, two=row(kept=False, error=0.4)), "two is left out: its error is 2.0 times the best"),
        (result(*SHOWN, two=row(kept=False, worn=0.2)), "two is left out: it contradicts the loop's trend"),
        (result(*SHOWN, two=row(error=0.55)), "two knows nothing of the next reward"),
        (result(*SHOWN, two=row(surprise=3.0)), "two is too sure: squared errors are 3.0 times"),
        (
            result(*SHOWN, ("d", False, 0.3)),
            "nothing is known of them: d; held for 5 decisions, simulators are 3.0 times",
        ),
        (result(*SHOWN, ("d", True, 0.3)), "more than twice as far apart as usual on d"),
        (result(*SHOWN, share=0.8), "who a user is explains 80%"),
        (
            result(*SHOWN, two=row(ahead={"1": row()["ahead"]["1"], "5": {"off": 0.3, "off_ci": [0.2, 0.4]}})),
            "two is off on the logged actions over 5 decisions; over 5 by +0.3 per decision (+0.2 to +0.4), 15.0%",
        ),
    ],
)
def test_each_doubt_is_said_in_words(given: dict[str, Any], text: str) -> None:
    assert text in " ".join(doubts(given))


def test_where_nothing_speaks_against_them_nothing_is_said() -> None:
    assert doubts(result(*SHOWN)) == []


def test_what_was_promised_is_said_beside_what_came_true() -> None:
    kept = [{"version": "3", "gain": 0.5, "gained": 0.1}, {"version": "4", "gain": 0.5, "gained": None}]
    assert doubts(result(*SHOWN) | {"versions": kept}) == [
        "+0.5 over the log was promised of version 3, +0.1 over others in the same hours came true"
    ]
