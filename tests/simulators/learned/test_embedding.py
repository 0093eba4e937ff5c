"""A group that no simulator was made for lies where it belongs; the served policy sees what the taught one did."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from tests.parts import require

require(importlib.util.find_spec("torch"), "torch is not installed")

import torch  # noqa: E402

from simulators.environments.lts.env import draw_users  # noqa: E402
from simulators.learned.embedding import elements_of, fit_embedding, spread_out  # noqa: E402
from simulators.learned.groups import GroupView  # noqa: E402
from simulators.learned.logs import logged  # noqa: E402
from simulators.sim2rec.network import ContextPolicy  # noqa: E402
from simulators.trainers.contract import Taught  # noqa: E402

CHOCS = (6.0, 9.0, 14.0, 18.0, 21.0)


def test_a_group_not_trained_on_lies_between_its_neighbours() -> None:
    users = draw_users(np.random.default_rng(0), np.array(CHOCS), 40)
    log = replace(logged(users, 0, horizon=20), groups=users.group)
    pools = elements_of(log)
    probes = log.catalogue.features[[6, 18]]
    found = fit_embedding([pool for at, pool in enumerate(pools) if at != 2], probes, 0, steps=60)
    strong = [float(found.of(pool)[1]) for pool in pools]
    assert strong == sorted(strong)
    assert found.of(pools[2]).shape == (2,)


def test_of_many_actions_the_farthest_from_one_another_are_read() -> None:
    features = np.linspace(-1.0, 1.0, 9, dtype=np.float32)[:, None]
    assert sorted(spread_out(features, 3).tolist()) == [0, 4, 8]
    assert spread_out(np.zeros((3, 1), np.float32), 3).tolist() == [0]


def test_the_served_policy_sees_its_group_as_the_taught_one_does() -> None:
    log = logged(draw_users(np.random.default_rng(1), np.array([14.0]), 2), 1, horizon=6)
    log = replace(log, groups=np.array([0, 1]), group_names=("Oslo", "Rome"), grouped_by="city")
    table = np.array([[0.3, -0.4], [1.0, 0.2]], np.float32)
    view = GroupView(None, 1, table)
    policy = ContextPolicy(view.width, 3, hidden=8, seed=4, remembered=view.remembered)
    oracle = Taught(policy, view, np.array([6, 12, 18])).oracle(log)
    assert oracle.settings.elsewhere == pytest.approx(table.mean(axis=0))
    for user, name in enumerate(log.group_names):
        memory, state = policy.start(1), oracle.start()
        for time in range(6):
            before = max(time - 1, 0)
            one = log.responses[user, [before]], log.shown[user, [before]]
            inputs = view.inputs(*one, np.array([user]), first=time == 0)
            with torch.no_grad():
                logits, memory = policy.step(torch.from_numpy(inputs), memory)
            assert oracle.logits(oracle.seen_in({f"city={name}": 1.0}, state)) == pytest.approx(
                logits[0].numpy(), abs=1e-5
            )
            action = log.catalogue.ids[int(log.actions[user, time])]
            if action in oracle.settings.actions:
                state = oracle.advance(state, action, float(log.rewards[user, time]))
                continue
            shown = log.shown[user, time]
            seen = np.array([1.0, log.responses[user, time], *shown, *[0.0] * 4], np.float32)
            state = oracle._after(seen, state[oracle.inputs :])
