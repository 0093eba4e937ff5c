"""What every trainer of policies with memory keeps. Each check takes a trainer and its name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decision.errors import FieldError
from simulators.environments.lts.env import draw_users
from simulators.learned.ensembles import fit_ensemble
from simulators.learned.logs import LTS, logged
from simulators.learned.trajectories import Catalogue, catalogue_of, scale_of
from simulators.trainers.contract import Plan, candidates_of
from simulators.trainers.judge import judged

LOG = logged(draw_users(np.random.default_rng(3), np.array([14.0]), 48), 3, horizon=24)
LOG = replace(LOG, scale=scale_of(LOG.rewards), catalogue=catalogue_of(LTS.ids, LTS.raw, LOG.actions))
SIMULATORS = fit_ensemble(LOG, 0, members=2)
PLAN = Plan(members=2, held=3, effort=0.02, form="lts")


def check_the_same_seed_gives_the_same_numbers(train) -> None:
    one, other, another = (train(LOG, SIMULATORS, PLAN, seed) for seed in (5, 5, 6))
    same = [
        torch.equal(left, right) for left, right in zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    ]
    assert all(same)
    assert not torch.equal(one.policy.head[0].weight, another.policy.head[0].weight)


def check_only_candidates_are_offered_and_served_as_taught(train) -> None:
    taught = train(LOG, SIMULATORS, PLAN, 0)
    assert taught.offered.tolist() == candidates_of(LOG, PLAN).tolist() == LOG.executed.tolist()
    oracle = taught.oracle(LOG)
    assert oracle.settings.actions == [LTS.ids[code] for code in taught.offered]
    assert oracle.inputs == taught.view.width == taught.policy.inputs


def check_a_unit_changes_nothing(train, plan: Plan = PLAN) -> None:
    """Rewards in pence: the same policy, to rounding."""
    pence = LOG.rewards * np.float32(128.0)
    other_log = replace(LOG, rewards=pence, scale=scale_of(pence))
    one = train(LOG, SIMULATORS, plan, 0)
    other = train(other_log, replace(SIMULATORS, scale=other_log.scale), plan, 0)
    for left, right in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.allclose(left, right, atol=0.02)


def check_the_log_and_the_simulators_are_not_changed(train) -> None:
    before = [part.copy() for part in (LOG.actions, LOG.rewards, LOG.propensities)]
    train(LOG, SIMULATORS, PLAN, 0)
    for old, new in zip(before, (LOG.actions, LOG.rewards, LOG.propensities), strict=True):
        assert old.tobytes() == new.tobytes()


def check_too_many_actions_are_refused(train) -> None:
    ids = tuple(f"item-{number}" for number in range(300))
    raw = np.arange(300, dtype=np.float32)[:, None]
    log = replace(LOG, catalogue=Catalogue(ids, raw, np.zeros(1, np.float32), np.ones(1, np.float32)))
    with pytest.raises(FieldError, match="candidates: must be 2 to 200 actions"):
        train(log, SIMULATORS, replace(PLAN, candidates="all"), 0)


def check_what_is_taught_can_be_judged(train) -> None:
    taught = train(LOG, SIMULATORS, PLAN, 0)
    found, gains = judged(taught, LOG, SIMULATORS, 1)
    again, _ = judged(taught, LOG, SIMULATORS, 1)
    assert found == again
    assert (found.users, len(gains)) == (12, 12)
    assert found.gain_low < found.gain < found.gain_high
    assert abs(found.held_out - found.logged_held_out - found.gain) < 1e-6


CHECKS = tuple(value for name, value in list(globals().items()) if name.startswith("check_"))
