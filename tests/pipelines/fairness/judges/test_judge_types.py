"""Kinds of auditors, found from what they said and told without their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from pipelines.fairness import tables as t
from pipelines.fairness.judges.covariates import Cards, Covariates
from pipelines.fairness.judges.judge_types import NOTED, JudgeTypes, backed, judge_types, note, noted, told
from pipelines.fairness.people import revoke
from pipelines.fairness.publish import clamped
from pipelines.fairness.standing import upheld
from pipelines.fairness.store import Governance
from pipelines.fairness.verify import verify
from pipelines.settings import parse_loop
from tests.worlds.panels import LOOP, NOW, Panel, sqlite


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """Eight auditors of two kinds who judged thirty pairs."""
    with sqlite(tmp_path_factory.mktemp("kinds")) as store:
        made = Panel(store, auditors=8)
        made.judge_in_two_kinds(30)
        yield made


@pytest.fixture(scope="module")
def found(panel: Panel) -> JudgeTypes:
    types = judge_types(panel.store, LOOP)
    assert types is not None
    return types


def test_auditors_who_forgive_different_things_are_two_types_and_each_is_told_by_what_it_weighs(
    panel: Panel, found: JudgeTypes
) -> None:
    seen = told(panel.store, LOOP, found)
    assert (seen.judges, seen.judgements) == (8, 150)
    assert [one.judges for one in seen.types] == pytest.approx([4.0, 4.0], abs=0.1)
    first = [min(one.weighs, key=lambda weight: weight[1])[0] for one in seen.types]
    assert set(first) == {"income", "debt"}  # the larger the difference in it, the less unfair
    assert seen.held_out[1] - seen.held_out[0] > 2 * seen.gain_error[1]


def test_who_is_of_which_type_is_told_to_nobody(panel: Panel, found: JudgeTypes) -> None:
    text = json.dumps(msgspec.to_builtins(told(panel.store, LOOP, found)))
    assert not any(person.person_id in text or person.name in text for person in panel.people)


def test_the_same_judgements_give_the_same_types(panel: Panel, found: JudgeTypes) -> None:
    again = judge_types(panel.store, LOOP)
    assert again is not None
    assert np.array_equal(again.types.weights, found.types.weights)


def test_pairs_that_one_type_holds_to_be_fair_are_not_backed(panel: Panel, found: JudgeTypes) -> None:
    standing = upheld(panel.store, LOOP)
    kept = {pair.task_id for pair in backed(found, standing)}
    rows = {row["task_id"]: row for row in panel.store.rows(sa.select(t.tasks))}
    for pair in standing:
        first, second = (card["features"] for card in json.loads(rows[pair.task_id]["payload"])["cards"])
        incomes, debts = abs(first["income"] - second["income"]) < 10, abs(first["debt"] - second["debt"]) < 1
        assert incomes or debts
        if pair.task_id in kept:
            assert (incomes, debts) == (True, True)
    assert 0 < len(kept) < len(standing)


def test_a_clamp_asks_each_type_unless_a_loop_takes_the_panels_word_alone(panel: Panel, found: JudgeTypes) -> None:
    standing = upheld(panel.store, LOOP)
    for text, wanted in (("", backed(found, standing)), ('clamp_by = "panel"', standing)):
        loop = parse_loop(f"[fairness]\nenabled = true\nclamp = true\n{text}", LOOP, {})
        assert clamped(panel.store, loop) == wanted
    assert [one.asked for one in told(panel.store, LOOP, found).types] == [True, True]


def test_two_of_a_kind_take_no_clamp_away_and_three_do(tmp_path: Path) -> None:
    """Of five auditors two forgive another thing than the others; of seven three do."""
    kept: dict[int, tuple[int, int, list[bool]]] = {}
    for auditors in (5, 7):
        with sqlite(tmp_path) as store:
            panel = Panel(store, auditors=auditors)
            panel.judge_in_two_kinds(40)
            found, standing = judge_types(store, LOOP), upheld(store, LOOP)
            seen = told(store, LOOP, found)
            assert sorted(round(one.judges) for one in seen.types) == [auditors // 2, auditors - auditors // 2]
            kept[auditors] = len(backed(found, standing)), len(standing), [one.asked for one in seen.types]
        (tmp_path / "governance.db").unlink()
    (both, of_five, asked_of_five), (fewer, of_seven, asked_of_seven) = kept[5], kept[7]
    assert (both, asked_of_five) == (of_five, [False, False])
    assert (fewer < of_seven, asked_of_seven) == (True, [True, True])


def test_people_who_call_nothing_unfair_take_no_clamp_away(panel: Panel, found: JudgeTypes) -> None:
    """One type is as it was found, the other says "fair" of every pair: nobody is left who could be outvoted."""
    standing, types = upheld(panel.store, LOOP), found.types
    never = np.append(np.zeros(types.weights.shape[1] - 1), -4.0)
    other = replace(found, types=replace(types, weights=np.stack([types.weights[0], never])))
    assert backed(other, standing) == standing
    assert len(backed(found, standing)) < len(standing)


def test_what_was_found_is_read_back_from_the_audit_log_which_verifies(panel: Panel, found: JudgeTypes) -> None:
    seen = told(panel.store, LOOP, found)
    assert noted(panel.store, "other") is None
    with panel.store.write(NOW, "test") as writing:
        note(writing, LOOP, msgspec.structs.replace(seen, judges=3))
        note(writing, LOOP, seen)
    read = noted(panel.store, LOOP)
    assert read is not None
    assert msgspec.structs.asdict(read) == msgspec.structs.asdict(seen) | {"at": read.at}
    assert read.at.startswith("2026-03-01T12")
    assert not verify(panel.store).faults
    assert [entry.subject for entry in panel.store.entries(kind=NOTED)] == [LOOP, LOOP]


def test_too_few_judgements_tell_no_kinds_and_keep_every_pair(store: Governance, panel: Panel) -> None:
    few = Panel(store)
    few.judge_in_two_kinds(3)
    assert judge_types(store, LOOP) is None
    seen = told(store, LOOP, None)
    assert (seen.types, seen.judges, seen.judgements) == ([], 5, 15)
    standing = upheld(store, LOOP)
    assert backed(None, standing) == standing
    assert seen.backed == seen.upheld == len(standing)


def test_who_no_longer_has_a_key_is_of_no_type(tmp_path: Path) -> None:
    with sqlite(tmp_path) as store:
        panel = Panel(store, auditors=6)
        panel.judge_in_two_kinds(15)
        before = judge_types(store, LOOP)
        assert before is not None
        assert before.types.belonging.shape[0] == 6
        revoke(store, panel.people[0].person_id, now=NOW, by="test")
        after = judge_types(store, LOOP)
        assert after is not None
        assert after.types.belonging.shape[0] == 5


def test_covariates_are_the_gap_and_unsigned_differences_of_mean_0_and_variance_1() -> None:
    rng = np.random.default_rng(0)
    people = [{"income": float(rng.normal(40, 10)), "job": str(rng.integers(3)), "town": "x"} for _ in range(80)]
    cards = list(zip(people[::2], people[1::2], strict=True))
    gaps = rng.random(40)
    made = Covariates.of(cards, gaps)
    numbers = made.apply(cards, gaps)
    assert set(made.names) == {"gap", "income", "job"}  # nobody differs in the town
    assert numbers.mean(0) == pytest.approx(np.zeros(3))
    assert numbers.std(0) == pytest.approx(np.ones(3))
    turned = [(second, first) for first, second in cards]
    assert np.array_equal(made.apply(turned, gaps), numbers)
    assert np.unique(numbers[:, made.names.index("job")]).size == 2
    assert made.apply([], np.zeros(0)).shape == (0, 3)


def test_a_feature_that_few_pairs_differ_in_is_not_named() -> None:
    cards: list[Cards] = [({"income": float(n), "visited.Ada": float(n == 0)}, {"income": 0.5}) for n in range(9)]
    assert Covariates.of(cards, np.linspace(0.1, 0.9, 9)).names == ("gap", "income", "visited.Ada")
    few: list[Cards] = [
        ({"income": float(n), **({"visited.Ada": 1.0} if n == 0 else {})}, {"income": 0.5}) for n in range(9)
    ]
    assert Covariates.of(few, np.linspace(0.1, 0.9, 9)).names == ("gap", "income")
