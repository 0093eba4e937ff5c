from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from decision.draw import draw, seed_of
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines import cli
from pipelines.cli import app, main
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.init import init_loop
from pipelines.operations.installation import Installation
from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from pipelines.trajectories.memories import MEMORIES, Memories
from tests.contracts.registry import packed
from tests.worlds.synthetic import new_loop, new_settings, open_parts, play, settle

ROOT = Path(__file__).resolve().parents[2]


class Ran:
    """What a command did: its status, the lines of stdout, and stderr."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, " ".join(err.split())

    @property
    def result(self) -> dict[str, Any]:
        lines = self.out.splitlines()
        assert len(lines) == 1, lines
        return json.loads(lines[0])


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command line as a process would, in a home of its own."""
    for name in list(os.environ):
        if name.startswith("DECISION_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DECISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: str) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def settled(tmp_path: Path, run: Any) -> Path:
    """Return a home with a loop of 400 decisions, ingested and joined through the command line."""
    settings = load_settings({}, home=str(tmp_path / "home"))
    init_loop(settings, "news")
    rng = np.random.default_rng(1)
    at = datetime.now(UTC) - timedelta(hours=1)
    ids = ["a", "b", "c"]
    with Installation(settings) as parts:
        items: dict[str, list[Any]] = {"decisions": [], "outcomes": []}
        for number in range(400):
            event_id, pmf = f"e{number}", [0.5, 0.25, 0.25]
            seed = seed_of("news", event_id)
            index = draw(pmf, seed)
            likes = int(rng.integers(3))
            decision = Decision(
                schema_version=SCHEMA_VERSION,
                loop="news",
                event_id=event_id,
                ts=at + timedelta(seconds=number / 10),
                subject_id="someone" if number % 100 == 7 else None,
                context=msgspec.Raw(json.dumps({"likes": ids[likes]}).encode()),
                actions=msgspec.Raw(json.dumps([{"topic": name} for name in ids]).encode()),
                action_ids=ids,
                pmf=pmf,
                action_index=index,
                propensity=pmf[index],
                policy_version="baseline:uniform",
                baseline_version="baseline:uniform",
                seed=seed,
            )
            items["decisions"].append((event_id.encode(), encode(decision), ()))
            if index == likes:
                outcome = Outcome(
                    schema_version=SCHEMA_VERSION, loop="news", event_id=event_id, value=1.0, ts=decision.ts
                )
                items["outcomes"].append((event_id.encode(), encode(outcome), ()))
        for topic, messages in items.items():
            parts.log.append_many(topic, messages)
    assert run("ingest", "--json").result["decisions"] == 400
    joined = run("join", "news", "--json").result
    assert joined["joined"] == len(items["outcomes"])
    assert joined["expired"] == 400 - len(items["outcomes"])
    return tmp_path / "home"


def test_help_teaches_every_command_with_an_example(run: Any) -> None:
    listed = run("--help").out
    for name in (
        "demo",
        "init",
        "serve",
        "ingest",
        "join",
        "train",
        "compare",
        "promote",
        "rollback",
        "nightly",
        "alarms",
        "replay",
        "top",
        "tidy",
        "backup",
        "restore",
    ):
        assert name in listed
        assert f"decision {name}" in run(name, "--help").out
    for name in ("open-bandit", "dsjson", "parquet"):
        assert f"decision import {name}" in run("import", name, "--help").out


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    heavy = ("numpy", "pyarrow", "mlflow", "feast", "sklearn", "altair", "bentoml", "vowpalwabbit", "duckdb", "asyncio")
    code = f"import sys, pipelines.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HEAVY = (
    *("pyarrow", "pandas", "duckdb", "scipy", "sklearn", "altair", "mlflow", "sqlalchemy", "feast", "kafka"),
    *("vowpalwabbit", "torch", "ray", "bentoml", "starlette", "asyncio", "lightgbm", "redis"),
)


