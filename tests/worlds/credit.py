"""A loop that gives credit, with a group that history favoured: its accurate policy treats like people unlike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from decision.draw import draw, seed_of
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings
from tests.worlds.synthetic import new_loop, new_settings, open_parts, settle

START = datetime(2026, 1, 1, tzinfo=UTC)
LOOP = "credit"
TEXT = """
[gate]
minimum_ess = 5
margin = 0.3
[policy]
oracle = "linear"
exploration = "softmax"
inverse_temperature = 12.0
floor = 0.02
[training]
minimum = 50
[fairness]
enabled = true
protected = ["group", "name"]
treatment = "getting the credit"
action = "approve"
evidence = 0
standing = 0.0
"""
ACTIONS = ("approve", "deny")


@dataclass(frozen=True)
class Person:
    income: float
    debt: float
    group: str

    def context(self, number: int) -> dict[str, Any]:
        return {"income": self.income, "debt": self.debt, "group": self.group, "name": f"Person {number % 5}"}

    def pays(self) -> float:
        """Probability that approval is rewarded: history was kinder to the one group."""
        good = 1.2 * (self.income - self.debt) + (1.3 if self.group == "north" else -1.3)
        return 1.0 / (1.0 + float(np.exp(-good)))


def person(rng: np.random.Generator) -> Person:
    income, debt = (round(float(value), 2) for value in rng.uniform(-1, 1, size=2))
    return Person(income, debt, "north" if rng.random() < 0.5 else "south")


@dataclass
class Credit:
    """The loop, its parts, and decisions with a uniform policy."""

    settings: Settings
    loop: LoopSettings
    log: LocalLog
    lake: Lake
    registry: Registry

    @classmethod
    def at(cls, home: Path, text: str = TEXT) -> Credit:
        settings = new_settings(home)
        loop = new_loop(settings, LOOP, text)
        log, lake = open_parts(settings)
        return cls(settings, loop, log, lake, Registry(settings))

    def play(self, n: int, *, first: int = 0, seed: int = 0) -> None:
        """Log and settle `n` decisions of a uniform policy."""
        rng = np.random.default_rng([seed, first])
        decisions, outcomes = [], []
        for number in range(first, first + n):
            who, event_id = person(rng), f"e{number:05d}"
            seed_ = seed_of(LOOP, event_id)
            index = draw([0.5, 0.5], seed_)
            ts = START + timedelta(seconds=number)
            record = Decision(
                schema_version=SCHEMA_VERSION,
                loop=LOOP,
                event_id=event_id,
                ts=ts,
                subject_id=f"s{number:05d}",
                context=msgspec.Raw(msgspec.json.encode(who.context(number))),
                actions=msgspec.Raw(b'[{"give":1},{"give":0}]'),
                action_ids=list(ACTIONS),
                pmf=[0.5, 0.5],
                action_index=index,
                propensity=0.5,
                policy_version="baseline:uniform",
                baseline_version="uniform",
                seed=seed_,
            )
            decisions.append((event_id.encode(), encode(record), ()))
            value = float(rng.random() < who.pays()) if index == 0 else 0.5
            reward = Outcome(
                schema_version=SCHEMA_VERSION, loop=LOOP, event_id=event_id, value=value, ts=ts + timedelta(seconds=5)
            )
            outcomes.append((event_id.encode(), encode(reward), ()))
        self.log.append_many(DECISIONS, decisions)
        self.log.append_many(OUTCOMES, outcomes)
        settle(self.log, self.lake, self.loop)
