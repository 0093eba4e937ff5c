"""Coming with years of logs, as the page on moving says: checked, imported, trained on, promoted, served, online."""

from __future__ import annotations

import gzip
import json
import random
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.formats.dsjson.read import read_dsjson
from pipelines.lake.features import contexts_of, flat_actions
from pipelines.lake.lake import Lake
from pipelines.settings import load_settings
from serving.start import open_core
from tests.serving.http.test_app import Caller

DRINKS = ("tea", "coffee", "water")
BEST = {"cold": "tea", "early": "coffee", "hot": "water"}
EACH = [("event_id", "ascending"), ("slot", "ascending")]
GUIDE = Path(__file__).parents[2] / "infra/docs/migration.md"
FEATURES = {"tea": {"warm": True, "price": 2}, "coffee": {"warm": True, "price": 3}, "water": {"warm": False}}


def line(rng: random.Random, number: int) -> dict[str, Any]:
    """A line in the shape of a retired service's storage: drawn evenly, the best drink pays nine times in ten."""
    when, drawn = rng.choice(sorted(BEST)), rng.randrange(3)
    value = float(rng.random() < (0.9 if DRINKS[drawn] == BEST[when] else 0.1))
    multi = [{"_tag": drink, "i": {"constant": 1, "id": drink}, "j": [FEATURES[drink]]} for drink in DRINKS]
    event = f"{rng.getrandbits(64):016x}"
    return {
        "_label_cost": -value,
        "_label_probability": 1 / 3,
        "_label_Action": drawn + 1,
        "_labelIndex": drawn,
        "o": [{"v": value, "EventId": event, "ActionTaken": False}],
        "Timestamp": (datetime(2026, 4, 1, tzinfo=UTC) + timedelta(seconds=40 * number)).isoformat(),
        "EventId": event,
        "a": [drawn + 1, *(at + 1 for at in range(3) if at != drawn)],
        "c": {"FromUrl": [{"when": when}, {"guest": {"seat": rng.randrange(50)}}], "_multi": multi},
        "p": [1 / 3] * 3,
    }


def asked(when: str) -> dict[str, Any]:
    """A request as its application has always sent it."""
    actions = [{"id": drink, "features": [FEATURES[drink]]} for drink in DRINKS]
    return {"contextFeatures": [{"when": when}, {"guest": {"seat": 7}}], "actions": actions}


def steps() -> list[list[str]]:
    """The commands of the page, in order."""
    text = GUIDE.read_text("utf-8")
    text = text[text.index("## Step by step") : text.index("## What would answer differently")]
    return [shlex.split(line, comments=True) for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]


