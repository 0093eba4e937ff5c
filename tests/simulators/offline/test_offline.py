"""From a log alone: the sampler's weights, the critic, the clone, against what is known of simple worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decision.errors import FieldError
from simulators.environments.lts.env import draw_users
from simulators.learned.groups import GroupView
from simulators.learned.logs import logged
from simulators.learned.trajectories import Trajectories, catalogue_of, scale_of
from simulators.offline import cloning
from simulators.offline.cloning import CloneRecipe, cloned, followed, inputs_of, tilted
from simulators.offline.critic import Critic, CriticRecipe, _layers, _Net, advantages_of, critic_of
from simulators.offline.weights import effective_of, kind_of, returns_of, share_of_users, weights_of
from simulators.sim2rec.network import ContextPolicy

LOG = logged(draw_users(np.random.default_rng(0), np.array([14.0]), 200), 0, horizon=20)


def mixed(seed: int, good: float) -> Trajectories:
    """Return a log of which a tenth was drawn by a version that earns `good` more per step, beside a person's own."""
    rng, n = np.random.default_rng(seed), 400
    versions = np.repeat((np.arange(n) >= 360).astype(np.int64)[:, None], 20, axis=1)
    person = rng.normal(0.0, 3.0, n)[:, None]
    rewards = (5.0 + person + good * versions + rng.normal(0.0, 0.3, (n, 20))).astype(np.float32)
    actions = rng.integers(0, 3, (n, 20))
    catalogue = catalogue_of(["a", "b", "c"], np.arange(3, dtype=np.float32)[:, None], actions)
    flat = np.full((n, 20), 1 / 3, np.float32)
    names = ("1", "2")
    return Trajectories(actions, rewards, flat, catalogue, scale_of(rewards), versions=versions, names=names)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_by_version_find_the_good_one_where_returns_find_the_lucky(seed: int) -> None:
    log = mixed(seed, 1.0)
    good = log.versions[:, 0] == 1  # type: ignore[index]
    by_version, by_return = weights_of(log, "pw"), weights_of(log, "aw")
    assert by_version[good].sum() > 0.95
    assert by_return[good].sum() < 0.9
    for found in (by_version, by_return):
        assert found.sum() == pytest.approx(1.0)
        assert 35.0 <= 1.0 / np.square(found).sum() <= 45.0


def test_weights_know_neither_zero_nor_unit() -> None:
    log = mixed(4, 1.0)
    other = replace(log, rewards=7.0 * log.rewards - 300.0)
    other = replace(other, scale=scale_of(other.rewards))
    for kind in ("pw", "aw"):
        assert weights_of(other, kind) == pytest.approx(weights_of(log, kind), rel=1e-2)


def test_one_outlier_does_not_take_all_the_weight() -> None:
    log = mixed(5, 0.0)
    rewards = log.rewards.copy()
    rewards[7] *= 10.0
    found = weights_of(replace(log, rewards=rewards), "aw", effective=40.0)
    assert 1.0 / np.square(found).sum() == pytest.approx(40.0, abs=1.0)


def test_one_version_is_drawn_from_evenly() -> None:
    log = mixed(6, 1.0)
    alone = replace(log, versions=np.zeros_like(log.actions), names=("1",))
    assert weights_of(alone, "pw") == pytest.approx(1.0 / 400)
    with pytest.raises(FieldError, match="log"):
        weights_of(replace(log, versions=None), "pw")
    with pytest.raises(FieldError, match="weights"):
        weights_of(log, "best")  # type: ignore[arg-type]


def test_versions_are_compared_with_those_of_the_same_days_only() -> None:
    """Version 3 had the good days to itself: what it earned more is the days' and not its own."""
    log, rng = mixed(7, 3.0), np.random.default_rng(7)
    late = np.arange(400) < 100
    versions = np.where(late[:, None], 2, log.versions)
    rewards = log.rewards + np.where(late, 50.0, 0.0)[:, None].astype(np.float32)
    days = np.where(late, 100, rng.integers(0, 3, 400))
    found = weights_of(replace(log, versions=versions, names=("1", "2", "3"), rewards=rewards, days=days), "pw")
    assert found[log.versions[:, 0] == 1].sum() > 0.95  # type: ignore[index]
    at_once = weights_of(replace(log, versions=versions, names=("1", "2", "3"), rewards=rewards), "pw")
    assert at_once[late].sum() > 0.95


