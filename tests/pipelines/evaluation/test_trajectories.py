"""Judging a policy with memory by a log that holds another memory, or none."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import pipelines.evaluation.trajectories as module
from decision.artifact import unpack
from decision.features import PREFIX
from decision.ope.diagnostics.untried import Untried
from decision.ope.sequential.trajectories import steps_of
from decision.policy import OraclePolicy
from decision.records import Decision, Outcome
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.holdout import users_of
from pipelines.evaluation.trajectories import remembered, trajectories
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.arrays import to_interactions
from pipelines.interactions.join import join
from pipelines.promotion.promote import promote
from pipelines.settings import parse_loop
from pipelines.trajectories.memories import memory_of
from tests.pipelines.promotion.test_watch import LEVELS, STEPS, Shop, records, users
from tests.worlds.lake import LATER, World

LOG = users(1, 60)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("shop"))
    made.see(LOG, "user", timedelta(0))
    return made


def policy_of(shop: Shop) -> OraclePolicy:
    policy, _ = unpack(shop.registry.files("shop", shop.session))
    assert isinstance(policy, OraclePolicy)
    return policy


def test_a_memory_is_made_of_all_that_happened_to_the_user_before(shop: Shop) -> None:
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    rows = shop.world.lake.table("interactions").to_pyarrow_table()
    found = remembered(shop.world.lake, shop.loop, rows, oracle, to_interactions(rows))
    at = dict(zip(rows["event_id"].to_pylist(), found.batch.contexts, strict=True))
    state = oracle.start()
    for step in range(STEPS):
        held = at[f"user-7-{step}"]
        assert [held[f"{PREFIX}{oracle.name}[{i}]"] for i in range(len(state))] == state.tolist()
        state = oracle.advance(state, f"d{LOG.actions[7, step]}", float(LOG.rewards[7, step]))


def test_trajectories_weigh_whole_beginnings_as_by_hand(shop: Shop) -> None:
    """The net's head is 0, so the policy is uniform over 13 documents whatever it remembers."""
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    found = trajectories(shop.world.lake, shop.loop, policy, oracle, 3)
    assert found is not None
    weight = np.cumprod(1 / len(LEVELS) / LOG.propensities[:, :3].astype(float), axis=1)
    by_step = (weight * LOG.rewards[:, :3]).sum(0) / weight.sum(0)
    assert (found.users, found.steps) == (60, 3)
    assert found.value.value == pytest.approx(by_step.mean(), rel=1e-6)
    assert found.logged == pytest.approx(LOG.rewards[:, :3].mean(), rel=1e-6)


def test_who_left_early_counts_with_what_he_brought(tmp_path: Path, shop: Shop) -> None:
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    world, length = World(tmp_path), [1 + number % 4 for number in range(60)]
    kept = [r for r in records(LOG, "user", timedelta(0)) if int(r.event_id.split("-")[2]) < length[_user(r)]]
    world.append(*kept)
    ingest(world.log, world.lake)
    join(world.lake, shop.loop, LATER)
    found = trajectories(world.lake, shop.loop, policy, oracle, 3)
    assert found is not None
    there = np.arange(3) < np.minimum(length, 3)[:, None]
    ratio = np.where(there, 1 / len(LEVELS) / LOG.propensities[:, :3].astype(float), 1.0)
    weight, reward = np.cumprod(ratio, axis=1), np.where(there, LOG.rewards[:, :3], 0.0)
    assert found.users == 60
    assert found.value.value == pytest.approx(((weight * reward).sum(0) / weight.sum(0)).mean(), rel=1e-6)
    assert found.logged == pytest.approx(reward.mean(), rel=1e-6)


def _user(record: Decision | Outcome) -> int:
    return int(record.event_id.split("-")[1])


def test_at_the_gate_a_policy_with_memory_is_judged_by_so_many_users_not_by_their_decisions(shop: Shop) -> None:
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.session, against="baseline")
    for sums in (found.lift.sums, found.switched.sums):
        assert sums.settled is not None
        assert 1 < sums.settled.effective <= sums.settled.clusters <= 60
    bandit = evaluate(shop.world.lake, shop.registry, shop.loop, shop.bandit, against="baseline")
    assert bandit.lift.sums.settled is None


def test_a_row_of_nobody_is_alone() -> None:
    table = pa.table({"subject_id": ["a", None, "a", None], "event_id": ["1", "2", "3", "4"]})
    found = users_of(table, "feed").tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_the_gate_asks_the_trajectories_too(shop: Shop) -> None:
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.session, against="baseline")
    assert found.trajectories is not None
    assert found.metrics()["eval.trajectories"] == found.trajectories.value.value
    shop.point(shop.bandit, shop.session)
    strict = parse_loop(
        "[reward]\nmaximum = 1000.0\n[gate]\nmargin = 1000.0\nminimum_ess = 40\nsession_steps = 5\n", "shop", {}
    )
    lenient = parse_loop(
        "[reward]\nmaximum = 1000.0\n[gate]\nmargin = 1000.0\nminimum_ess = 5\nsession_steps = 2\n", "shop", {}
    )
    refused = promote(shop.world.lake, shop.registry, strict, version=shop.session, now=LATER, by="a test")
    assert not refused.promoted
    assert any("effective trajectories are below 40" in reason for reason in refused.reasons)
    taken = promote(shop.world.lake, shop.registry, lenient, version=shop.session, now=LATER, by="a test")
    assert taken.promoted, taken.reasons
    assert taken.numbers["trajectories_logged"] == pytest.approx(float(LOG.rewards[:, :2].mean()), rel=1e-6)


def test_as_many_steps_are_weighed_as_the_number_of_users_allows(shop: Shop) -> None:
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    found = trajectories(shop.world.lake, shop.loop, policy, oracle, 0)
    ratio = 1 / len(LEVELS) / LOG.propensities.astype(float)
    squared = float(np.square(ratio).mean() / ratio.mean() ** 2)
    assert found is not None
    assert found.steps == steps_of(60, squared)
    assert found == trajectories(shop.world.lake, shop.loop, policy, oracle, found.steps)


def test_memory_is_bounded_by_a_part_and_not_by_the_users(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    whole = trajectories(shop.world.lake, shop.loop, policy, oracle, 3)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert trajectories(shop.world.lake, shop.loop, policy, oracle, 3) == whole


def test_a_policy_without_memory_has_no_trajectories(shop: Shop) -> None:
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.bandit, against="baseline")
    assert found.trajectories is None


def test_a_version_that_shows_what_the_log_did_not_is_refused_whatever_else_is_known(shop: Shop) -> None:
    shop.point(shop.bandit, shop.registry.aliases("shop").get("champion"))
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.session)
    assert found.untried is not None
    assert found.untried.share == 0.0
    lenient = parse_loop("[reward]\nmaximum = 1000.0\n[gate]\nmargin = 1000.0\nminimum_ess = 5\n", "shop", {})
    unknown = msgspec.structs.replace(found, untried=Untried(0.62, ("d6", "d7")))
    how = {"version": shop.session, "now": LATER, "by": "a test"}
    refused = promote(shop.world.lake, shop.registry, lenient, evaluated=unknown, **how)
    assert not refused.promoted
    assert refused.reasons[-1] == (
        "62.0% of its choices are actions that fewer than 1 of 800 decisions drew (d6, d7): neither the log nor a "
        "simulator learned from it knows what they bring"
    )
    assert promote(shop.world.lake, shop.registry, lenient, evaluated=found, **how).promoted
