"""From decisions in the lake to pairs, verdicts, a fairer policy and the gate's answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from decision.errors import FieldError, SupportError
from decision.fairness.blinding import ALWAYS_HIDDEN
from decision.fairness.exposure import slot_weights
from pipelines.evaluation.evaluate import evaluate
from pipelines.fairness import tables as t
from pipelines.fairness.erase import erase_payloads
from pipelines.fairness.gate import PanelGate, assess
from pipelines.fairness.mine import mine
from pipelines.fairness.people import add_person, list_people
from pipelines.fairness.report import replay, reports, status
from pipelines.fairness.standing import as_pairs, rescore, training_pairs, upheld
from pipelines.fairness.step import audit
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, assign, judge, queue
from pipelines.fairness.verdicts import appeal, close_overdue
from pipelines.fairness.verify import verify
from pipelines.fairness.window import people_of, treatments
from pipelines.promotion.promote import promote
from pipelines.registry.registry import Registry
from pipelines.training.train import train
from tests.worlds.credit import Credit
from tests.worlds.panels import NOW

LATER = NOW + timedelta(hours=1)


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Credit:
    """A loop with a trained policy that is nobody's champion yet."""
    made = Credit.at(tmp_path_factory.mktemp("credit"))
    made.play(1_500)
    train(made.lake, made.registry, made.loop, seed=1, now=NOW)
    return made


@pytest.fixture
def store(credit: Credit, tmp_path: object) -> Iterator[Governance]:
    """An empty store at the place where the loop's steps look for it."""
    folder = credit.settings.root / "governance"
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
    with Governance.at(credit.settings) as made:
        for number in range(5):
            add_person(made, name=f"Auditor {number}", roles=["auditor"], now=NOW, by="test")
        yield made


def judge_all(store: Governance, unfair_over: float = 0.3) -> None:
    """Have every auditor call unfair what differs by more than `unfair_over` though income and debt are alike."""
    assign(store, "credit", now=NOW, by="test", rng=np.random.default_rng(1))
    for person in list_people(store):
        for task in queue(store, person, now=LATER):
            first, second = task["payload"]["cards"]
            apart = sum(abs(first["features"][name] - second["features"][name]) for name in first["features"])
            gap = abs(first["probability"] - second["probability"])
            unfair = gap > unfair_over + apart
            limit = min(unfair_over + apart, gap / 2) if unfair else max(gap, unfair_over)
            said = Judgement(
                verdict="unfair" if unfair else "fair", payload_hash=task["payload_hash"], acceptable=min(limit, 1.0)
            )
            judge(store, person, task["task_id"], said, now=LATER)


def mined(store: Governance, credit: Credit, **options: object) -> object:
    return mine(store, credit.lake, credit.registry, credit.loop, now=NOW, by="test", version="1", **options)  # type: ignore[arg-type]


def test_mined_pairs_are_alike_in_what_counts_and_treated_differently(store: Governance, credit: Credit) -> None:
    found = mine(store, credit.lake, credit.registry, credit.loop, now=NOW, by="test", version="1", mined=10, probe=0)
    assert (found.mined, found.probe, found.ranking, found.policy_version) == (10, 0, "ratio", "1")
    tasks = store.rows(sa.select(t.tasks))
    assert min(row["gap"] for row in tasks) > 0.5
    assert max(row["distance"] for row in tasks) < 0.2
    rows = {row["event_id"]: row for row in credit.lake.decisions("credit").to_pylist()}
    for row in tasks:
        groups = [msgspec.json.decode(rows[row[side]]["context"])["group"] for side in ("favoured", "disfavoured")]
        assert groups == ["north", "south"]  # the policy's reason, which auditors do not see


def test_blinded_payloads_of_real_decisions_hold_nothing_they_should_not(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=20, probe=10)
    assign(store, "credit", now=NOW, by="test", rng=np.random.default_rng(1))
    rows = {row["event_id"]: row for row in credit.lake.decisions("credit").to_pylist()}
    for task in store.rows(sa.select(t.tasks)):
        text = task["payload"]
        for event_id in (task["favoured"], task["disfavoured"]):
            row = rows[event_id]
            context = msgspec.json.decode(row["context"])
            secret = [event_id, row["subject_id"], context["name"], context["group"], "approve", "deny"]
            assert not [word for word in secret if word in text]
        cards = msgspec.json.decode(text)["cards"]
        assert [sorted(card["features"]) for card in cards] == [["debt", "income"]] * 2
        assert not ALWAYS_HIDDEN & {name for card in cards for name in card}


def test_a_pair_is_mined_once(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=20, probe=0)
    mined(store, credit, mined=20, probe=0)
    pairs = [frozenset((r["favoured"], r["disfavoured"])) for r in store.rows(sa.select(t.tasks))]
    assert len(pairs) == len(set(pairs)) == 40