def test_a_trend_over_the_days_is_no_version() -> None:
    """On each of ten days half a version draws less than the day before, and all earn 5 more: the older is better."""
    log, n = mixed(8, 0.0), 400
    day = np.arange(n) % 10
    newer = np.random.default_rng(8).random(n) < day / 10.0
    better = np.where(newer, 0.0, 2.0) + 5.0 * day
    rewards = (np.random.default_rng(9).normal(0.0, 0.5, (n, 20)) + better[:, None]).astype(np.float32)
    versions = np.repeat(newer[:, None].astype(np.int64), 20, axis=1)
    found = weights_of(replace(log, rewards=rewards, versions=versions, days=day), "pw", effective=160.0)
    assert found[~newer].sum() > 0.9
    assert (
        returns_of(replace(log, rewards=rewards))[newer].mean()
        > returns_of(replace(log, rewards=rewards))[~newer].mean()
    )


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("wanted", [20.0, 40.0, 200.0])
def test_effective_trajectories_are_as_many_as_asked_for_in_any_unit(unit: float, wanted: float) -> None:
    log = mixed(9, 0.0)
    rewards = (log.rewards * unit).astype(np.float32)
    rewards[3] *= 10.0
    found = weights_of(replace(log, rewards=rewards, scale=scale_of(rewards)), "aw", effective=wanted)
    assert effective_of(found) == pytest.approx(wanted, abs=1.0)


def test_returns_are_not_believed_where_users_explain_them() -> None:
    log = mixed(10, 1.0)
    assert kind_of(log, "aw") == kind_of(log, "pw") == "pw"
    assert kind_of(log, "uniform") == "uniform"
    rng = np.random.default_rng(10)
    alike = replace(log, rewards=rng.normal(5.0, 1.0, log.rewards.shape).astype(np.float32))
    assert kind_of(alike, "aw") == "aw"
    alone = replace(log, versions=None, names=())
    assert kind_of(alone, "aw") == kind_of(alone, "pw") == "uniform"


def test_first_responses_tell_persons_apart_where_there_are_any() -> None:
    assert share_of_users(LOG) > 0.8
    rng = np.random.default_rng(0)
    alike = replace(LOG, rewards=rng.normal(5.0, 1.0, LOG.rewards.shape).astype(np.float32))
    assert share_of_users(alike) < 0.05


def bandit(seed: int) -> Trajectories:
    """Return a log of a world without state: action c pays 1 more than a and b, on average."""
    rng, shape = np.random.default_rng(seed), (200, 12)
    actions = rng.integers(0, 3, shape)
    rewards = (actions == 2) + rng.normal(0.0, 0.5, shape)
    catalogue = catalogue_of(["a", "b", "c"], np.zeros((3, 0), np.float32), actions)
    flat = np.full(shape, 1 / 3, np.float32)
    return Trajectories(actions, rewards.astype(np.float32), flat, catalogue, scale_of(rewards))


def test_critic_and_clone_find_the_better_action() -> None:
    """Seeded, so the same on every run of one library version."""
    log, offered = bandit(1), np.arange(3)
    critic, even = critic_of(log, offered, CriticRecipe(steps=300), 0), weights_of(log, "uniform")
    advantages = advantages_of(log, offered, CriticRecipe(steps=300), 0)
    better = [float(advantages[log.actions == action].mean()) for action in range(3)]
    assert better[2] > max(better[:2]) + 0.5
    view = GroupView(None, 3)
    recipe, shares = CloneRecipe(steps=80), list[float]()
    plain = cloned(log, view, offered, advantages, even, replace(recipe, beta=0.0), 0)
    weighted = cloned(log, view, offered, advantages, even, recipe, 0)
    for policy in (plain, weighted, followed(log, view, offered, critic, even, recipe, 0)):
        with torch.no_grad():
            logits, _ = policy(torch.from_numpy(inputs_of(log, view)))
        shares.append(float(torch.softmax(logits, dim=-1)[..., 2].mean()))
    assert shares[0] == pytest.approx(1 / 3, abs=0.08)
    assert min(shares[1:]) > 0.8


