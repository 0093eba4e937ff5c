"""The witnesses: how far a log can be weighed, what an incapable policy is called, which method goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from decision.ope.sequential.trajectories import FARTHEST, steps_of
from pipelines.training.sessions import best_of
from simulators.environments.lts.env import draw_users
from simulators.learned.ensembles import fit_ensemble
from simulators.learned.logs import logged
from simulators.trainers.contract import Plan
from simulators.trainers.judge import Judgement, judged, paired
from simulators.trainers.parametric import train


@pytest.mark.parametrize(
    ("users", "squared", "steps"),
    [(1_600, 2.0, 5), (51_200, 4.0, 5), (30, 2.0, 1), (400, 1.0, FARTHEST), (10**9, 1.01, 20)],
)
def test_as_many_steps_are_weighed_as_the_users_allow(users: int, squared: float, steps: int) -> None:
    assert steps_of(users, squared) == steps


def judgement(gain: float, *, agreed: bool) -> Judgement:
    return Judgement(
        believed=1.0,
        held_out=1.0 + gain,
        logged_held_out=1.0,
        error=0.0,
        gain=gain,
        gain_low=gain - 0.1,
        gain_high=gain + 0.1,
        logged=1.0,
        steps=3,
        users=50,
        agreed=agreed,
    )


def found(gain: float, *, agreed: bool, seed: int = 0):
    noise = np.random.default_rng(seed).normal(0.0, 0.05, 50)
    return None, judgement(gain, agreed=agreed), gain + noise


def test_the_first_method_goes_on_unless_another_is_better_in_pairs_or_agreed_on_alone() -> None:
    first = found(0.2, agreed=True)
    assert best_of({"sim2rec": first, "clone": found(0.19, agreed=True, seed=1)}) == "sim2rec"
    assert best_of({"sim2rec": first, "clone": found(0.4, agreed=True, seed=1)}) == "clone"
    assert best_of({"sim2rec": first, "clone": found(0.4, agreed=False, seed=1)}) == "sim2rec"
    assert best_of({"sim2rec": found(0.4, agreed=False), "clone": found(0.1, agreed=True)}) == "clone"


def test_no_witness_speaks_for_a_policy_that_shows_what_the_log_did_not() -> None:
    log = logged(draw_users(np.random.default_rng(3), np.array([14.0]), 40), 3, horizon=12)
    simulators = fit_ensemble(log, 0, members=2, steps=1)
    plan = Plan(effort=0.02, form="lts")
    executed, everything = (
        judged(train(log, simulators, replace(plan, candidates=candidates), 0), log, simulators, 1)[0]
        for candidates in ("executed", "all")
    )
    assert executed.untried == 0.0
    # Hardly taught, it earns less than each user's best document, held, and one simulator is the worst.
    assert executed.worst in simulators.names
    assert executed.worst_share is not None
    assert 0.5 < executed.worst_share < 1.0
    # And it shows each of 30 documents alike, of which the log showed 13.
    assert everything.untried == pytest.approx(17 / 30, abs=0.1)
    assert not everything.agreed


def test_pairs_have_an_interval_that_covers_their_mean() -> None:
    one, other = np.arange(20.0) + 0.5, np.arange(20.0)
    assert paired(one, other) == pytest.approx((0.5, 0.5, 0.5))
    assert paired(np.ones(1), np.zeros(1))[1] == -np.inf