def test_a_metric_is_learned_once_enough_pairs_are_judged(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=30, probe=40)
    judge_all(store)
    again = mined(store, credit, mined=5, probe=0, gold=3)
    assert again.ranking == "learned"  # type: ignore[attr-defined]
    assert again.gold == 3  # type: ignore[attr-defined]
    gold = store.rows(sa.select(t.tasks).where(t.tasks.c.stream == "gold"))
    assert {row["expected"] for row in gold} <= {"fair", "unfair"}
    judge_all(store)
    seen = status(store, "credit", now=LATER)
    assert set(seen.gold.values()) == {1.0}
    assert seen.alpha == 1.0  # all five judge by the same rule


def test_upheld_pairs_cost_in_training_and_their_gaps_shrink(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=12, probe=0)
    judge_all(store)
    standing = upheld(store, "credit")
    assert len(standing) == 12
    pairs = training_pairs(credit.settings, credit.lake, credit.loop)
    assert pairs is not None
    fair = train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW, pairs=pairs)
    again = train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW, pairs=pairs)
    files = [credit.registry.files("credit", version) for version in (fair.version, again.version)]
    assert files[0].items() - files[1].items() == set()
    before = rescore(credit.lake, credit.loop, standing, policy(credit.registry, "1"))
    after = rescore(credit.lake, credit.loop, standing, policy(credit.registry, fair.version))
    assert all(before.violating)
    assert not any(after.violating)
    assert np.mean(np.abs(after.gaps)) < 0.5 * np.mean(np.abs(before.gaps))
    assert fair.metrics["train.fairness_pairs"] == 12.0
    assert fair.metrics["train.fairness_cost"] > 0
    # what it costs: the estimated value of both on the same holdout
    values = [evaluate(credit.lake, credit.registry, credit.loop, v).values[0].dr for v in ("1", fair.version)]
    assert values[1].value > values[0].value - 0.2


def test_the_gate_refuses_standing_violations_and_lets_the_fairer_version_through(
    store: Governance, credit: Credit
) -> None:
    mined(store, credit, mined=12, probe=0)
    judge_all(store)
    panels = PanelGate(credit.settings, credit.lake, credit.registry, credit.loop)
    arguments = {"now": NOW, "by": "test"}
    blind = promote(credit.lake, credit.registry, credit.loop, version="1", panels=panels, **arguments)  # type: ignore[arg-type]
    assert not blind.promoted
    assert any("12 of 12 upheld pairs still violate" in reason for reason in blind.reasons)
    unasked = promote(credit.lake, credit.registry, credit.loop, version="1", **arguments)  # type: ignore[arg-type]
    assert "fairness: the panels were not asked" in unasked.reasons
    pairs = training_pairs(credit.settings, credit.lake, credit.loop)
    fair = train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW, pairs=pairs).version
    done = promote(credit.lake, credit.registry, credit.loop, version=fair, panels=panels, **arguments)  # type: ignore[arg-type]
    assert done.promoted, done.reasons
    assert done.numbers["fairness_violating"] == 0.0
    kinds = [entry.kind for entry in store.entries(kind="gate")]
    assert len(kinds) == 2
    assert verify(store).faults == ()
    # a version that is unfair again is refused against the fair champion
    back = promote(credit.lake, credit.registry, credit.loop, version="1", panels=panels, **arguments)  # type: ignore[arg-type]
    assert any("less alike than before" in reason for reason in back.reasons)


def test_too_little_evidence_is_a_refusal_with_its_reason(store: Governance, credit: Credit) -> None:
    strict = msgspec.structs.replace(
        credit.loop, fairness=msgspec.structs.replace(credit.loop.fairness, evidence=30, rate=0.5)
    )
    mined(store, credit, mined=0, probe=10)
    judge_all(store)
    done = assess(store, credit.lake, credit.registry, strict, "1", None)
    assert not done.passed
    assert any(
        "too little evidence: 10 probe pairs" in reason or "probe pairs are judged" in reason for reason in done.reasons
    )
    mined(store, credit, mined=0, probe=48)
    judge_all(store)
    done = assess(store, credit.lake, credit.registry, strict, "1", None)
    assert done.numbers["fairness_probed"] >= 30  # type: ignore[operator]
    assert not any("probe pairs are judged" in reason for reason in done.reasons)
    assert 0.0 <= done.numbers["fairness_rate"] <= done.numbers["fairness_rate_high"] <= 1.0  # type: ignore[operator]


def test_an_audit_log_that_does_not_verify_closes_the_gate(store: Governance, credit: Credit) -> None:
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_log_no_UPDATE")
        connection.exec_driver_sql("UPDATE audit_log SET actor = 'x' WHERE seq = 2")
    done = assess(store, credit.lake, credit.registry, credit.loop, "1", None)
    assert not done.passed
    assert "does not verify" in done.reasons[0]


def test_an_appeal_is_paired_with_a_better_treated_neighbour(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=1, probe=0)
    (task,) = store.rows(sa.select(t.tasks))
    appeal(store, "credit", event_id=task["disfavoured"], reason="My neighbour got it.", now=NOW, by="s")
    appeal(store, "credit", event_id="nobody", reason="?", now=NOW, by="s")
    found = mined(store, credit, mined=0, probe=0)
    assert found.appeals == 1  # type: ignore[attr-defined]
    assert sorted(row["status"] for row in store.rows(sa.select(t.appeals))) == ["reviewed", "unmatched"]
    (made,) = store.rows(sa.select(t.tasks).where(t.tasks.c.stream == "appeal"))
    assert made["disfavoured"] == task["disfavoured"]


