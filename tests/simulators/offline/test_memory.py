"""The memory that a clone is given: what its units are, that it is served as taught, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decision.errors import FieldError
from simulators.environments.lts.env import draw_users
from simulators.learned.groups import GroupView
from simulators.learned.logs import logged
from simulators.learned.lookahead import returns_in_truth
from simulators.learned.served import served
from simulators.offline.cloning import CloneRecipe, cloned, inputs_of
from simulators.offline.memory import CLOCK, DECAYS, set_memory
from simulators.offline.weights import weights_of
from simulators.sim2rec.network import ContextPolicy
from simulators.studies.offline import log_of
from simulators.trainers.contract import executed_in


def test_a_memory_holds_the_first_response_and_averages_over_several_horizons() -> None:
    policy = ContextPolicy(3, 2, hidden=48)
    extractor = set_memory(policy, 1, 0)
    rng, steps = np.random.default_rng(0), 140
    seen = np.concatenate([np.ones((steps, 1)), rng.normal(size=(steps, 2))], axis=1).astype(np.float32)
    seen = np.concatenate([np.zeros((1, 3), np.float32), seen])
    with torch.no_grad():
        state = extractor(torch.from_numpy(seen)[None])[0][0].numpy()
    assert state[0] == pytest.approx(0.0)
    bent = np.tanh(0.5 * seen)
    assert state[1:, 1:3] == pytest.approx(np.tile(bent[1, 1:], (steps, 1)), abs=0.05)
    at = 3
    for number, decays in ((0, CLOCK), (1, DECAYS), (2, DECAYS)):
        for decay in decays:
            average = 0.0
            for value in bent[:, number]:
                average = decay * average + (1.0 - decay) * value
            assert state[-1, at] == pytest.approx(average, abs=1e-4)
            at += 1


@pytest.mark.parametrize("features", [1, 2, 3, 60])
def test_a_memory_has_its_size_however_many_features_actions_have(features: int) -> None:
    policy = ContextPolicy(2 + features + 4, 3, hidden=48, remembered=2 + features)
    extractor = set_memory(policy, features, 1)
    assert extractor.weight_ih_l0.shape == (144, 2 + features + 4)
    assert not extractor.weight_ih_l0[:, 2 + features :].any()
    assert extractor.weight_ih_l0[96:, : 2 + features].any(dim=1).all()


def test_a_policy_without_room_for_a_memory_is_refused() -> None:
    for hidden in (0, 8):
        with pytest.raises(FieldError, match="hidden"):
            set_memory(ContextPolicy(3, 2, hidden=hidden), 1, 0)


def test_a_clone_is_served_as_it_was_taught() -> None:
    log = logged(draw_users(np.random.default_rng(0), np.array([14.0]), 60), 0)
    view, offered = GroupView(None), executed_in(log)
    nothing, alike = np.zeros(log.actions.shape, np.float32), weights_of(log, "uniform")
    policy = cloned(log, view, offered, nothing, alike, CloneRecipe(steps=200, beta=0.0), 0)
    oracle = served(policy, log.catalogue, log.scale, offered.tolist())
    with torch.no_grad():
        taught = policy(torch.from_numpy(inputs_of(log, view)[:1]))[0][0].numpy()
    state = oracle.start()
    for time in range(log.steps):
        assert oracle.logits(state) == pytest.approx(taught[time], abs=1e-3)
        state = oracle.advance(state, log.catalogue.ids[log.actions[0, time]], float(log.rewards[0, time]))


def test_the_clone_of_one_who_knows_users_keeps_nine_tenths_of_the_return() -> None:
    """Seeded, so the same on every run of one library version. Of 400 trajectories 40 are the good version's."""
    log, users = log_of("m1", 8, 400), draw_users(np.random.default_rng([8, 2]), np.array([14.0]), 300)
    view, offered = GroupView(None), executed_in(log)
    good = log.rewards[log.versions[:, 0] == 1].sum(axis=1).mean()  # type: ignore[index]
    nothing = np.zeros(log.actions.shape, np.float32)
    policy = cloned(log, view, offered, nothing, weights_of(log, "pw"), CloneRecipe(beta=0.0), 8)
    returns = returns_in_truth(policy, view, tuple(offered.tolist()), users, 8, log, greedy=False)
    assert returns.mean() >= 0.9 * good


def test_a_log_with_nothing_to_imitate_is_refused() -> None:
    log = logged(draw_users(np.random.default_rng(0), np.array([14.0]), 20), 0, horizon=4)
    other = replace(log, actions=np.full_like(log.actions, 7))
    nothing = np.zeros(log.actions.shape, np.float32)
    with pytest.raises(FieldError, match="log"):
        cloned(other, GroupView(None), np.array([1, 2]), nothing, weights_of(log, "uniform"), CloneRecipe(), 0)
