"""How a loop's panels stand is counted by the database, and agrees with counting by hand."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from decision.fairness.agreement import agreement
from decision.fairness.rule import Rule
from pipelines.fairness.report import fold, replay, status
from pipelines.fairness.store import Governance
from pipelines.fairness.verdicts import close_overdue
from tests.worlds.panels import LOOP, NOW, Panel, pair

QUORUMS = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_counts_agreement_and_quorums_are_those_of_the_judgements(store: Governance, panel: Panel) -> None:
    rng = np.random.default_rng(3)
    tasks = panel.open(*(pair(high=0.3 + 0.05 * number) for number in range(9)), rule=Rule(minimum=2))
    said = {task: rng.choice(["unfair", "fair", "cannot_tell"], 5, p=[0.5, 0.4, 0.1]).tolist() for task in tasks[:7]}
    for task, votes in said.items():
        panel.judge(task, *votes)
    close_overdue(store, now=NOW + timedelta(days=4), by="test")  # nobody judged the last two
    seen = status(store, LOOP, now=NOW)
    found = agreement([[vote for vote in votes if vote != "cannot_tell"] for votes in said.values()])
    assert (seen.alpha, seen.pairwise) == pytest.approx((found.alpha, found.pairwise), abs=1e-12)
    assert seen.judgements == 5 * len(said)
    assert seen.auditors == 5
    unfair = sum(votes.count("unfair") for votes in said.values())
    assert sum(seen.reports.values()) * len(said) == pytest.approx(unfair)
    assert sum(seen.tasks.values()) == sum(seen.streams.values()) == len(tasks)
    assert seen.tasks["no_quorum"] == 2
    assert [row["gap"] for row in seen.worst] == sorted((row["gap"] for row in seen.worst), reverse=True)
    replayed = [replay(store, LOOP, quorum=quorum, sensitivity=0.0) for quorum in QUORUMS]
    assert [(one.upheld, one.disputed) for one in fold(store, LOOP, QUORUMS)] == [
        (one.upheld, one.disputed) for one in replayed
    ]
    assert len({one.upheld for one in replayed}) > 1
    assert all(one.quorum != 0.6 or not (one.added or one.removed) for one in replayed)  # as it was judged


def test_what_waits_is_counted_apart_from_what_is_over(store: Governance, panel: Panel) -> None:
    panel.open(pair(), pair())
    before = status(store, LOOP, now=NOW)
    assert (before.backlog, before.overdue) == (10, 0)
    assert before.oldest_open is not None
    late = status(store, LOOP, now=NOW + timedelta(days=4))
    assert (late.backlog, late.overdue) == (0, 2)
    other = status(store, "nobody", now=NOW)
    assert (other.backlog, other.overdue, other.oldest_open, other.judgements, other.worst) == (0, 0, None, 0, [])
