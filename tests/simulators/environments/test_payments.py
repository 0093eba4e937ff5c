from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from simulators.environments.payments import Payments, PaymentsWorld, arrival, normalised, payments_world


@pytest.fixture(scope="module")
def world() -> PaymentsWorld:
    return payments_world(seed=0)


@pytest.fixture(scope="module")
def payments(world: PaymentsWorld) -> Payments:
    return world.draw(20_000, np.random.default_rng(1))


def values(world: PaymentsWorld, payments: Payments) -> tuple[float, float]:
    """Return the exact value of the uniform policy and of the best one."""
    mu, offered = world.approval(payments), payments.available
    uniform = (mu * offered).sum(axis=1) / offered.sum(axis=1)
    return float(uniform.mean()), float(np.where(offered, mu, -np.inf).max(axis=1).mean())


def test_approval_is_the_stated_equation_term_by_term(world: PaymentsWorld, payments: Payments) -> None:
    mu, actions = world.approval(payments), world.actions
    for row, action in ((0, 0), (1, 5), (2, 15), (3, 10)):
        s, c, z = payments.segment[row], payments.country[row], payments.amount[row]
        logit = 1.6 + world.by_segment[s] + world.by_country[c] - 0.25 * z
        on = np.flatnonzero(actions[action])
        for j in on:
            logit += world.toggle[j] + world.toggle_by_segment[s, j] + world.toggle_by_country[c, j]
            logit += world.toggle_by_amount[j] * z if payments.hour[row] > 0.5 else 0.0
            logit += 0.5 * sum(world.pair[j, i] for i in on)
        assert mu[row, action] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-12)


def test_world_of_seed_0_has_the_published_uniform_and_best_values(world: PaymentsWorld, payments: Payments) -> None:
    """The spread of either mean over 20,000 payments is below .001, a fifth of the tolerance."""
    uniform, best = values(world, payments)
    assert uniform == pytest.approx(0.778, abs=0.005)
    assert best == pytest.approx(0.890, abs=0.005)


@given(seed=st.integers(0, 2**32 - 1), toggles=st.integers(1, 6), outage=st.floats(0, 0.99))
def test_offered_actions_are_all_combinations_of_the_usable_toggles(seed: int, toggles: int, outage: float) -> None:
    world = payments_world(seed=seed, toggles=toggles, outage=outage)
    payments = world.draw(50, np.random.default_rng(seed))
    sizes = payments.available.sum(axis=1)
    assert payments.available[:, 0].all()
    for row in range(50):
        offered = world.actions[payments.available[row]]
        usable = offered.max(axis=0)
        assert sizes[row] == 2 ** usable.sum()
        assert (usable <= world.eligible[payments.segment[row], payments.card[row]]).all()


def test_outage_removes_its_share_of_eligible_toggles(world: PaymentsWorld, payments: Payments) -> None:
    """About 60,000 independent tries at .1: three parts in a thousand are 2.5 standard errors; the seed is fixed."""
    single = np.flatnonzero(world.actions.sum(axis=1) == 1)
    eligible = world.eligible[payments.segment, payments.card]
    assert payments.available[:, single][eligible].mean() == pytest.approx(0.9, abs=0.003)
    calm = payments_world(seed=0, outage=0.0).draw(500, np.random.default_rng(2))
    assert (calm.available[:, single] == world.eligible[calm.segment, calm.card]).all()


def test_drift_changes_only_the_segment_effects_and_keeps_their_spread() -> None:
    """3 worlds of 160 effects, 40 steps each: correlation and spread within .1 of the stated law; seeds are fixed."""
    rng = np.random.default_rng(5)
    before, after = [], []
    for seed in range(3):
        world = payments_world(seed=seed, toggles=8)
        for _ in range(40):
            moved = world.drifted(0.3, rng)
            before.append(world.toggle_by_segment.ravel())
            after.append(moved.toggle_by_segment.ravel())
            assert moved.toggle_by_country is world.toggle_by_country
            assert moved.eligible is world.eligible
            world = moved
    old, new = np.concatenate(before), np.concatenate(after)
    assert np.corrcoef(old, new)[0, 1] == pytest.approx(np.sqrt(1 - 0.09), abs=0.02)
    assert new.std() == pytest.approx(0.8, abs=0.05)


