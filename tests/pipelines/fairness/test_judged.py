"""What auditors are told of the pairs that they judged, and who may appeal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from decision.errors import FieldError
from decision.fairness.pair_name import pair_name
from decision.fairness.rule import Rule
from pipelines.fairness.errors import ForbiddenError, NoTaskError
from pipelines.fairness.people import Person, add_person, revoke
from pipelines.fairness.report import status
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import queue
from pipelines.fairness.verdicts import adjudicate, appeal
from pipelines.fairness.verify import verify
from pipelines.fairness.views.effect import decided_pair, decided_pairs
from pipelines.fairness.views.judged import count_judged, is_new, judged_by, judged_pair, shares, take_tour
from tests.worlds.panels import LOOP, NOW, Panel, pair

HOUR = timedelta(hours=1)


def test_an_auditor_reads_what_they_said_the_latest_first_and_votes_only_once_the_panel_is_done(
    store: Governance, panel: Panel
) -> None:
    first, second = panel.open(pair(), pair(0.8, 0.5))
    panel.judge(first, "unfair", "unfair", "fair", "unfair", "unfair")
    panel.judge(second, "fair", "unfair", at=NOW + 2 * HOUR)
    me, other, _, _, last = panel.people
    rows = judged_by(store, me)
    assert [(row.task_id, row.verdict, row.status) for row in rows] == [
        (second, "fair", "open"),
        (first, "unfair", "upheld"),
    ]
    assert rows[1].name == pair_name(first)
    assert rows[0].verdicts == []  # nobody learns what others said of an open pair
    assert not rows[0].may_appeal
    (verdict,) = rows[1].verdicts
    assert (verdict.kind, verdict.unfair, verdict.fair, verdict.needed) == ("panel", 4, 1, 3)
    assert [row.task_id for row in judged_by(store, me, first=1, limit=1)] == [first]
    assert (count_judged(store, me), count_judged(store, last)) == (2, 1)
    with pytest.raises(NoTaskError, match="judged no such pair"):
        judged_pair(store, last, second)
    (mine,) = shares(store, me)
    assert (mine.loop, mine.auditors, mine.decided, mine.with_panel) == (LOOP, 5, 1, 1)
    assert shares(store, panel.people[2])[0].with_panel == 0
    assert other.person_id not in str(rows)


def test_a_member_of_the_panel_appeals_once_and_the_chain_holds_it(store: Governance, panel: Panel) -> None:
    (task,) = panel.open(pair(), rule=Rule(auditors=3))
    panel.judge(task, *["unfair"] * 5)
    members = [person for person in panel.people if count_judged(store, person)]
    stranger = next(person for person in panel.people if not count_judged(store, person))
    now = NOW + 2 * HOUR

    def appeals(person: object) -> str:
        by = person.person_id  # type: ignore[attr-defined]
        return appeal(store, LOOP, reason="It differs.", now=now, by=by, task_id=task, person=person)  # type: ignore[arg-type]

    before = store.head()
    with pytest.raises(ForbiddenError, match="only the panel"):
        appeals(stranger)
    assert store.head() == before
    appeals(members[0])
    assert judged_pair(store, members[0], task).status == "disputed"
    chief, _ = add_person(store, name="C", roles=["adjudicator"], now=now, by="test")
    adjudicate(store, task, "dismissed", note="It does.", now=now, by=chief.person_id, person=chief)
    found = judged_pair(store, members[0], task)
    assert [(one.kind, one.status) for one in found.verdicts] == [
        ("panel", "upheld"),
        ("appealed", "disputed"),
        ("adjudicated", "dismissed"),
    ]
    assert not found.may_appeal
    assert judged_pair(store, members[1], task).may_appeal
    with pytest.raises(FieldError, match="not appealed before"):
        appeals(members[0])
    appeals(members[1])
    assert verify(store).faults == ()


def test_nobody_holds_up_more_than_five_pairs_of_a_loop_by_appeals(store: Governance, panel: Panel) -> None:
    tasks = panel.open(*(pair(0.9, 0.2 + number / 100) for number in range(7)))
    for task in tasks:
        panel.judge(task, *["unfair"] * 5)
    owner, _ = add_person(store, name="O", roles=["owner"], owns=[LOOP], now=NOW, by="test")
    now = NOW + 2 * HOUR

    def appeals(task: str, person: Person) -> str:
        return appeal(store, LOOP, reason="It differs.", now=now, by=person.person_id, task_id=task, person=person)

    for task in tasks[:5]:
        appeals(task, owner)
    before = store.head()
    with pytest.raises(FieldError, match="at most 5 appeals of yours"):
        appeals(tasks[5], owner)
    assert store.head() == before
    appeals(tasks[5], panel.people[0])  # another's do not count
    adjudicate(store, tasks[0], "upheld", note="No.", now=now, by="test")
    appeals(tasks[6], owner)


@pytest.mark.parametrize("changes", [{"reason": "a\0b"}, {"event_id": "e" * 257}, {"event_id": "a\0b"}])
def test_an_appeal_that_the_store_cannot_keep_is_refused_by_name(store: Governance, changes: dict[str, str]) -> None:
    asked = {"event_id": "e1", "reason": "Mine."} | changes
    with pytest.raises(FieldError, match=next(iter(changes))):
        appeal(store, LOOP, now=NOW, by="test", **asked)


def test_the_owner_reads_votes_and_limits_of_decided_pairs_alone(store: Governance, panel: Panel) -> None:
    first, second = panel.open(pair(), pair(0.8, 0.5))
    panel.judge(first, *["unfair"] * 5)
    panel.judge(second, "fair")
    (row,) = decided_pairs(store, LOOP)
    assert (row.task_id, row.status, row.limit, row.judged.gap) == (first, "upheld", 0.0, pytest.approx(0.7))
    assert decided_pair(store, LOOP, first) == row
    assert decided_pairs(store, LOOP, first=1) == []
    for loop, task in ((LOOP, second), ("other", first)):
        with pytest.raises(NoTaskError):
            decided_pair(store, loop, task)


def test_the_tour_is_remembered_for_each_auditor(store: Governance, panel: Panel) -> None:
    me, other = panel.people[:2]
    assert is_new(store, me)
    take_tour(store, me, now=NOW)
    head = store.head()
    take_tour(store, me, now=NOW)  # once is enough
    assert store.head() == head
    assert not is_new(store, me)
    assert is_new(store, other)
    (task,) = panel.open(pair())
    panel.judge(task, *["fair"] * 5)
    assert not is_new(store, other)  # whoever judged needs no tour


def test_what_is_left_counts_only_judgements_that_can_still_be_given(store: Governance, panel: Panel) -> None:
    (task,) = panel.open(pair(), rule=Rule(deadline_s=7_200.0))
    assert status(store, LOOP, now=NOW).backlog == 5
    panel.judge(task, "fair")
    assert status(store, LOOP, now=NOW).backlog == 4
    revoke(store, panel.people[4].person_id, now=NOW, by="test")
    seen = status(store, LOOP, now=NOW + HOUR)
    assert seen.backlog == sum(len(queue(store, person, now=NOW + HOUR)) for person in panel.people[:4]) == 3
    assert status(store, LOOP, now=NOW + 3 * HOUR).backlog == 0  # over, though nobody has closed it yet
