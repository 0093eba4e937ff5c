"""What a log of sessions can teach, told before a training: against logs whose makers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulators.environments.lts.env import draw_users
from simulators.environments.lts.planner import plan
from simulators.learned.logs import logged, mixed
from simulators.learned.trajectories import Trajectories
from simulators.offline.quality import advice, quality_of
from tests.simulators.offline.test_offline import bandit, without_a_floor


def known(log: Trajectories, shares: list[float]) -> Trajectories:
    """Return `log` with one and the same distribution everywhere."""
    pmf = np.broadcast_to(np.array(shares, np.float32), (*log.actions.shape, len(log.catalogue)))
    return replace(log, pmf=pmf)


def satisfaction(seed: int, users: int, *, planned: bool) -> Trajectories:
    """Return a log of which version 1 drew nine tenths by much clickbait, and version 2 better."""
    people = draw_users(np.random.default_rng([seed, 1]), np.array([14.0]), users)
    many, few = people.take(np.arange(users * 9 // 10)), people.take(np.arange(users * 9 // 10, users))
    return mixed([logged(many, seed, shown=(18, 29)), logged(few, seed + 1, plan=plan(few) if planned else None)])


@pytest.mark.parametrize("planned", [True, False])
def test_the_good_version_is_named_and_weights_by_returns_are_refused(planned: bool) -> None:
    found = quality_of(satisfaction(7, 400, planned=planned), asked="aw")
    assert [each.name for each in found.versions] == ["2", "1"]
    assert found.share_of_users > 0.6
    assert (found.sampler, found.effective) == ("pw", pytest.approx(40.0, abs=1.0))
    assert found.tq is not None
    assert 0.0 <= found.tq < 0.3
    said = " ".join(advice(found))
    assert "(aw) are refused" in said
    assert "version 2 brought most" in said


def test_a_log_of_one_policy_says_that_a_clone_can_be_no_better() -> None:
    log = logged(draw_users(np.random.default_rng(0), np.array([14.0]), 100), 0, horizon=20)
    found = quality_of(log)
    assert found.versions == ()
    assert (found.sampler, found.effective) == ("uniform", pytest.approx(100.0))
    assert (found.executed, found.actions) == (13, 30)
    assert found.effective_actions is None
    said = " ".join(advice(found))
    assert "a plain clone can be no better" in said
    assert "17 of 30 actions were hardly ever shown" in said


def test_a_uniform_log_has_all_its_actions_and_decisions() -> None:
    found = quality_of(known(bandit(0), [1 / 3] * 3))
    assert found.effective_actions == pytest.approx(3.0, rel=1e-5)
    assert found.counts == pytest.approx(1.0, abs=1e-6)
    assert found.share_of_users < 0.05
    assert "those of single users tell of policies" in " ".join(advice(found))


def test_a_log_without_choice_says_that_a_critic_has_seen_nothing_else() -> None:
    found = quality_of(known(bandit(0), [1.0, 0.0, 0.0]))
    assert found.effective_actions == pytest.approx(1.0)
    assert "a plain clone may be believed" in " ".join(advice(found))


def test_simulators_that_explain_nothing_are_not_to_be_believed() -> None:
    log = bandit(0)
    assert "sim2rec is not to be believed" in " ".join(advice(quality_of(log, residual=1.0)))
    assert "sim2rec may be believed" in " ".join(advice(quality_of(log, residual=0.2)))
    assert not any("sim2rec" in each for each in advice(quality_of(log)))


def test_quality_knows_no_unit() -> None:
    log = satisfaction(8, 100, planned=False)
    one, other = quality_of(log), quality_of(replace(log, rewards=np.float32(3e6) * log.rewards))
    for name in ("tq", "semivariance", "counts", "effective"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-3)


def test_uniform_choice_is_among_what_was_offered_and_not_among_what_one_version_draws() -> None:
    """Nine tenths weigh 1 / (1/2 * 3) and a tenth 1 / (1 * 3): (.9 * 2 + .1)^2 / (.9 * 4 + .1) of them count."""
    assert quality_of(without_a_floor()).counts == pytest.approx(1.9**2 / 3.7, rel=1e-5)