def test_replay_at_the_original_rule_changes_nothing_and_a_lower_quorum_upholds_more(
    store: Governance, credit: Credit
) -> None:
    mined(store, credit, mined=10, probe=10)
    judge_all(store)
    same = replay(store, "credit", quorum=0.6, sensitivity=0.0)
    assert (same.added, same.removed) == ([], [])
    assert same.upheld == len(upheld(store, "credit"))
    strict = replay(store, "credit", quorum=0.6, sensitivity=0.3)
    assert strict.upheld <= same.upheld
    with pytest.raises(FieldError, match="quorum"):
        replay(store, "credit", quorum=0.0, sensitivity=0.0)


def test_reports_show_no_auditor_and_no_vote_of_an_open_pair(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=3, probe=0)
    assert all(row["votes"] is None and row["stream"] is None for row in reports(store, "credit", wanted="open"))
    judge_all(store)
    done = reports(store, "credit", wanted="upheld")
    assert {row["stream"] for row in done} == {"mined"}
    assert all(row["votes"] == {"unfair": 5, "fair": 0, "cannot_tell": 0} for row in done)
    assert not any(
        "p" + person[1:] in str(done) for person in [r["person_id"] for r in store.rows(sa.select(t.people))]
    )


def test_the_night_mines_assigns_and_closes(store: Governance, credit: Credit) -> None:
    done = audit(credit.settings, credit.lake, credit.registry, credit.loop, NOW, seed=1)
    assert done["assigned"] == done["mined"]["mined"] + done["mined"]["probe"] > 0
    assert close_overdue(store, now=NOW + timedelta(days=4), by="test") == done["assigned"]


def test_pairs_of_erased_decisions_lapse(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=2, probe=0)
    judge_all(store)
    standing = upheld(store, "credit")
    gone = msgspec.structs.replace(standing[0], favoured="erased")
    scored = rescore(credit.lake, credit.loop, [gone, standing[1]], None)
    assert (len(scored.pairs), scored.lapsed, scored.gaps) == (1, 1, [0.0])  # logged: uniform
    assert len(as_pairs(credit.lake, "credit", [gone, standing[1]])) == 1


def test_an_erased_subjects_payloads_go_and_the_chain_stays_whole(store: Governance, credit: Credit) -> None:
    mined(store, credit, mined=3, probe=0)
    assign(store, "credit", now=NOW, by="test", rng=np.random.default_rng(1))
    first = store.rows(sa.select(t.tasks))[0]
    subject = "s" + first["favoured"][1:]
    assert erase_payloads(credit.settings, credit.lake, subject, now=NOW, by="test") >= 1
    rows = {row["task_id"]: row for row in store.rows(sa.select(t.tasks))}
    assert rows[first["task_id"]]["payload"] is None
    assert rows[first["task_id"]]["payload_hash"] == first["payload_hash"]
    person = list_people(store)[0]
    assert first["task_id"] not in {task["task_id"] for task in queue(store, person, now=LATER)}
    assert verify(store).faults == ()
    assert erase_payloads(credit.settings, credit.lake, "nobody", now=NOW, by="test") == 0


def test_exposure_compares_what_a_page_shows_people_over_its_slots(credit: Credit) -> None:
    rows = credit.lake.decisions("credit").slice(0, 2).to_pylist()
    pages = []
    for row in rows:
        for slot, offset in (("top", 1), ("side", 2)):
            pages.append(row | {"slot": slot, "offset": row["offset"] * 10 + offset, "pmf": [0.8, 0.2]})
    table = pa.Table.from_pylist(pages, schema=credit.lake.decisions("credit").schema)
    by_exposure = msgspec.structs.replace(credit.loop.fairness, unit="exposure")
    weights = slot_weights(2)
    for event_id, seen in treatments(table, None, by_exposure).items():
        assert event_id in {row["event_id"] for row in rows}
        assert seen == pytest.approx({"approve": 0.8 * weights.sum(), "deny": 0.2 * weights.sum()})
    scored = treatments(table, policy(credit.registry, "1"), by_exposure)  # type: ignore[arg-type]
    people = people_of(table, policy(credit.registry, "1"), by_exposure)  # type: ignore[arg-type]
    assert len(scored) == 2
    assert people.probability.shape == (2, 1)  # `action` names the compared item


def test_a_loop_without_two_people_says_so(store: Governance, credit: Credit) -> None:
    nobody = msgspec.structs.replace(credit.loop, name="empty")
    with pytest.raises(SupportError, match="no two people"):
        mine(store, credit.lake, credit.registry, nobody, now=NOW, by="test")


def policy(registry: Registry, version: str) -> object:
    from decision.artifact import unpack

    return unpack(registry.files("credit", version))[0]