def test_the_steps_of_the_page_lead_from_a_folder_of_logs_to_a_champion_that_is_asked_in_the_shape_it_learned(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        done = CliRunner().invoke(app, [*arguments, "--json"], env={"DECISION_HOME": str(tmp_path / "home")})
        written = capfd.readouterr()
        assert done.exit_code == 0, (done.output, written.err)
        return json.loads(written.out)

    rng, logs = random.Random(6), tmp_path / "personalizer-logs" / "2026"
    lines = [json.dumps(line(rng, number)) for number in range(6_000)]
    for month in range(4):
        folder = logs / f"{month + 4:02}"
        folder.mkdir(parents=True)
        part = [*lines[month * 1_500 : (month + 1) * 1_500], '{"RewardValue":1.0,"EventId":"nobody\'s"}']
        (folder / "01_00.json.gz").write_bytes(gzip.compress("\n".join(part).encode() + b"\n"))

    told: list[Any] = []
    commands = steps()
    served = commands.index(["decision", "serve"])
    for name, *arguments in commands[:served]:
        assert name == "decision"
        told.append(run(*(str(logs.parent) if each == "personalizer-logs/" else each for each in arguments)))
    _, before, taken, _, promoted, after = told
    assert (taken["rows"], taken["reasons"]) == (6_000, {"dangling": 4})
    assert promoted["promoted"]
    assert (before["refused"], after["refused"], after["events"]) == (0, 0, 6_000)
    assert {each["kind"]: each["count"] for each in after["findings"]} == {"dangling": 4}
    assert (before["answers"]["policy"][:7], after["answers"]["policy"]) == ("uniform", "version 1")
    assert after["answers"]["distance"] > 0.5  # the log drew evenly, and the version knows better
    assert run("import", "dsjson", str(logs.parent), "--into", "news")["reasons"]["repeated"] == 6_000

    core = open_core(load_settings({}, home=str(tmp_path / "home")))
    call = Caller(core)

    def ranked(name: str) -> dict[str, dict[str, Any]]:
        answers: dict[str, dict[str, Any]] = {}
        for when in BEST:
            answers[when] = call("POST", "/personalizer/v1.0/rank", asked(when) | {"eventId": f"{name}-{when}"}).json()
            call("POST", f"/personalizer/v1.0/events/{name}-{when}/reward", {"value": 1.0})
        return answers

    in_force: list[dict[str, Any]] = []
    for name, *arguments in commands[served + 1 :]:
        assert name == "curl"
        (url,) = [each.removeprefix("http://localhost:8080") for each in arguments if each.startswith("http")]
        body = arguments[arguments.index("-d") + 1] if "-d" in arguments else None
        answer = call("PUT" if "PUT" in arguments else "GET", url, None if body is None else body.encode())
        assert answer.status_code == 200, answer.text
        core.loops.refresh()
        in_force.append(answer.json())
        if len(in_force) == 2:
            assert {each["rewardActionId"] for each in ranked("tried").values()} == {"tea"}  # the first, always
    assert [each["learningMode"] for each in in_force] == ["Apprentice", "Apprentice", "Online"]
    assert in_force[1]["rewardWaitTime"] == "PT1200S"
    for when, answer in ranked("live").items():
        assert {each["id"]: each["probability"] for each in answer["ranking"]}[BEST[when]] > 0.9
    slots = [
        {"id": "first", "baselineAction": "tea"},
        {"id": "second", "baselineAction": "tea", "features": [{"big": 1}]},
    ]
    slots[1]["excludedActions"] = ["coffee"]
    many = call(
        "POST", "/personalizer/v1.1-preview.1/multislot/rank", asked("hot") | {"slots": slots, "eventId": "many"}
    )
    assert many.status_code == 201, many.text
    call(
        "POST",
        "/personalizer/v1.1-preview.1/multislot/events/many/reward",
        {"reward": [{"slotId": "second", "value": 0.5}]},
    )
    core.close()

    # request -> log -> export -> import: what a policy sees of it is the same, feature by feature
    (tmp_path / "home" / "loops" / "news" / "loop.toml").write_text("[reward]\nwindow_s = 0.000001\n")
    run("ingest")
    run("join", "news")
    exported = tmp_path / "news.dsjson"
    assert run("export", "news", str(exported))["rows"] == 6_008
    lake = Lake(load_settings({}, home=str(tmp_path / "home")).lake_url)
    there = lake.interactions("news").sort_by(EACH)
    (back,) = read_dsjson(exported, rows_per_batch=10_000)
    back = back.sort_by(EACH)
    assert back["slot"].to_pylist() == there["slot"].to_pylist()
    assert back["event_id"].to_pylist() == there["event_id"].to_pylist()
    sizes = there["action_ids"].combine_chunks().value_lengths().to_numpy().astype("int64")
    mine, theirs = contexts_of(there), contexts_of(back)
    assert not mine.errors
    assert not theirs.errors
    assert list(mine.rows) == list(theirs.rows)
    mine, theirs = (flat_actions(rows["actions"], sizes) for rows in (there, back))
    assert list(mine.rows) == list(theirs.rows)
    assert there["reward"].to_pylist() == pytest.approx(back["reward"].to_pylist())
