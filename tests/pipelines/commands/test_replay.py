"""`decision replay` on a loop of 400 decisions and on imports, through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.batch import one
from pipelines.commands.analysis.given import generations_of
from pipelines.operations.installation import Installation
from pipelines.replay.policies.functions import ReadsRows
from pipelines.replay.policy import reads_features
from pipelines.settings import load_settings
from tests.pipelines import test_cli
from tests.worlds.synthetic import new_loop, new_settings

run = test_cli.run
settled = test_cli.settled
QUICK = ("--reward-model", "means", "--replicates", "50")


def feedback(path: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    n, logging = 600, np.array([0.5, 0.3, 0.2])
    action = rng.choice(3, p=logging, size=n)
    arrays = {
        "n_actions": 3,
        "action": action,
        "reward": (rng.random(n) < 0.2 + 0.2 * action).astype(float),
        "pscore": logging[action],
        "pi_b": np.tile(logging, (n, 1)),
        "context": rng.integers(2, size=(n, 1)).astype(float),
    }
    np.savez(path, **{**arrays, **changes})
    return path


@pytest.mark.parametrize(("mode", "explore"), [("online", 0.3), ("logging_only", 0.0)])
def test_balanced_weights_take_a_baseline_as_it_drew(tmp_path: Path, mode: str, explore: float) -> None:
    settings = new_settings(tmp_path)
    new_loop(settings, "news", f'mode = "{mode}"\n[baseline]\nkind = "ranking"\nsteepness = 2.0\nexplore = 0.3\n')
    with Installation(settings) as parts:
        found = generations_of(parts, "news")
    assert set(found) == {"", "baseline:ranking"}
    drew = found["baseline:ranking"].load()
    assert not reads_features(drew)
    asked = one({}, [{}] * 3, ["a", "b", "c"])
    assert not isinstance(drew, ReadsRows)
    ranked = np.array([1.0, 1 / 4, 1 / 9]) / (49 / 36)
    assert drew.pmf(asked).tolist() == pytest.approx((1.0 - explore) * ranked + explore / 3)


def test_a_loop_is_streamed_from_its_table_as_of_any_version(run: Any, settled: Path) -> None:
    with Installation(load_settings({}, home=str(settled))) as parts:
        version = parts.lake.version("interactions")
    now = run("replay", "news", *QUICK, "--json").result
    assert now["table_version"] == version
    assert now["rows"] == 400
    then = run("replay", "news", *QUICK, "--table-version", str(version), "--json").result
    assert then == now
    empty = run("replay", "news", *QUICK, "--table-version", "0", "--json")
    assert empty.status == 1
    assert "no settled decisions" in empty.result["error"]
    assert run("replay", "news", "--table-version", "99", "--json").result["field"] == "version"


def test_segments_ranges_and_callables(run: Any, settled: Path, tmp_path: Path, monkeypatch: Any) -> None:
    found = run("replay", "news", *QUICK, "--segment", "likes", "--json").result
    assert sorted(found["segments"]) == ["a", "b", "c"]
    searched = run("replay", "news", *QUICK, "--find-segments", "--json").result["found"]
    assert searched["searched"] + searched["estimated"] == 400
    assert "pairs of them were looked at" in " ".join(run("replay", "news", *QUICK, "--find-segments").out.split())
    part = run("replay", "news", *QUICK, "--where", "likes=a", "--json").result
    assert part["rows"] == found["segments"]["a"]["n"]
    middle = found["first"][:10]
    half = run("replay", "news", *QUICK, "--from", middle, "--to", "2100-01-01", "--json").result
    assert half["rows"] == 400
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef liked(batch):\n"
        "    out = [float(f'likes={i}' in batch.contexts[row]) for row in range(len(batch)) for i in 'abc']\n"
        "    return np.array(out)\n"
    )
    monkeypatch.chdir(tmp_path)
    best = run("replay", "news", *QUICK, "--policy", "mine:liked", "--json").result
    for name in ("ips", "snips", "dr"):  # it always knows what is liked
        assert best["estimates"][name]["low"] < 1.0 + 1e-9
        assert best["estimates"][name]["value"] == pytest.approx(1.0, abs=0.2)
    assert best["estimates"]["snips"]["value"] == pytest.approx(1.0)


def test_bad_options_are_named(run: Any, settled: Path) -> None:
    for options, field in (
        (("--from", "yesterday"), "from"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), "to"),
        (("--where", "likes"), "where"),
        (("--where", "likes=nothing"), "where"),
        (("--where", "nothing=a"), "where"),
        (("--segment", "nothing"), "segment"),
        (("--group-by", "nothing"), "group_by"),
        (("--level", "2"), "level"),
        (("--replicates", "1"), "replicates"),
        (("--engine", "ray", "--workers", "0"), "workers"),
        (("--html", "no/such/folder/page.html"), "html"),
        (("--policy", "no.such.module:thing"), "policy"),
        (("--policy", "9"), "policy"),
    ):
        ran = run("replay", "news", "--reward-model", "means", *options, "--json")
        assert (ran.status, ran.result["field"]) == (2, field)
    assert "'likes'" in run("replay", "news", "--segment", "nothing", "--json").result["error"]
    late = run("replay", "news", "--from", "2090-01-01", "--json")
    assert (late.status, "in that range of time" in late.result["error"]) == (1, True)


def test_an_import_with_wrong_propensities_is_refused_with_status_3(run: Any, tmp_path: Path) -> None:
    assert run("import", "obp", str(feedback(tmp_path / "good.npz")), "--name", "good").status == 0
    assert run("replay", "good", *QUICK).status == 0
    halved = feedback(tmp_path / "bad.npz", pscore=np.full(600, 0.2), pi_b=np.full((600, 3), 1 / 3))
    assert run("import", "obp", str(halved), "--name", "bad", "--json").result["field"].endswith("propensity")
    np.savez(
        tmp_path / "bad.npz", n_actions=3, action=np.arange(600) % 3, reward=np.ones(600), pscore=np.full(600, 0.2)
    )
    assert run("import", "obp", str(tmp_path / "bad.npz"), "--name", "bad").status == 0
    ran = run("replay", "bad", *QUICK, "--json")
    assert ran.status == 3
    assert set(ran.result["estimates"].values()) == {None}
    assert any("mean weight" in reason for reason in ran.result["refused"])
    shown = run("replay", "bad", *QUICK, "--force", "--json")
    assert shown.status == 3
    assert shown.result["estimates"]["ips"] is not None
    table = run("replay", "bad", *QUICK)
    assert "refused: the mean weight is" in " ".join(table.out.split())


def test_a_log_is_described_before_training(run: Any, tmp_path: Path) -> None:
    run("import", "obp", str(feedback(tmp_path / "good.npz")), "--name", "good")
    found = run("replay", "good", "--report", "--json").result
    assert found["whole"]["rows"] == 600
    assert found["whole"]["saco"] == 1.0  # two contexts, three actions
    assert "SACo" in run("replay", "good", "--report").out


def test_a_replay_is_logged_with_its_page(run: Any, tmp_path: Path) -> None:
    run("import", "obp", str(feedback(tmp_path / "good.npz")), "--name", "good")
    ran = run("replay", "good", *QUICK, "--track", "--json")
    settings = load_settings({}, home=str(tmp_path / "home"))
    from pipelines.registry.tracking import Tracking

    store = Tracking(settings)
    with store.client() as client:
        kept = client.get_run(ran.result["run_id"])
    assert kept.data.metrics["replay.dr"] == pytest.approx(ran.result["estimates"]["dr"]["value"])
    assert kept.data.params["replay.policy"] == "uniform policy"
    assert b"<svg " in store.download(ran.result["run_id"], "replay")["replay.html"]


def test_an_export_to_obp_comes_back_with_the_same_estimates(run: Any, settled: Path, tmp_path: Path) -> None:
    path = tmp_path / "news.npz"
    assert run("export", "news", str(path), "--json").result["rows"] == 400
    assert run("import", "obp", str(path), "--name", "copy").status == 0
    there, here = (run("replay", log, *QUICK, "--json").result["estimates"] for log in ("news", "copy"))
    for name in ("ips", "snips"):
        assert here[name]["value"] == pytest.approx(there[name]["value"], abs=1e-12)


def test_a_wanted_lift_is_answered_with_the_decisions_that_it_takes(run: Any, tmp_path: Path) -> None:
    run("import", "obp", str(feedback(tmp_path / "good.npz")), "--name", "good")
    one = run("replay", "good", *QUICK, "--lift", "0.02", "--json").result["needed"]
    half = run("replay", "good", *QUICK, "--lift", "0.01", "--json").result["needed"]
    assert half["replay"] == pytest.approx(4 * one["replay"], abs=4)
    assert half["side"] == pytest.approx(4 * one["side"], abs=4)
    page = tmp_path / "page.html"
    shown = run("replay", "good", *QUICK, "--lift", "0.02", "--html", str(page)).out
    assert f"to see a lift of 0.02 in 80% of cases: {one['replay']} logged decisions like these" in shown
    assert f"{one['replay']:,} logged decisions like these" in page.read_text()
    assert run("replay", "good", *QUICK, "--lift", "0", "--json").result["field"] == "lift"
