"""A governance store with a panel, on SQLite or on a real PostgreSQL, and pairs to judge."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from decision.fairness.blinding import Shown, payload
from decision.fairness.rule import Rule
from pipelines.fairness.people import Person, add_person
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, Pair, assign, judge, open_tasks, queue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOP = "credit"


def pair(high: float = 0.9, low: float = 0.2, **changes: Any) -> Pair:
    first, second = {"income": 40.0, "debt": 3.0}, {"income": 41.0, "debt": 3.0}
    values: dict[str, Any] = {
        "favoured": f"e{secrets.token_hex(4)}",
        "disfavoured": f"e{secrets.token_hex(4)}",
        "action_id": "approve",
        "high": high,
        "low": low,
        "distance": 0.1,
        "policy_version": "1",
        "payload": payload(first, second, (high, low), treatment="getting the loan"),
        "favoured_first": True,
        "rank": 1,
    }
    return Pair(**(values | changes))


class Panel:
    """A store and its people."""

    def __init__(self, store: Governance, auditors: int = 5) -> None:
        self.store = store
        self.people: list[Person] = []
        self.keys: list[str] = []
        for number in range(auditors):
            person, key = add_person(store, name=f"Auditor {number}", roles=["auditor"], now=NOW, by="test")
            self.people.append(person)
            self.keys.append(key)

    def open(self, *pairs: Pair, rule: Rule | None = None, stream: Any = "mined", window: str = "w1") -> list[str]:
        rule = rule or Rule()
        made = open_tasks(
            self.store, LOOP, rule, [(stream, each) for each in pairs], window_id=window, now=NOW, by="test"
        )
        assign(self.store, LOOP, now=NOW, by="test", rng=np.random.default_rng(1))
        return made

    def judge(self, task_id: str, *verdicts: str, at: datetime = NOW + timedelta(hours=1)) -> None:
        """Have the panel's members judge in order."""
        members = [p for p in self.people if any(task["task_id"] == task_id for task in queue(self.store, p, now=at))]
        for person, verdict in zip(members, verdicts, strict=False):
            task = next(task for task in queue(self.store, person, now=at) if task["task_id"] == task_id)
            said = Judgement(verdict=verdict, payload_hash=task["payload_hash"])  # type: ignore[arg-type]
            judge(self.store, person, task_id, said, now=at)

    def judge_in_two_kinds(self, pairs: int, *, seed: int = 0, at: datetime = NOW + timedelta(hours=1)) -> list[str]:
        """Have pairs judged: to every second auditor a gap between like incomes is unfair, to others like debts."""
        rng = np.random.default_rng(seed)
        made = self.open(*(unlike_pair(rng) for _ in range(pairs)))
        for number, person in enumerate(self.people):
            for task in queue(self.store, person, now=at):
                first, second = (card["features"] for card in task["payload"]["cards"])
                like = (
                    abs(first["income"] - second["income"]) < 10
                    if number % 2
                    else abs(first["debt"] - second["debt"]) < 1
                )
                said = Judgement(verdict="unfair" if like else "fair", payload_hash=task["payload_hash"])
                judge(self.store, person, task["task_id"], said, now=at)
        return made


def unlike_pair(rng: np.random.Generator) -> Pair:
    """Return a pair of people drawn at random."""
    cards: list[Shown] = [
        {"income": round(rng.normal(40, 10), 1), "debt": round(rng.normal(3, 1), 2)} for _ in range(2)
    ]
    return pair(payload=payload(cards[0], cards[1], (0.9, 0.2), treatment="getting the loan"))


def sqlite(folder: Path) -> Governance:
    return Governance(f"sqlite:///{folder / 'governance.db'}", folder / "anchors.jsonl")