def test_no_drift_leaves_the_world_as_it_is(world: PaymentsWorld, payments: Payments) -> None:
    still = world.drifted(0.0, np.random.default_rng(1))
    assert np.array_equal(still.approval(payments), world.approval(payments))


def test_late_toggle_is_offered_from_its_generation_on() -> None:
    world = payments_world(seed=3, late_toggle_at=5)
    late = world.actions[:, 4] == 1
    assert world.actions.shape == (32, 5)
    for generation, expected in ((0, False), (4, False), (5, True), (6, True)):
        payments = world.draw(500, np.random.default_rng(generation), generation=generation)
        assert payments.available[:, late].any() == expected


def test_batch_offers_what_is_available_in_the_order_of_the_actions(world: PaymentsWorld) -> None:
    payments = world.draw(30, np.random.default_rng(4))
    batch = world.batch(payments)
    assert batch.offsets.tolist() == payments.offsets.tolist()
    for row in range(30):
        part = slice(batch.offsets[row], batch.offsets[row + 1])
        offered = np.flatnonzero(payments.available[row])
        assert batch.action_ids[part] == [world.action_ids[a] for a in offered]
        for features, a in zip(batch.actions[part], offered, strict=True):
            assert [features.get(f"toggle{j}", 0.0) for j in range(4)] == world.actions[a].tolist()
        context = batch.contexts[row]
        assert context[f"segment=s{payments.segment[row]}"] == context[f"card=t{payments.card[row]}"] == 1.0
        assert context["amount"] == payments.amount[row]


def test_world_and_draws_follow_from_their_seeds(world: PaymentsWorld) -> None:
    again, other = payments_world(seed=0), payments_world(seed=1)
    first, second = (w.draw(40, np.random.default_rng(9)) for w in (world, again))
    assert np.array_equal(world.approval(first), again.approval(second))
    assert np.array_equal(first.available, second.available)
    assert not np.array_equal(world.toggle, other.toggle)


def test_arrival_is_in_its_generation_without_delay_and_exponential_with_it() -> None:
    """The mean of 20,000 exponential delays of mean .5 lies within .02 of it but for 5.6 standard errors."""
    prompt = arrival(3, 20_000, np.random.default_rng(1), mean_delay=0.0)
    late = arrival(3, 20_000, np.random.default_rng(1), mean_delay=0.5)
    assert prompt.min() >= 3.0
    assert prompt.max() < 4.0
    assert (late >= prompt).all()
    assert (late - prompt).mean() == pytest.approx(0.5, abs=0.02)


def test_normalised_puts_uniform_at_0_and_the_best_at_1() -> None:
    assert normalised(0.7, uniform=0.7, optimum=0.9) == 0.0
    assert normalised(0.9, uniform=0.7, optimum=0.9) == 1.0
    assert normalised(0.8, uniform=0.7, optimum=0.9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"toggles": 0}, "toggles"),
        ({"toggles": 9}, "toggles"),
        ({"toggles": 8, "late_toggle_at": 5}, "toggles"),
        ({"late_toggle_at": 0}, "late_toggle_at"),
        ({"outage": 1.0}, "outage"),
    ],
)
def test_world_refuses_what_it_cannot_be_made_of(settings: dict[str, float], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        payments_world(seed=1, **settings)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_draws_refuse_what_they_cannot_be_made_of(world: PaymentsWorld) -> None:
    rng = np.random.default_rng(1)
    for n, generation, field in ((0, 0, "n"), (2_000_000, 0, "n"), (5, -1, "generation")):
        with pytest.raises(FieldError) as caught:
            world.draw(n, rng, generation=generation)
        assert caught.value.field == field
    with pytest.raises(FieldError, match="drift"):
        world.drifted(1.5, rng)
    with pytest.raises(FieldError, match="mean_delay"):
        arrival(0, 5, rng, mean_delay=float("nan"))
