"""Coming with years of logs: imported, trained on, promoted and served, before any decision of one's own."""

from __future__ import annotations

import gzip
import json
import random
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


def test_a_folder_of_logs_becomes_a_champion_that_is_asked_in_the_shape_it_learned(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        done = CliRunner().invoke(app, [*arguments, "--json"], env={"DECISION_HOME": str(tmp_path / "home")})
        written = capfd.readouterr()
        assert done.exit_code == 0, (done.output, written.err)
        return json.loads(written.out)

    rng, logs = random.Random(6), tmp_path / "logs" / "2026"
    lines = [json.dumps(line(rng, number)) for number in range(6_000)]
    for month in range(4):
        folder = logs / f"{month + 4:02}"
        folder.mkdir(parents=True)
        part = [*lines[month * 1_500 : (month + 1) * 1_500], '{"RewardValue":1.0,"EventId":"nobody\'s"}']
        (folder / "01_00.json.gz").write_bytes(gzip.compress("\n".join(part).encode() + b"\n"))
    run("init", "bar")
    taken = run("import", "dsjson", str(tmp_path / "logs"), "--into", "bar")
    assert (taken["rows"], taken["reasons"]) == (6_000, {"dangling": 4})
    assert run("import", "dsjson", str(tmp_path / "logs"), "--into", "bar")["reasons"]["repeated"] == 6_000
    run("train", "bar")
    assert run("promote", "bar")["promoted"]

    core = open_core(load_settings({}, home=str(tmp_path / "home")))
    call = Caller(core)
    answered: dict[str, dict[str, float]] = {}
    for when, best in BEST.items():
        answer = call("POST", "/personalizer/v1.0/rank", asked(when) | {"eventId": f"live-{when}"}).json()
        answered[when] = {each["id"]: each["probability"] for each in answer["ranking"]}
        assert answered[when][best] > 0.9
        call("POST", f"/personalizer/v1.0/events/live-{when}/reward", {"value": 1.0})
    core.close()

    # request -> log -> export -> import: what a policy sees of it is the same, feature by feature
    (tmp_path / "home" / "loops" / "bar" / "loop.toml").write_text("[reward]\nwindow_s = 0.000001\n")
    run("ingest")
    run("join", "bar")
    exported = tmp_path / "bar.dsjson"
    assert run("export", "bar", str(exported))["rows"] == 6_003
    lake = Lake(load_settings({}, home=str(tmp_path / "home")).lake_url)
    there = lake.interactions("bar").sort_by("event_id")
    (back,) = read_dsjson(exported, rows_per_batch=10_000)
    back = back.sort_by("event_id")
    assert back["event_id"].to_pylist() == there["event_id"].to_pylist()
    sizes = there["action_ids"].combine_chunks().value_lengths().to_numpy().astype("int64")
    mine, theirs = contexts_of(there), contexts_of(back)
    assert not mine.errors
    assert not theirs.errors
    assert list(mine.rows) == list(theirs.rows)
    mine, theirs = (flat_actions(rows["actions"], sizes) for rows in (there, back))
    assert list(mine.rows) == list(theirs.rows)
    assert there["reward"].to_pylist() == pytest.approx(back["reward"].to_pylist())
