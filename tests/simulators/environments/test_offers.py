from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from simulators.environments.offers import CONTEXTS, MOST, OFFERS, offers_world


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.97])
def test_a_uniformly_drawn_offer_is_taken_at_the_rate_asked_for(rate: float) -> None:
    for seed in range(3):
        world = offers_world("clicks", rate=rate, seed=seed)
        assert float(world.share @ world.taken.mean(axis=1)) == pytest.approx(rate, rel=1e-6)
        assert world.share.sum() == pytest.approx(1.0)


def test_expected_revenue_is_that_of_the_rewards_drawn() -> None:
    """40,000 draws of one cell; a mean that is off by five standard errors fails with probability 6e-7."""
    world, n = offers_world("revenue", rate=0.4, seed=5), 40_000
    context, offer = np.full(n, 7), np.full(n, int(world.log_amount[7].argmax()))
    reward = world.rewards(context, offer, np.random.default_rng(0))
    assert 0.0 <= float(reward.min()) <= float(reward.max()) <= MOST == world.high
    error = float(reward.std()) / np.sqrt(n)
    assert float(reward.mean()) == pytest.approx(float(world.mean[7, offer[0]]), abs=5 * error)


def test_a_decision_shows_segment_device_and_every_offer_by_name() -> None:
    batch = offers_world("clicks", rate=0.1, seed=0).batch(np.array([0, CONTEXTS - 1]))
    assert list(batch.contexts) == [
        {"segment=s0": 1.0, "device=d0": 1.0},
        {"segment=s7": 1.0, "device=d2": 1.0},
    ]
    assert batch.actions[OFFERS + 3] == {"offer=offer3": 1.0}
    assert list(batch.action_ids[:2]) == ["offer0", "offer1"]
    assert batch.offsets.tolist() == [0, OFFERS, 2 * OFFERS]


def test_the_same_seed_is_the_same_world_and_another_is_another() -> None:
    one, same, other = (offers_world("revenue", rate=0.03, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(one.mean, same.mean)
    assert not np.array_equal(one.mean, other.mean)


@pytest.mark.parametrize(
    ("pays", "rate", "field"), [("likes", 0.1, "world"), ("clicks", 0.0, "rate"), ("clicks", 1.0, "rate")]
)
def test_a_world_that_is_none_is_refused_by_name(pays: str, rate: float, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        offers_world(pays, rate=rate, seed=0)  # type: ignore[arg-type]
    assert caught.value.field == field
