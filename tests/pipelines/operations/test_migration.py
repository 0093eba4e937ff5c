"""`decision migrate check`: an old log, played against the loop that is to take over."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.operations.migration.check import Checked, check_log
from pipelines.operations.migration.findings import KINDS, MOST_NAMES, OTHERS, Tally
from pipelines.settings import LoopSettings
from pipelines.settings.loop import RewardSettings

TEAS = ("green", "black", "mint")


def context(features: Any, ids: Any = TEAS, **more: Any) -> dict[str, Any]:
    """A request's part of a line, as Personalizer logged it."""
    multi = [{"_tag": id, "i": {"constant": 1, "id": id}, "j": [{"grams": 2 + at}]} for at, id in enumerate(ids)]
    return {"FromUrl": features, "_multi": multi, **more}


def line(event: str, **changes: Any) -> dict[str, Any]:
    """A line of a decision for the second tea, rewarded with 1."""
    return {
        "_label_cost": -1.0,
        "_label_probability": 0.6,
        "_label_Action": 2,
        "_labelIndex": 1,
        "o": [{"v": 1.0, "EventId": event, "ActionTaken": False}],
        "Timestamp": "2026-02-03T15:00:00.0000000Z",
        "EventId": event,
        "a": [2, 1, 3],
        "c": context([{"hour": 15}, {"guest": {"kind": "new"}}]),
        "p": [0.6, 0.3, 0.1],
        **changes,
    }


def slotted(event: str, **changes: Any) -> dict[str, Any]:
    """A line of two slots."""
    outcomes = [
        {"_label_cost": -0.5, "_id": "cup", "_a": [2, 0, 1], "_p": [0.5, 0.3, 0.2], "_o": [{"v": 0.5}]},
        {"_label_cost": 0.0, "_id": "pot", "_a": [0, 1], "_p": [0.5, 0.5], "_o": []},
    ]
    c = context([{"hour": 9}], _slots=[{"_id": "cup"}, {"_id": "pot"}])
    return {"EventId": event, "Timestamp": "2026-02-03T15:00:00Z", "c": c, "_outcomes": outcomes, **changes}


def checked(folder: Path, *lines: Any, **settings: Any) -> Checked:
    log = folder / "log.json"
    log.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
    return check_log(log, LoopSettings(name="teas", **settings), None)


def kinds(found: Checked) -> dict[str, int]:
    return {one.kind: one.count for one in found.findings}


