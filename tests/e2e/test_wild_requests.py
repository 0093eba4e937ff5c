"""Requests over HTTP that nobody meant well, among those of a day: the night learns, and names what it left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.test_first_night import Caller, night, served

DAY, AT_ONCE = 10, 100


def question(x: float, **more: Any) -> dict[str, Any]:
    return {"context": {"x": x}, "actions": [{"id": "a", "features": {"side": 1}}, {"id": "b"}]} | more


def wide(rng: np.random.Generator) -> dict[str, Any]:
    """Return a request of 25 KB or more: 1,999 names of its own in the context, 110 in an action."""
    context = {"x": 0.0} | {f"c{name}": 1 for name in rng.choice(1 << 40, 1_999, replace=False).tolist()}
    own = {f"o{name}": 1 for name in rng.choice(1 << 40, 110, replace=False).tolist()}
    return question(0.0, context=context, actions=[{"id": "a", "features": own}, {"id": "b"}])


def ask(caller: Caller, rng: np.random.Generator, questions: list[dict[str, Any]]) -> None:
    """Decide; the action on the side of x pays: a above 0, b below. Events have the same ids in every run."""
    questions = [asked | {"event_id": f"e{rng.integers(1 << 60)}"} for asked in questions]
    answers = caller("/decide/batch", {"decisions": questions})["decisions"]
    right = [(q["context"]["x"] > 0) == (a["action_id"] == "a") for q, a in zip(questions, answers, strict=True)]
    paid = rng.random(len(right)) < np.where(right, 0.9, 0.1)
    events = [answer["event_id"] for answer, pays in zip(answers, paid.tolist(), strict=True) if pays]
    if events:
        caller("/outcomes", [{"event_id": event, "value": 1} for event in events])


def preferred(caller: Caller, x: float) -> str:
    ranking = caller("/decide", question(x))["ranking"]
    return max(ranking, key=lambda entry: entry["probability"])["id"]


def test_a_night_after_wide_requests_and_wild_numbers_learns_and_names_the_columns_it_left_out(tmp_path: Path) -> None:
    with served(tmp_path / "home", "") as (settings, caller):
        rng = np.random.default_rng(1)
        for number in range(DAY):
            numbers = rng.uniform(0.5, 1.5, AT_ONCE) * rng.choice([-1.0, 1.0], AT_ONCE)
            numbers[:4] = (1e15, -1e15, 1e9, 5e-324)
            ask(caller, rng, [question(float(x)) for x in numbers])
            if number < 6:
                ask(caller, rng, [wide(rng)])
        run = night(settings, caller)
        assert (run.status, run.verdict) == ("done", "promoted")
        assert (preferred(caller, 1.0), preferred(caller, -1.0)) == ("a", "b")
        alarm = (run.result("train") or {})["alarms"][0]
        assert "context features found no room" in alarm
        assert "x" not in alarm.partition("the most frequent of them ")[2].split(", ")
