"""Judging a policy with memory by a log that holds another memory, or none."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from decision.artifact import unpack
from decision.oracles.session import FEATURE
from decision.policy import OraclePolicy
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.trajectories import memory_of, remembered, trajectories
from pipelines.interactions.arrays import to_interactions
from pipelines.promotion.promote import promote
from pipelines.settings import parse_loop
from tests.pipelines.promotion.test_watch import LEVELS, STEPS, Shop, users
from tests.worlds.lake import LATER

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
    found = remembered(shop.world.lake, "shop", rows, oracle, to_interactions(rows))
    at = dict(zip(rows["event_id"].to_pylist(), found.batch.contexts, strict=True))
    state = oracle.start()
    for step in range(STEPS):
        held = at[f"user-7-{step}"]
        assert [held[FEATURE.format(i)] for i in range(len(state))] == pytest.approx(state.tolist(), abs=1e-6)
        state = oracle.advance(state, f"d{LOG.documents[7, step]}", float(LOG.rewards[7, step]))


def test_trajectories_weigh_whole_beginnings_as_by_hand(shop: Shop) -> None:
    """The net's head is 0, so the policy is uniform over 13 documents whatever it remembers."""
    policy = policy_of(shop)
    oracle = memory_of(policy)
    assert oracle is not None
    found = trajectories(shop.world.lake, "shop", policy, oracle, 3)
    assert found is not None
    weight = np.cumprod(1 / len(LEVELS) / LOG.propensities[:, :3].astype(float), axis=1)
    by_step = (weight * LOG.rewards[:, :3]).sum(0) / weight.sum(0)
    assert (found.users, found.steps) == (60, 3)
    assert found.value.value == pytest.approx(by_step.mean(), rel=1e-6)
    assert found.logged == pytest.approx(LOG.rewards[:, :3].mean(), rel=1e-6)
    assert trajectories(shop.world.lake, "shop", policy, oracle, STEPS + 1) is None


def test_the_gate_asks_the_trajectories_too(shop: Shop) -> None:
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.session, against="baseline")
    assert found.trajectories is not None
    assert found.metrics()["eval.trajectories"] == found.trajectories.value.value
    shop.point(shop.bandit, shop.session)
    strict = parse_loop("[reward]\nmaximum = 1000.0\n[gate]\nmargin = 1000.0\nminimum_ess = 40\n", "shop", {})
    lenient = parse_loop(
        "[reward]\nmaximum = 1000.0\n[gate]\nmargin = 1000.0\nminimum_ess = 5\nsession_steps = 2\n", "shop", {}
    )
    refused = promote(shop.world.lake, shop.registry, strict, version=shop.session, now=LATER, by="a test")
    assert not refused.promoted
    assert any("effective trajectories are below 40" in reason for reason in refused.reasons)
    taken = promote(shop.world.lake, shop.registry, lenient, version=shop.session, now=LATER, by="a test")
    assert taken.promoted, taken.reasons
    assert taken.numbers["trajectories_logged"] == pytest.approx(float(LOG.rewards[:, :2].mean()), rel=1e-6)


def test_a_policy_without_memory_has_no_trajectories(shop: Shop) -> None:
    found = evaluate(shop.world.lake, shop.registry, shop.loop, shop.bandit, against="baseline")
    assert found.trajectories is None
