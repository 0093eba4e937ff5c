"""`decision policy check`, and what it accepts replayed, through the command line."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from decision.features import VERSION
from pipelines.commands.analysis.policy import _show
from pipelines.replay.policies.trial import Trial, Tried
from tests.pipelines import test_cli
from tests.pipelines.interactions.test_older_rules import model, packed, rows

run = test_cli.run
settled = test_cli.settled
FUNCTIONS = """
import numpy as np

def liked(context, actions):
    return context["likes"]

def of_batch(batch):
    return np.array([float(f"likes={i}" in batch.contexts[row]) for row in range(len(batch)) for i in "abc"])

def unsure(context, actions):
    return [0.5, 0.4, 0.2]
"""
RULES = "".join(f"[[rule]]\nwhen = 'likes == \"{name}\"'\naction = '{name}'\n" for name in "abc")


def test_a_policy_is_tried_and_then_replayed_whatever_it_is_written_in(
    run: Any, settled: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "tastes.py").write_text(FUNCTIONS)
    (tmp_path / "tastes.toml").write_text(RULES)
    (tmp_path / "model").mkdir()
    for name, data in packed(model(rows().slice(0, 50), VERSION)).items():
        (tmp_path / "model" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for policy in ("tastes:liked", f"{tmp_path}/tastes.py:liked", "tastes:of_batch", "tastes.toml", "model", "uniform"):
        ran = run("policy", "check", policy, "--loop", "news", "--json")
        assert (ran.status, len(ran.result["rows"]), ran.result["mistakes"]) == (0, 10, []), ran.result
    shown = run("policy", "check", "tastes:liked", "--loop", "news").out
    assert '{"likes": "a"}' in shown
    quick = ("--reward-model", "means", "--replicates", "0", "--json")
    ran = [
        run("replay", "news", "--policy", each, *quick) for each in ("tastes:liked", "tastes:of_batch", "tastes.toml")
    ]
    assert [each.status for each in ran] == [0, 0, 0]
    assert ran[0].result["estimates"] == ran[1].result["estimates"] == ran[2].result["estimates"]
    wrong = run("policy", "check", "tastes:unsure", "--loop", "news")
    assert wrong.status == 1
    assert "probabilities that sum to 1" in " ".join(wrong.out.split())
    assert run("replay", "news", "--policy", "tastes:unsure", *quick).result["field"].startswith("policy: event ")
    for policy in ("nothing.toml", "./nothing", str(tmp_path)):
        assert run("policy", "check", policy, "--loop", "news", "--json").result["field"] == "policy"
    assert "tastes.py:policy" in run("replay", "news", "--policy", "tastes.py", *quick).result["error"]


def test_a_narrow_terminal_shows_the_whole_of_what_a_policy_was_asked() -> None:
    context = {"device": "phone", "country": "CH", "hour": 23.0, "income": 41.0}
    row = Tried(event_id="shop-1795370960-1", context=context, actions=[], drawn="newsletter")
    out = Console(width=80, file=StringIO())
    _show(Trial(policy="mine.py:policy", log="shop", rows=[row], mistakes=[], remarks=[]), out)
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    for name, value in context.items():
        assert f'"{name}":' in shown, name
        assert str(value) in shown, name