def test_advantages_of_what_was_logged_are_the_critic_s() -> None:
    log = bandit(3)
    found = advantages_of(log, np.arange(3), CriticRecipe(steps=20), 0)
    known = critic_of(log, np.arange(3), CriticRecipe(steps=20), 0).advantages(torch.arange(log.actions.size)).numpy()
    assert np.array_equal(found.ravel(), known[np.arange(log.actions.size), log.actions.ravel()])
    assert known.std() == pytest.approx(1.0, abs=1e-5)


def constant(quality: list[float], states: int) -> Critic:
    """Return a critic of `quality` in every state, each of which is worth 1; advantages deviate by 2."""
    layers = [torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([[0.0, 0.0, each] for each in quality])]
    return Critic(torch.zeros(states, 3), [*layers[:2], torch.tensor([[0.0, 0.0, 1.0]])], layers, 2.0)


def test_a_critic_tilts_what_is_imitated_by_its_advantages() -> None:
    """By hand: p = (.5, .3, .2), A / sd = (-1, 0, 2) at weight .7."""
    p = torch.tensor([[0.5, 0.3, 0.2]])
    advantages = constant([-1.0, 1.0, 5.0], 1).advantages(torch.tensor([0]))
    assert advantages.tolist() == [[-1.0, 0.0, 2.0]]
    wanted = np.array([0.5, 0.3, 0.2]) * np.exp(0.7 * np.array([-1.0, 0.0, 2.0]))
    assert tilted(p.log() + 5.0, advantages, 0.7)[0].tolist() == pytest.approx(wanted / wanted.sum(), rel=1e-5)


def test_a_policy_that_follows_a_critic_is_the_plain_clone_times_its_weight() -> None:
    """Seeded. c is drawn in a tenth of the log, and a and b in nine: (.45, .45, .1) exp(0, 1, 2) made to sum to 1."""
    log, view = without_a_floor(), GroupView(None, 3)
    critic, even = constant([1.0, 3.0, 5.0], log.actions.size), weights_of(log, "uniform")
    policy = followed(log, view, np.arange(3), critic, even, CloneRecipe(steps=300, beta=1.0), 0)
    wanted = np.array([0.45, 0.45, 0.1]) * np.exp([0.0, 1.0, 2.0])
    assert first_of(policy, log, view) == pytest.approx(wanted / wanted.sum(), abs=0.06)


def test_what_a_critic_leads_to_is_the_same_whether_it_is_kept_or_asked_for_at_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, view, found = without_a_floor(), GroupView(None, 3), list[list[float]]()
    critic, even = critic_of(log, np.arange(3), CriticRecipe(steps=20), 0), weights_of(log, "uniform")
    for most in (cloning._MOST, 0):
        monkeypatch.setattr(cloning, "_MOST", most)
        policy = followed(log, view, np.arange(3), critic, even, CloneRecipe(steps=30), 0)
        found.append(first_of(policy, log, view))
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_a_critic_leads_nobody_to_what_is_not_offered() -> None:
    """Seeded. The critic praises c beyond all else; c was never offered at the steps of the log."""
    log, view, rare = bandit(5), GroupView(None, 3), np.random.default_rng(5).random((200, 12)) < 0.1
    log = replace(log, actions=np.where(rare, 0, 1), offered=np.broadcast_to([True, True, False], (200, 12, 3)))
    critic = constant([1.0, 1.0, 99.0], log.actions.size)
    policy = followed(log, view, np.arange(3), critic, weights_of(log, "uniform"), CloneRecipe(steps=100), 0)
    with torch.no_grad():
        logits, _ = policy(torch.from_numpy(inputs_of(log, view)))
    shares = torch.softmax(logits[..., :2], dim=-1).mean(dim=(0, 1))
    assert shares.tolist() == pytest.approx([0.1, 0.9], abs=0.1)  # as they were drawn, whatever c is worth


