"""The workflow of a pair, on both databases."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.rule import Rule
from pipelines.fairness import tables as t
from pipelines.fairness.errors import ForbiddenError, NoTaskError
from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, assign, judge, queue, task_for
from pipelines.fairness.verdicts import adjudicate, appeal, close_overdue
from pipelines.fairness.verify import verify
from tests.worlds.panels import LOOP, NOW, Panel, pair

LATER = NOW + timedelta(hours=1)


def status_of(store: Governance, task_id: str) -> str:
    (row,) = store.rows(sa.select(t.tasks.c.status).where(t.tasks.c.task_id == task_id))
    return row["status"]


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["unfair"] * 3 + ["fair"] * 2, "upheld"),
        (["unfair"] * 2 + ["fair"] * 3, "dismissed"),
        (["unfair"] * 2 + ["cannot_tell"] * 3, "no_quorum"),
        (["unfair"] * 4, "open"),
    ],
)
def test_a_panel_decides_by_its_quorum_once_all_have_judged(panel: Panel, verdicts: list[str], status: str) -> None:
    (task,) = panel.open(pair())
    panel.judge(task, *verdicts)
    assert status_of(panel.store, task) == status
    assert verify(panel.store).faults == ()


def test_a_deadline_closes_on_what_was_judged(panel: Panel) -> None:
    first, second = panel.open(pair(), pair())
    panel.judge(first, "unfair", "unfair", "unfair")
    panel.judge(second, "unfair")
    assert close_overdue(panel.store, now=LATER, by="test") == 0
    assert close_overdue(panel.store, now=NOW + timedelta(days=3), by="test") == 2
    assert [status_of(panel.store, task) for task in (first, second)] == ["upheld", "no_quorum"]
    assert verify(panel.store).faults == ()


def test_a_divided_panel_goes_to_an_adjudicator_who_did_not_sit_on_it(panel: Panel) -> None:
    (task,) = panel.open(pair(), rule=Rule(quorum=0.9))
    panel.judge(task, "unfair", "unfair", "fair", "fair", "fair")
    assert status_of(panel.store, task) == "disputed"
    judged = panel.store.rows(sa.select(t.judgements))
    stranger, _ = add_person(panel.store, name="A", roles=["adjudicator"], now=NOW, by="test")
    owner, _ = add_person(panel.store, name="O", roles=["adjudicator", "owner"], owns=[LOOP], now=NOW, by="test")
    with pytest.raises(ForbiddenError, match="owner"):
        adjudicate(panel.store, task, "upheld", note="x", now=LATER, by="o", person=owner)
    with pytest.raises(ForbiddenError, match="only adjudicators"):
        adjudicate(panel.store, task, "upheld", note="x", now=LATER, by="a", person=panel.people[0])
    with pytest.raises(FieldError, match="note"):
        adjudicate(panel.store, task, "upheld", note=" ", now=LATER, by="a", person=stranger)
    done = adjudicate(panel.store, task, "upheld", note="The same income.", now=LATER, by="a", person=stranger)
    assert done["status"] == status_of(panel.store, task) == "upheld"
    assert panel.store.rows(sa.select(t.judgements)) == judged
    with pytest.raises(FieldError, match="a disputed pair"):
        adjudicate(panel.store, task, "dismissed", note="again", now=LATER, by="a", person=stranger)
    assert verify(panel.store).faults == ()


def test_an_owner_is_neither_drawn_nor_heard(panel: Panel) -> None:
    owner, _ = add_person(panel.store, name="O", roles=["auditor", "owner"], owns=[LOOP], now=NOW, by="test")
    (task,) = panel.open(pair(), rule=Rule(auditors=6))
    members = {row["person_id"] for row in panel.store.rows(sa.select(t.assignments))}
    assert members == {person.person_id for person in panel.people}
    with panel.store._engine.begin() as connection:  # assigned by someone who went past the rule
        connection.execute(sa.insert(t.assignments).values(task_id=task, person_id=owner.person_id, assigned_at="2026"))
    digest = queue(panel.store, panel.people[0], now=LATER)[0]["payload_hash"]
    with pytest.raises(ForbiddenError, match="does not audit it"):
        judge(panel.store, owner, task, Judgement(verdict="unfair", payload_hash=digest), now=LATER)


def test_an_auditor_sees_own_tasks_only_and_no_vote_of_others(panel: Panel) -> None:
    panel.open(*[pair() for _ in range(6)], rule=Rule(auditors=3))
    first, second = panel.people[:2]
    own = {task["task_id"] for task in queue(panel.store, first, now=LATER)}
    other = {task["task_id"] for task in queue(panel.store, second, now=LATER)} - own
    assert own
    assert other
    with pytest.raises(NoTaskError):
        task_for(panel.store, first, other.pop(), now=LATER)
    shown = queue(panel.store, first, now=LATER)[0]
    assert set(shown) == {"task_id", "due_at", "payload", "payload_hash"}


def test_load_is_spread_evenly_over_the_auditors(panel: Panel) -> None:
    panel.open(*[pair() for _ in range(10)], rule=Rule(auditors=3))
    counts = [len(queue(panel.store, person, now=LATER)) for person in panel.people]
    assert counts == [6] * 5


def test_tasks_wait_while_there_are_too_few_auditors(store: Governance) -> None:
    small = Panel(store, auditors=2)
    small.open(pair())
    counts = assign(store, LOOP, now=NOW, by="test", rng=np.random.default_rng(0))
    assert counts == {"assigned": 0, "waiting": 1}


def test_the_same_judgement_twice_is_one_and_another_is_refused(panel: Panel) -> None:
    (task,) = panel.open(pair())
    person = panel.people[0]
    said = Judgement(verdict="unfair", payload_hash=queue(panel.store, person, now=LATER)[0]["payload_hash"])
    first = judge(panel.store, person, task, said, now=LATER)
    assert judge(panel.store, person, task, said, now=LATER + timedelta(hours=1)) == first
    with pytest.raises(FieldError, match="as judged before"):
        judge(panel.store, person, task, Judgement(verdict="fair", payload_hash=said.payload_hash), now=LATER)
    assert len(panel.store.rows(sa.select(t.judgements))) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payload_hash": "0" * 64}, "payload_hash"),
        ({"verdict": "maybe"}, "verdict"),
        ({"acceptable": 1.5}, "acceptable"),
        ({"acceptable": 0.8}, "acceptable"),  # "unfair", yet a gap of .7 would be acceptable
        ({"verdict": "fair", "acceptable": 0.5}, "acceptable"),
        ({"verdict": "cannot_tell", "acceptable": 0.5}, "acceptable"),
        ({"reason": "x" * 2_001}, "reason"),
    ],
)
def test_a_judgement_that_does_not_fit_names_its_field(panel: Panel, changes: dict[str, object], field: str) -> None:
    (task,) = panel.open(pair())
    person = panel.people[0]
    digest = queue(panel.store, person, now=LATER)[0]["payload_hash"]
    said = Judgement(**({"verdict": "unfair", "payload_hash": digest} | changes))  # type: ignore[arg-type]
    with pytest.raises(FieldError) as caught:
        judge(panel.store, person, task, said, now=LATER)
    assert caught.value.field == field
    assert panel.store.rows(sa.select(t.judgements)) == []


def test_the_sensitivity_of_the_rule_asks_for_more_than_the_acceptable_gap(panel: Panel) -> None:
    (task,) = panel.open(pair(0.5, 0.35), rule=Rule(sensitivity=0.2))
    panel.judge(task, *["unfair"] * 5)  # each accepts 0, the gap is .15
    assert status_of(panel.store, task) == "dismissed"


def test_an_appealed_verdict_is_a_dispute_again(panel: Panel) -> None:
    (task,) = panel.open(pair())
    panel.judge(task, *["fair"] * 5)
    appeal(panel.store, LOOP, task_id=task, reason="The panel overlooked the debt.", now=LATER, by="owner")
    assert status_of(panel.store, task) == "disputed"
    adjudicate(panel.store, task, "upheld", note="It did.", now=LATER, by="test")
    assert status_of(panel.store, task) == "upheld"
    assert verify(panel.store).faults == ()
    with pytest.raises(FieldError, match="either"):
        appeal(panel.store, LOOP, task_id=task, event_id="e", reason="x", now=LATER, by="owner")