@pytest.fixture(scope="module")
def in_charge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a loop under guard that has decisions and two versions, the second in charge."""
    settings = new_settings(tmp_path_factory.mktemp("in-charge"))
    loop = new_loop(settings, "news", "[guard]\nenabled = true\n\n[reward]\nminimum = 0.0\nmaximum = 1.0\n")
    log, lake = open_parts(settings)
    play(log, "news", 30)
    settle(log, lake, loop)
    log.close()
    registry = Registry(settings)
    for number in (1, 2):
        version = registry.register("news", packed(a=b"%d" % number))
        registry.set_alias("news", "champion", version, {"verdict": "promoted"})
    return settings.root


@pytest.mark.parametrize(
    ("arguments", "but"),
    [
        ("--help", ()),
        ("init other", ()),
        ("top --once", ("deltalake",)),
        ("tidy --dry-run", ("deltalake", "pyarrow", "pandas")),  # pyarrow looks for pandas
        ("backup {copy}", ("deltalake", "pyarrow")),
        ("guard news --stop", ()),
        ("guard news --resume", ()),
        ("guard news --cap 0.1", ()),
        ("rollback news --to 1", ()),
        ("rollback news", ()),
        ("audit people list", ("sqlalchemy", "asyncio")),
        ("audit verify", ("sqlalchemy", "asyncio")),
    ],
)
def test_an_operators_command_waits_for_no_library_that_it_does_not_need(
    in_charge: Path, tmp_path: Path, arguments: str, but: tuple[str, ...]
) -> None:
    heavy = sorted({*HEAVY, "deltalake"} - set(but))
    given = [
        *arguments.format(copy=tmp_path / "copy").split(),
        *(() if "--help" in arguments else ("--home", str(in_charge))),
    ]
    code = (
        "import atexit, sys, pipelines.cli;"
        f"atexit.register(lambda: print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr));"
        f"pipelines.cli.main({given!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_night_imports_no_distributions_before_it_compares() -> None:
    code = "import sys, pipelines.nightly, pipelines.replay.replay; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jion"], "Did you mean 'join'"),
        (["join", "news", "--restat"], "--restate"),
        (["join"], "LOOP"),
        (["train", "news", "--seed", "x"], "--seed"),
        (["demo", "--log", "rabbit"], "kafka"),
        (["join", "news", "--late"], "--restate"),
    ],
)
def test_bad_arguments_end_with_2_and_say_what_was_meant(run: Any, arguments: list[str], said: str) -> None:
    plain = run(*arguments)
    assert (plain.status, plain.out) == (2, "")
    assert said in plain.err
    asked = run(*arguments, "--json")
    assert asked.status == 2
    assert said in asked.result["error"]


def test_bad_input_ends_with_2_and_names_the_field(run: Any) -> None:
    ran = run("train", "news", "--json")
    assert ran.status == 2
    assert ran.result["field"] == "loop"
    assert "error: loop: there is no loop 'news'" in ran.err


def test_a_service_does_not_start_on_an_address_of_a_log_that_does_not_fit(run: Any) -> None:
    """Its forwarder would end and be started again for ever, while decisions are acknowledged on this disk."""
    ran = run("serve", "--log", "kafka://127.0.0.1:1?security_protocol=SSL&ssl_cafile=/does/not/exist", "--json")
    assert (ran.status, ran.result["field"]) == (2, "ssl_cafile")


def test_a_wrong_key_in_a_loop_names_itself_and_the_nearest(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "home" / "loops" / "news" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[reward]\nwindow = 3")
    ran = run("train", "news", "--json")
    assert (ran.status, ran.result["field"]) == (2, "reward.window")
    assert ran.result["error"].startswith(f"loop 'news', {path}: reward.window: unknown setting")
    assert "did you mean 'reward.window_s'?" in ran.result["error"]


def test_a_loop_whose_file_is_wrong_stops_no_command_of_another(run: Any, settled: Path) -> None:
    path = settled / "loops" / "bad" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[policy]\nexploration = 'falkon'")
    said = "is 'falkon'; did you mean 'falcon'?"
    assert said in run("ingest", "--json").err
    bad, news = run("top", "--once", "--json").result["loops"]
    assert said in bad["error"]
    assert (news["loop"], news["counters"]["decided"], news["error"]) == ("news", 400, "")
    assert said in run("top", "--once").out
    for arguments in (
        ["join", "news"],
        ["join", "news", "--restate"],
        ["guard", "news"],
        ["replay", "news", "--policy", "uniform", "--reward-model", "none"],
        ["audit", "status", "news"],
        ["audit", "verify"],
        ["export", "news", str(settled / "news.parquet")],
        ["erase", "--subject", "someone", "--yes"],
    ):
        ran = run(*arguments, "--json")
        assert ran.status == 0, (arguments, ran.err)
    ran = run("join", "bad", "--json")
    assert (ran.status, ran.result["field"]) == (2, "policy.exploration")


def test_a_subject_is_erased_from_the_features_of_a_loop_whose_file_went_wrong(run: Any, tmp_path: Path) -> None:
    assert run("init", "news", "--json").status == 0
    path = tmp_path / "home" / "loops" / "news" / "loop.toml"
    path.write_text("[features]\nenabled = true")
    table = tmp_path / "subjects.csv"
    table.write_text("subject_id,age\nana,31\nbo,40\n")
    assert run("features", "news", "--upload", str(table), "--json").status == 0
    path.write_text("[features]\nenabled = maybe")
    erased = run("erase", "--subject", "ana", "--yes", "--json")
    assert erased.status == 0, erased.err
    assert erased.result["feature_rows"] >= 1
    path.write_text("[features]\nenabled = true")
    assert run("features", "news", "--subject", "ana", "--json").result["subject"] == {}
    assert run("features", "news", "--subject", "bo", "--json").result["subject"] == {"age": 40}


def test_init_writes_a_loop_once(run: Any, tmp_path: Path) -> None:
    ran = run("init", "news", "--json")
    assert ran.status == 0
    assert Path(ran.result["path"]) == tmp_path / "home" / "loops" / "news" / "loop.toml"
    assert run("init", "news").status == 2
    assert run("init", "News", "--json").result["field"] == "loop"
    assert run("init", "news", "--force").status == 0


def test_what_libraries_print_does_not_reach_stdout(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipelines.operations.init as init

    def noisy(*_: Any, **__: Any) -> Path:
        print("hello")
        os.write(1, b"from below\n")
        return Path("x")

    monkeypatch.setattr(init, "init_loop", noisy)
    ran = run("init", "news", "--json")
    assert ran.result == {"loop": "news", "path": "x"}
    assert "hello" in ran.err
    assert "from below" in ran.err


def test_an_error_nobody_expected_ends_with_1(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipelines.operations.init as init

    def broken(*_: Any, **__: Any) -> Path:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(init, "init_loop", broken)
    ran = run("init", "news", "--json")
    assert (ran.status, ran.result) == (1, {"error": "RuntimeError: the disk is on fire"})


def test_replay_estimates_known_policies_on_a_loop(run: Any, settled: Path) -> None:
    first = run("replay", "news", "--policy", "first", "--reward-model", "means", "--json")
    assert first.status == 0
    result = first.result
    assert (result["rows"], result["policy"]) == (400, "first policy")
    for name in ("ips", "snips", "dr"):  # the first action is right one time in three
        assert result["estimates"][name]["low"] < 1 / 3 < result["estimates"][name]["high"]
    assert result["propensities"]["numbers"]["redrawn"] == 400
    assert result["trusted"] is True


def test_replay_writes_a_report_that_fetches_nothing(run: Any, settled: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("replay", "news", "--reward-model", "means", "--html", str(page)).status == 0
    text = page.read_text()
    assert text.count("<svg ") == 4  # weights, estimates, lift over time, agreement
    for fetched in ("<script", "<link", "src=", "@import", 'href="http'):
        assert fetched not in text


def test_check_propensities_passes_a_true_log_and_fails_a_false_one(run: Any, settled: Path, tmp_path: Path) -> None:
    ran = run("replay", "news", "--check-propensities", "--json")
    assert (ran.status, ran.result["ok"]) == (0, True)
    assert run("import", "open-bandit", "--json").result["rows"] == 60_000
    ran = run("replay", "open-bandit-bts-women", "--check-propensities", "--json")
    assert (ran.status, ran.result["ok"]) == (1, False)
    assert "1.0e-06" in ran.result["reasons"][0]
    for good in ("random-all", "random-men", "random-women", "bts-all", "bts-men"):
        assert run("replay", f"open-bandit-{good}", "--check-propensities").status == 0


@pytest.mark.parametrize("suffix", ["parquet", "dsjson"])
def test_an_export_can_be_imported_and_gives_the_same_estimates(
    run: Any, settled: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"news.{suffix}"
    assert run("export", "news", str(path), "--json").result["rows"] == 400
    assert run("import", suffix, str(path), "--name", "copy", "--json").result["rows"] == 400
    there, here = (run("replay", log, "--policy", "first", "--json").result["estimates"] for log in ("news", "copy"))
    for name in ("ips", "snips"):
        assert here[name]["value"] == pytest.approx(there[name]["value"], abs=1e-12)


def test_unknown_logs_and_policies_name_the_known_ones(run: Any, settled: Path, tmp_path: Path) -> None:
    ran = run("replay", "nwes", "--json")
    assert (ran.status, ran.result["field"]) == (2, "log")
    assert "news" in ran.result["wanted"]
    assert run("replay", "news", "--policy", "champion", "--json").result["field"] == "policy"
    assert run("export", "news", str(tmp_path / "x.csv"), "--json").result["field"] == "format"


def test_a_generation_is_trained_evaluated_refused_promoted_and_rolled_back(
    run: Any, settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", "news", "--json").result["version"] == "1"
    assert run("evaluate", "news", "--json").result["version"] == "1"
    monkeypatch.setenv("DECISION_LOOP_NEWS__GATE__MINIMUM_ESS", "5000")
    refused = run("promote", "news", "--json")
    assert (refused.status, refused.result["promoted"]) == (3, False)
    monkeypatch.setenv("DECISION_LOOP_NEWS__GATE__MINIMUM_ESS", "10")
    promoted = run("promote", "news", "--json")
    assert (promoted.status, promoted.result["promoted"]) == (0, True)
    status = run("top", "--json").result
    assert status["loops"][0]["champion"] == "1"
    assert status["loops"][0]["counters"]["decided"] == 400
    assert status["to_ingest"] == {"decisions": 0, "outcomes": 0}
    held = run("replay", "news", "--policy", "champion", "--json").result
    assert held["rows"] < 400
    assert "may have learned from" in held["left_out"]
    assert run("rollback", "news", "--json").result["to"] is None
    assert run("rollback", "news", "--json").status == 2
    night = run("nightly", "news", "--json")
    assert night.result["status"] == "done"
    assert night.status == (3 if night.result["verdict"] == "refused" else 0)


def test_an_erased_subject_is_gone_everywhere_and_the_proof_says_how_much(
    run: Any, settled: Path, tmp_path: Path
) -> None:
    assert run("export", "news", str(tmp_path / "news.parquet")).status == 0
    assert run("import", "parquet", str(tmp_path / "news.parquet"), "--name", "copy").status == 0
    memories, log = Memories(settled / "loops" / "news" / MEMORIES, "news"), LocalLog(settled / "log.db")
    memories.follow(log, datetime.now(UTC))
    log.close()
    erased = run("erase", "--subject", "someone", "--yes", "--json")
    assert erased.status == 0, erased.err
    result = erased.result
    assert result["remembered_turns"] == 4
    assert memories.history("someone", datetime.now(UTC)) == []
    memories.close()
    assert (result["events"], result["remaining"], result["imported_rows"]) == (4, 0, 4)
    assert result["messages"] == 4 + result["rows"]["outcomes"]
    assert "someone" not in Path(result["proof"]).read_text()
    for log in ("news", "copy"):
        assert run("replay", log, "--reward-model", "none", "--json").result["rows"] == 396
    assert b"someone" not in (settled / "log.db").read_bytes()
    assert run("erase", "--subject", "someone", "--yes", "--json").result["events"] == 0


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its path."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from pages(below, (*path, name))


PAGES = dict(pages(get_command(app)))


@pytest.mark.parametrize("path", PAGES, ids=" ".join)
def test_help_shows_what_stands_in_brackets(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    command = PAGES[path]
    texts = [command.help or "", *((getattr(parameter, "help", "") or "") for parameter in command.params)]
    shown = CliRunner().invoke(app, [*path, "--help"]).output
    for bracketed in re.findall(r"\[[^\]\n]+\]", " ".join(texts)):
        assert bracketed in " ".join(shown.split()), f"{bracketed} is swallowed"


@pytest.mark.parametrize("path", PAGES, ids=" ".join)
def test_what_a_command_reads_alone_changes_no_page(
    path: tuple[str, ...], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(*path, "--help")
    monkeypatch.setattr(cli, "_asked_for", lambda name: app)
    assert shown.out == run(*path, "--help").out
    assert shown.status == 0


def test_a_shell_may_complete_any_command(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, words in (("decision ro", ["rollback"]), ("decision audit mi", ["mine"])):
        monkeypatch.setenv("_DECISION_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert run().out.split() == words


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_general_options_may_stand_before_and_after_the_command(where: str) -> None:
    given = {
        "before": ["-v", "--log-format", "json", "join", "news", "--json"],
        "after": ["join", "news", "--json", "-v", "--log-format=json"],
        "between": ["join", "-v", "news", "--log-format", "json", "--json"],
    }[where]
    general, rest = cli._apart(given)
    first = general + rest
    assert [argument for argument in first if argument not in ("-v", "--log-format", "json", "--log-format=json")] == [
        "join",
        "news",
        "--json",
    ]
    assert first.index("-v") < first.index("join")
    assert cli._apart(["erase", "--", "-v"]) == ([], ["erase", "--", "-v"])


def test_a_home_is_tidied_backed_up_and_restored_by_command(run: Any, settled: Path, tmp_path: Path) -> None:
    assert {part["part"] for part in run("tidy", "news", "--json").result["parts"]} == {
        *("features", "imports", "lake", "log", "runs", "scratch", "state", "versions")
    }
    assert run("tidy", "nws").status == 2
    copy, new = str(tmp_path / "copy"), tmp_path / "new"
    taken = run("backup", copy, "--json").result
    assert taken["loops"]["news"]["decided"] == 400
    again = run("backup", copy)
    assert (again.status, "does not exist yet" in again.err) == (2, True)
    assert run("restore", copy).status == 2  # its home is there
    done = run("restore", copy, "--home", str(new), "--json").result
    assert (done["loops"], done["to_ingest"]) == (taken["loops"], 0)
    here, there = (run("verify", "--json", "--home", str(home)).result for home in (settled, new))
    assert here == there
    (new / "log.db").unlink()
    (tmp_path / "copy" / "home" / "log.db").write_bytes(b"")
    broken = run("restore", copy, "--home", str(tmp_path / "other"))
    assert (broken.status, "is not the file that was backed up" in broken.err) == (1, True)
