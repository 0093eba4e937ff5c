"""What types among auditors change: which pairs are mined beside the others, and which are clamped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from decision.fairness.blinding import Shown
from decision.fairness.mining import Pairs
from pipelines.fairness import tables as t
from pipelines.fairness.judges.judge_types import backed, judge_types, noted
from pipelines.fairness.judges.telling import telling
from pipelines.fairness.mine import Mined, mine
from pipelines.fairness.people import add_person, list_people
from pipelines.fairness.publish import publish
from pipelines.fairness.standing import upheld
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, assign, judge, queue
from pipelines.fairness.verify import verify
from pipelines.fairness.window import People
from pipelines.training.train import train
from tests.worlds.credit import LOOP, Credit
from tests.worlds.panels import NOW, Panel, sqlite

LATER = NOW + timedelta(hours=1)


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Credit:
    """A loop with a trained policy."""
    made = Credit.at(tmp_path_factory.mktemp("credit"))
    made.play(500)
    train(made.lake, made.registry, made.loop, seed=1, now=NOW)
    return made


@pytest.fixture(scope="module")
def store(credit: Credit) -> Iterator[Governance]:
    """Six auditors of two kinds who judged twenty pairs of the loop."""
    with Governance.at(credit.settings) as made:
        for number in range(6):
            add_person(made, name=f"Auditor {number}", roles=["auditor"], now=NOW, by="test")
        first = mined(made, credit, probe=0)
        assert (first.mined, first.types) == (20, 0)
        assign(made, LOOP, now=NOW, by="test", rng=np.random.default_rng(1))
        for number, person in enumerate(list_people(made)):
            for task in queue(made, person, now=LATER):
                one, other = (card["features"] for card in task["payload"]["cards"])
                nearer_in_income = abs(one["income"] - other["income"]) < abs(one["debt"] - other["debt"])
                verdict = "unfair" if nearer_in_income == (number % 2 == 0) else "fair"
                said = Judgement(verdict=verdict, payload_hash=task["payload_hash"])  # type: ignore[arg-type]
                judge(made, person, task["task_id"], said, now=LATER)
        yield made


def mined(store: Governance, credit: Credit, **options: Any) -> Mined:
    return mine(store, credit.lake, credit.registry, credit.loop, now=NOW, by="test", version="1", **options)


def test_mining_opens_pairs_that_tell_types_apart_beside_the_others(store: Governance, credit: Credit) -> None:
    found = mined(store, credit, mined=3, probe=2)
    assert (found.mined, found.probe, found.types) == (3, 2, 5)
    rows = store.rows(sa.select(t.tasks))
    pairs = [frozenset((row["favoured"], row["disfavoured"])) for row in rows if row["stream"] != "probe"]
    assert len(pairs) == len(set(pairs)) == 28
    assert min(row["gap"] for row in rows if row["stream"] == "types") > 0.01
    assert mined(store, credit, mined=0, probe=0, types=0).types == 0
    seen = noted(store, LOOP)
    assert seen is not None
    assert len(seen.types) == 2
    assert not verify(store).faults


def test_a_pair_is_clamped_only_where_each_type_backs_it_unless_a_loop_takes_the_panels_word(
    store: Governance, credit: Credit
) -> None:
    standing = upheld(store, LOOP)
    kept = backed(judge_types(store, LOOP), standing)
    assert 0 <= len(kept) < len(standing)
    for more, wanted in (({}, kept), ({"clamp_by": "panel"}, standing)):
        fairness = msgspec.structs.replace(credit.loop.fairness, clamp=True, **more)
        clamping = msgspec.structs.replace(credit.loop, fairness=fairness)
        assert publish(credit.settings, store, credit.lake, clamping) == len(wanted)


def test_the_most_telling_pair_is_alike_in_what_one_kind_forgives_only(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with sqlite(tmp_path_factory.mktemp("kinds")) as made:
        panel = Panel(made, auditors=8)
        panel.judge_in_two_kinds(12)
        found = judge_types(made, LOOP)
    assert found is not None
    assert len(found.types) == 2
    shown: list[Shown] = [{"income": 40.0 + 25 * (n == 1), "debt": 3.0 + 2 * (n == 2)} for n in range(4)]
    people = People([], [], shown, np.zeros((4, 0)), ["approve"], np.zeros((4, 1)))
    favoured, disfavoured = np.array([0, 0, 0, 1]), np.array([3, 1, 2, 2])
    pairs = Pairs(favoured, disfavoured, np.array([0.7, 0.7, 0.7, 0.001]), np.zeros((4, 0)))
    order = telling(found, people, pairs, larger_than=0.01)
    assert set(order[:2].tolist()) == {1, 2}  # unlike in income only, or in debt only
    assert order.size == 3
    assert telling(None, people, pairs, larger_than=0.01).size == 0