MANY = tuple(f"tea {number}" for number in range(51))
REFUSED = [
    ("too_many_actions", line("b", a=[*range(1, 52)], p=[0.5, *[0.01] * 50], _label_probability=0.5,
                              _label_Action=1, _labelIndex=0, c=context([{}], MANY))),
    ("repeated_actions", line("b", c=context([{}], ("green", "mint", "green")))),
    ("repeated_slots", slotted("b", c=context([{}], _slots=[{"_id": "cup"}, {"_id": "cup"}]))),
    ("features", line("b", c=context([{"note": "x" * 1_025}]))),
    ("features", line("b", c=context([{"sum": 1e16}]))),
    ("bad_id", line("b\n")),
    ("reused_id", line("a", c=context([{"hour": 16}]))),
    ("reward_range", line("b", _label_cost=-3.0, o=[{"v": 3.0}])),
    ("not_read", line("b", _labelIndex=0)),
    ("not_read", line("b", _label_ca={"action": 3.0})),
    ("not_read", line("b" * 300)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bad"), REFUSED)
def test_what_the_service_or_the_import_refuses_is_counted_with_its_first_line(
    tmp_path: Path, kind: str, bad: dict[str, Any]
) -> None:
    found = checked(tmp_path, line("a"), bad, line("c"))
    (one,) = [each for each in found.findings if each.kind == kind]
    assert (one.weight, one.count, one.first) == ("refused", 1, "line 2")
    assert {each.first for each in found.findings if each.weight == "refused"} == {"line 2"}
    assert found.lines == 3


DIFFERS = [
    ("default_reward", line("b", _label_cost=0.25, o=[]), {}),
    ("aggregation", line("b", _label_cost=-0.5, o=[{"v": 0.5}, {"v": 0.25}]), {}),
    ("late_outcome", line("b", o=[{"v": 1.0, "EnqueuedTimeUtc": "2026-02-03T15:10:01Z"}]), {}),
    ("reward_cut", line("b", _label_cost=-0.75, o=[{"v": 0.75}]), {"reward": RewardSettings(minimum=0, maximum=0.5)}),
    ("activated_by_reward", line("b", _skipLearn=True), {}),
    ("no_action_id", line("b", c={"_multi": [{"tea": {"green": 1}}, {"tea": {"mint": 1}}, {}]}), {}),
    ("two_shapes", line("b", c=context([{"hour": "15"}])), {}),
    ("not_first", line("b"), {"mode": "apprentice"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "other", "settings"), DIFFERS)
def test_what_is_answered_or_counted_otherwise_is_told_and_refuses_nothing(
    tmp_path: Path, kind: str, other: dict[str, Any], settings: dict[str, Any]
) -> None:
    first = line("a", a=[1, 2, 3], _label_Action=1, _labelIndex=0, _label_cost=-0.5, o=[{"v": 0.5}])
    found = checked(tmp_path, first, other, slotted("s"), **settings)
    (one,) = [each for each in found.findings if each.weight == "differs"]
    assert (one.kind, one.count, one.first, found.refused) == (kind, 1, "line 2", 0)
    assert (found.events, found.decisions) == (3, 4)


def test_settings_that_fit_the_log_leave_nothing_to_tell(tmp_path: Path) -> None:
    lines = [
        line("a", _label_cost=-0.5, o=[{"v": 0.5}, {"v": 0.25}]),
        line("b", _label_cost=0.25, o=[]),
        line("c", o=[{"v": 1.0, "EnqueuedTimeUtc": "2026-02-03T15:59:00Z"}]),
    ]
    assert set(kinds(checked(tmp_path, *lines))) == {"aggregation", "default_reward", "late_outcome"}
    fitting = RewardSettings(aggregation="earliest", default=-0.25, window_s=3_600)
    assert kinds(checked(tmp_path, *lines, reward=fitting)) == {}


def test_the_aggregation_that_makes_every_reward_is_named(tmp_path: Path) -> None:
    lines = [
        line("a", _label_cost=-0.5, o=[{"v": 0.25}, {"v": 0.5}]),
        line("b", _label_cost=-0.75, o=[{"v": 0.75}, {"v": 0.5}]),
    ]
    (found,) = checked(tmp_path, *lines).findings
    assert found.do.endswith(": max.")


def test_a_log_without_outcomes_or_times_is_not_read_as_one_with_other_defaults(tmp_path: Path) -> None:
    bare = line("a")
    del bare["o"]
    found = checked(tmp_path, bare)
    assert kinds(found) == {}
    assert [text for text in found.untold if "default reward" in text]
    assert [text for text in found.untold if "wait time" in text]


def test_an_event_that_comes_again_with_the_same_request_is_answered_as_before(tmp_path: Path) -> None:
    found = checked(tmp_path, line("a"), line("a"), line("a", _label_cost=0.0, o=[]))
    assert (kinds(found), found.refused, found.events) == ({"repeated": 2}, 0, 1)


def test_a_log_of_apprentice_mode_is_recognised_by_its_draws(tmp_path: Path) -> None:
    first = {"a": [1, 2, 3], "_label_Action": 1, "_labelIndex": 0, "p": [1.0, 0.0, 0.0], "_label_probability": 1.0}
    assert kinds(checked(tmp_path, line("a", **first), line("b", **first))) == {"always_first": 2}
    assert kinds(checked(tmp_path, line("a", **first), line("b"))) == {}
    assert kinds(checked(tmp_path, line("a", **first), mode="apprentice")) == {}


def test_answers_are_compared_with_the_logged_distribution(tmp_path: Path) -> None:
    even = {"p": [1 / 3] * 3, "_label_probability": 1 / 3}
    answers = checked(tmp_path, line("a"), line("b", **even)).answers
    assert answers is not None
    assert (answers.decisions, answers.distributed, answers.decided) == (2, 2, 1)
    assert answers.probability == pytest.approx(1 / 3)  # the uniform policy answers until a version is in charge
    assert answers.propensity == pytest.approx((0.6 + 1 / 3) / 2)
    assert answers.distance == pytest.approx((0.6 - 1 / 3) / 2)
    assert answers.same_best == pytest.approx(1 / 3)  # one of three that are equally good to it
    first = checked(tmp_path, line("a"), mode="apprentice").answers
    assert first is not None
    assert (first.same_best, first.probability, first.distance) == (0.0, 0.0, pytest.approx(0.7))


def test_a_check_against_a_loop_writes_nothing(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log.json"
    log.write_text(json.dumps(line("a")))
    env = {"DECISION_HOME": str(home)}
    assert CliRunner().invoke(app, ["init", "teas"], env=env).exit_code == 0
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert CliRunner().invoke(app, ["migrate", "check", "--from", str(log), "--loop", "teas"], env=env).exit_code == 0
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_names_are_told_apart_up_to_a_number(tmp_path: Path) -> None:
    tally = Tally()
    for number in range(MOST_NAMES + 50):
        tally.add("unknown_feature", f"line {number}", "", f"context.f{number}")
    found = tally.findings()
    assert (len(found), found[0].name, found[0].count) == (MOST_NAMES + 1, OTHERS, 50)


def test_every_kind_says_what_to_do() -> None:
    for kind in KINDS.values():
        assert kind.do.endswith(".")
        assert not kind.says.endswith(".")


def test_the_command_tells_of_a_compressed_folder_and_ends_with_1_where_something_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs" / "2026" / "02"
    folder.mkdir(parents=True)
    text = "".join(json.dumps(each) + "\n" for each in (line("a"), line("b", _label_cost=-2.0, o=[{"v": 2.0}])))
    (folder / "03_15.json.gz").write_bytes(gzip.compress(text.encode()))

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        done = CliRunner().invoke(app, ["migrate", "check", *arguments], env={"DECISION_HOME": str(tmp_path / "home")})
        return done.exit_code, capfd.readouterr().out or done.stdout

    status, told = run("--from", str(tmp_path / "logs"))
    assert status == 1
    assert "rewards out of -1 to 1: 1 (first: 2026/02/03_15.json.gz line 2, 2)" in told
    status, told = run("--from", str(tmp_path / "logs"), "--json")
    assert (status, json.loads(told)["refused"]) == (1, 1)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(line("a")).encode())))
    assert run("--from", "-", "--json")[0] == 0
    assert run("--from", str(tmp_path / "nothing"))[0] == 2
    cut = folder / "04_00.json.gz"
    cut.write_bytes(gzip.compress(text.encode() * 20)[:-30])
    status, told = run("--from", str(tmp_path / "logs"), "--json")
    assert (status, "damaged" in told) == (1, True)
