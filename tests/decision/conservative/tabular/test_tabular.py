from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.conservative.tabular import budget as conservative_budget
from decision.conservative.tabular import certified_reference, epsmix, extended_lp, hard_gate, stepmix
from decision.conservative.tabular.confidence import Bonus, Counts, evaluate, model_of, optimistic, pessimistic
from decision.conservative.tabular.process import Process, boltzmann, greedy, optimal_q_values, q_values, value
from simulators.environments.tabular import Instance, Plan, play, random_instances


def instance(seeds: list[int], alpha: float = 0.1) -> Instance:
    return random_instances(seeds, states=4, actions=3, horizon=3, eta=5.0, alpha=alpha)


def counts_after(world: Instance, episodes: int, seed: int = 0) -> Counts:
    played = play(
        world, lambda counts, k: Plan(world.baseline), episodes=episodes, rng=np.random.default_rng(seed), lazy=1.0
    )
    return played.counts


def test_value_of_a_known_two_step_process_is_the_closed_form() -> None:
    # Step 0: action 0 pays .5 and stays, action 1 pays 0 and moves; step 1: state 1 pays 1, state 0 pays .25.
    transitions = np.zeros((1, 2, 2, 2, 2))
    transitions[0, :, :, 0, 0] = 1.0
    transitions[0, :, :, 1, 1] = 1.0
    rewards = np.zeros((1, 2, 2, 2))
    rewards[0, 0, 0] = [0.5, 0.0]
    rewards[0, 1, 0] = 0.25
    rewards[0, 1, 1] = 1.0
    process = Process(transitions, rewards)
    assert optimal_q_values(process)[0, 0, 0] == pytest.approx([0.75, 1.0])
    uniform = np.full((1, 2, 2, 2), 0.5)
    assert value(process, uniform)[0] == pytest.approx(0.875)
    assert value(process, greedy(optimal_q_values(process)))[0] == pytest.approx(1.0)


def test_no_policy_is_worth_more_than_the_bellman_optimum() -> None:
    world = instance([1, 2])
    rng = np.random.default_rng(0)
    for _ in range(20):
        policy = rng.dirichlet(np.ones(3), size=(2, 3, 4))
        assert (value(world.process, policy) <= world.best + 1e-12).all()


def test_boltzmann_limits_are_uniform_and_greedy() -> None:
    q = optimal_q_values(instance([3]).process)
    assert boltzmann(q, 0.0) == pytest.approx(np.full_like(q, 1 / 3))
    assert boltzmann(q, 1e6) == pytest.approx(greedy(q))


def test_bounds_without_data_are_the_certain_ones() -> None:
    world = instance([1])
    low, high = evaluate(model_of(Counts.zeros(1, 3, 4, 3), Bonus()), world.baseline)
    assert (low[0], high[0]) == (0.0, 3.0)


def test_bounds_enclose_the_true_value_and_tighten_with_data() -> None:
    world = instance([1, 2, 3])
    few, many = counts_after(world, 200), counts_after(world, 3_000)
    for bonus in (Bonus(), Bonus(joint=True)):
        low_few, high_few = evaluate(model_of(few, bonus), world.baseline)
        low, high = evaluate(model_of(many, bonus), world.baseline)
        assert (low <= world.baseline_value).all()
        assert (world.baseline_value <= high).all()
        assert (high - low < high_few - low_few).all()


def test_joint_bonus_is_never_wider_than_the_two_added() -> None:
    world = instance([1, 2])
    model = counts_after(world, 500)
    low, high = evaluate(model_of(model, Bonus()), world.baseline)
    low_joint, high_joint = evaluate(model_of(model, Bonus(joint=True)), world.baseline)
    assert (high_joint - low_joint <= high - low + 1e-12).all()


def test_optimistic_upper_bound_dominates_every_policys() -> None:
    world = instance([4])
    model = model_of(counts_after(world, 300), Bonus())
    _, upper = optimistic(model)
    for policy in (world.baseline, greedy(q_values(world.process, world.baseline))):
        assert evaluate(model, policy)[1][0] <= upper[0] + 1e-9


def test_pessimistic_policy_never_takes_an_unseen_action_where_a_seen_one_is_worth_something() -> None:
    world = instance([5])
    counts = counts_after(world, 400)
    policy, lower = pessimistic(model_of(counts, Bonus(c1=0.01, c2=0.01)))
    taken_unseen = (policy > 0) & (counts.visits == 0) & (counts.rewards.max(-1, keepdims=True) > 0)
    assert not taken_unseen.any()
    assert lower[0] > 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), episodes=st.sampled_from([0, 50, 500, 4_000]))
def test_stepmix_lower_bound_of_the_mixture_is_the_threshold(seed: int, episodes: int) -> None:
    world = instance([seed])
    model = model_of(counts_after(world, episodes, seed), Bonus(c1=0.05, c2=0.02))
    mixture = stepmix.plan(model, world.baseline, world.gamma)
    horizon = world.baseline.shape[1]
    assert np.allclose(mixture.policy.sum(-1), 1.0, atol=1e-12)
    assert (mixture.policy >= 0).all()
    lower, _ = evaluate(model, mixture.policy)
    if mixture.step[0] > horizon:
        assert np.array_equal(mixture.policy, world.baseline)
    else:
        # The recursion bounds the mixed policy by its own upper values, so it may differ a little either way.
        assert lower[0] >= world.gamma[0] - 0.05
        assert 0.0 <= mixture.weight[0] <= 1.0