def test_the_gradient_written_out_is_that_of_torch() -> None:
    rng = np.random.default_rng(12)
    inputs = torch.from_numpy(np.column_stack([rng.normal(size=(7, 5)), np.ones(7)]).astype(np.float32))
    of_outputs = torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))  # of the first four rows
    layers = _layers(6, 3, 0)[3:]
    gradient = [torch.empty_like(layer) for layer in layers]
    net = _Net(layers, 7)
    outputs = net(inputs)
    net.back(inputs, of_outputs, gradient)
    known, below = [layer.clone().requires_grad_() for layer in layers], inputs
    for layer in known[:2]:
        below = torch.cat([torch.relu(below @ layer.T), torch.ones(7, 1)], dim=1)
    below = below @ known[2].T
    assert torch.allclose(outputs, below, atol=1e-6)
    (below[:4] * of_outputs).sum().backward()
    for found, layer in zip(gradient, known, strict=True):
        assert torch.allclose(found, layer.grad, atol=1e-6)


def without_a_floor() -> Trajectories:
    """Return a log of which version 1 drew nine tenths, from a and b evenly, and version 2 the rest, always c."""
    rng, shape = np.random.default_rng(11), (400, 6)
    second = np.broadcast_to((np.arange(400) >= 360)[:, None], shape)
    actions = np.where(second, 2, rng.integers(0, 2, shape))
    pmf = np.where(second[..., None], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]).astype(np.float32)
    catalogue = catalogue_of(["a", "b", "c"], np.zeros((3, 0), np.float32), actions)
    drawn = np.where(second, 1.0, 0.5).astype(np.float32)
    rewards = rng.normal(0.0, 1.0, shape).astype(np.float32)
    return Trajectories(
        actions, rewards, drawn, catalogue, scale_of(rewards), pmf=pmf, offered=np.ones((*shape, 3), np.bool_)
    )


def first_shares(log: Trajectories) -> list[float]:
    """Return a plain clone's probabilities of a, b and c for a user nothing is known of."""
    view, even = GroupView(None, 3), weights_of(log, "uniform")
    recipe = CloneRecipe(steps=150, beta=0.0)
    policy = cloned(log, view, np.arange(3), np.zeros(log.actions.shape, np.float32), even, recipe, 0)
    return first_of(policy, log, view)


def first_of(policy: ContextPolicy, log: Trajectories, view: GroupView) -> list[float]:
    """Return the probabilities of a, b and c for a user nothing is known of."""
    with torch.no_grad():
        logits, _ = policy(torch.from_numpy(inputs_of(log, view)[:1, :1]))
    return torch.softmax(logits[0, 0], dim=-1).tolist()


def test_versions_that_never_draw_what_others_do_are_mixed_as_often_as_they_drew() -> None:
    """Seeded. An action that a version has at 0 was offered all the same, and its trajectories speak against it."""
    assert first_shares(without_a_floor()) == pytest.approx([0.45, 0.45, 0.1], abs=0.05)


def test_an_action_that_was_not_offered_has_no_part_in_the_loss() -> None:
    """Seeded. c was offered to those users alone who were always shown it: nothing speaks against it."""
    log = without_a_floor()
    closed = np.ones((*log.actions.shape, 3), np.bool_)
    closed[:360, :, 2] = False
    assert first_shares(replace(log, offered=closed))[2] > 0.2


def test_what_lies_beyond_a_last_step_is_not_learned_from() -> None:
    lengths = np.random.default_rng(3).integers(2, 12, 200)
    beyond = np.arange(12) >= lengths[:, None]
    found = []
    for junk in (1.0, 40.0):
        log = bandit(2)
        log = replace(log, lengths=lengths, rewards=np.where(beyond, np.float32(junk), log.rewards))
        log = replace(log, scale=scale_of(log.rewards[log.inside]))
        found.append(advantages_of(log, np.arange(3), CriticRecipe(steps=20), 0))
        assert (found[-1][beyond] == 0.0).all()
    assert found[0].tobytes() == found[1].tobytes()


def test_returns_are_means_over_the_steps_there_are() -> None:
    log = bandit(0)
    short = replace(log, lengths=np.full(200, 3))
    assert returns_of(short) == pytest.approx(log.rewards[:, :3].mean(axis=1), rel=1e-5)