def test_stepmix_value_is_linear_in_the_mixing_weight() -> None:
    world = instance([7])
    aim = greedy(optimal_q_values(world.process))
    horizon = 3
    for j in range(1, horizon + 1):
        fewer, more = aim.copy(), aim.copy()
        fewer[:, : j - 1], more[:, :j] = world.baseline[:, : j - 1], world.baseline[:, :j]
        mixed = 0.3 * fewer + 0.7 * more
        expected = 0.3 * value(world.process, fewer) + 0.7 * value(world.process, more)
        assert value(world.process, mixed) == pytest.approx(expected, abs=1e-12)


def test_stepmix_with_a_horizon_of_one_is_epsmix() -> None:
    world = random_instances([1, 2, 3], states=1, actions=4, horizon=1, eta=3.0, alpha=0.2)
    model = model_of(counts_after(world, 400), Bonus(c1=0.2, c2=0.1))
    mixture = stepmix.plan(model, world.baseline, world.gamma)
    aim, share = epsmix.plan(model, world.baseline, world.gamma)
    blended = share[:, None, None, None] * aim + (1 - share[:, None, None, None]) * world.baseline
    assert mixture.policy == pytest.approx(blended, abs=1e-12)


def test_epsmix_with_a_worthless_bound_for_the_candidate_is_the_free_floor() -> None:
    baseline = np.array([2.0])
    assert epsmix.weight(np.array([0.0]), baseline, 0.95 * baseline)[0] == pytest.approx(0.05)


def test_epsmix_weight_limits() -> None:
    one = np.array([1.0])
    assert epsmix.weight(one, one, 0.9 * one)[0] == 1.0
    assert epsmix.weight(0.2 * one, 0.8 * one, 0.9 * one)[0] == 0.0


def test_known_baseline_value_ends_the_waiting_phase() -> None:
    world = instance([1, 2])
    model = model_of(Counts.zeros(2, 3, 4, 3), Bonus())
    assert (stepmix.plan(model, world.baseline, world.gamma).step == 4).all()
    assert (stepmix.plan(model, world.baseline, world.gamma, baseline_value=world.baseline_value).step <= 3).all()


@pytest.mark.statistical
def test_conservative_algorithms_break_no_episode_where_ucbvi_does() -> None:
    """Seeded; each of the 4 runs may fail with probability delta = .1, and in 20 seeds of the study none did."""
    world = random_instances([0, 1, 2, 3], states=5, actions=5, horizon=3, eta=10.0, alpha=0.05)
    bonus = Bonus()

    def run(planner):
        return play(world, planner, episodes=4_000, rng=np.random.default_rng(1))

    def with_stepmix(counts, k):
        mixture = stepmix.plan(model_of(counts, bonus), world.baseline, world.gamma)
        return Plan(mixture.policy, lower=mixture.lower)

    def with_reference(counts, k):
        mixture = certified_reference.plan(model_of(counts, Bonus(joint=True)), world.baseline, world.gamma)
        return Plan(mixture.policy, lower=mixture.lower)

    def with_gate(counts, k):
        return Plan(hard_gate.plan(model_of(counts, bonus), world.baseline, world.gamma)[0])

    plain, learned, gate = run(with_stepmix), run(with_reference), run(with_gate)
    free = run(lambda counts, k: Plan(optimistic(model_of(counts, bonus))[0]))
    assert plain.violations.sum() == 0
    assert learned.violations.sum() == 0
    assert (plain.missed <= 0.1).all()
    assert free.violations.min() > 0
    assert (gate.first_other == 4_000).all(), "the hard gate never opens on the tight setting"
    assert learned.regret.mean() < plain.regret.mean()


def test_cumulative_budget_spends_only_what_was_saved() -> None:
    offer = conservative_budget.Offer(np.zeros((1, 1, 1, 1)), np.array([0.2]), np.array([1.0]))
    gamma, saved = np.array([0.9]), np.array([0.0])
    explored = []
    for _ in range(20):
        now = conservative_budget.affordable(offer, saved, gamma)
        saved = conservative_budget.saved_after(offer, saved, gamma, now)
        explored.append(now[0])
        assert saved[0] >= -1e-12
    assert sum(explored) == 2  # 0.1 saved per baseline episode, 0.7 needed


def test_linear_program_finds_the_optimum_when_everything_is_known() -> None:
    world = instance([11])
    counts = counts_after(world, 10)
    exact = counts._replace(
        visits=np.full_like(counts.visits, 1e12),
        rewards=world.process.rewards * 1e12,
        moves=world.process.transitions * 1e12,
    )
    model = model_of(exact, Bonus())
    for program in (extended_lp.dope, extended_lp.optpess):
        policy = program(model, 0, float(world.gamma[0]))
        assert policy is not None
        assert value(world.process, policy[None])[0] == pytest.approx(world.best[0], abs=1e-3)
        assert program(model, 0, float(world.best[0]) + 0.05) is None
