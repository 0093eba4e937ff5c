"""Simulators learned from logs: the log, the models, the intervention tests, and a student of looking ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decision.errors import FieldError
from simulators.environments.lts.env import DOCUMENTS, LtsEnv, LtsUsers, draw_users
from simulators.learned.ensembles import Ensemble, error_of, errors_of, fit_ensemble, residual_of
from simulators.learned.groups import GroupView, new_sadae
from simulators.learned.interventions import trend_of
from simulators.learned.logs import LTS, LTS_SCALE, SHOWN, habitual, logged
from simulators.learned.lookahead import Lookahead, held_values, rollouts, teach
from simulators.learned.monitor import calibrated, surprise
from simulators.learned.parameters import fitted_choc
from simulators.learned.responses import PlainResponse, ReservoirResponse, TreeResponse, bounds_of, fit_recurrent
from simulators.learned.trajectories import Catalogue, Trajectories, catalogue_of, scale_of

USERS = draw_users(np.random.default_rng(0), np.array([14.0]), 80)
LOG = logged(USERS, 0)
PLAIN = PlainResponse(LOG, 200, 0, bounds_of(LOG))
SMALL = Lookahead((6, 12, 18), iterations=2, users=6, steps=8, latest=6, held=4, every=4, batches=2, batch=8)


def clickbait(shown: np.ndarray) -> np.ndarray:
    return shown[:, 0] * LTS.spread[0] + LTS.centre[0]


def ensemble_of(members, names, held_out) -> Ensemble:
    return Ensemble(members, names, held_out, LTS, LTS_SCALE, np.arange(1))


class Truth:
    """The true world with the interface of a learned simulator; memory is (exposure, user)."""

    def __init__(self, users: LtsUsers) -> None:
        self.users = users

    def start(self, users: int) -> np.ndarray:
        rows = np.arange(users) % len(self.users)
        return np.stack([0.5 / (1 - self.users.memory[rows]), rows], axis=1).astype(np.float32)

    def predict(self, memory, shown):
        rows = memory[:, 1].astype(int)
        satisfaction = 1 / (1 + np.exp(-self.users.sensitivity[rows] * memory[:, 0]))
        engaged = np.log((4 + 10 * clickbait(shown)) * satisfaction) - LTS_SCALE.usual
        return engaged.astype(np.float32), np.full(len(memory), 1e-3, np.float32)

    def advance(self, memory, shown, response):
        rows = memory[:, 1].astype(int)
        npe = self.users.memory[rows] * memory[:, 0] + 1 - 2 * clickbait(shown)
        return np.stack([npe, memory[:, 1]], axis=1).astype(np.float32)


def test_log_has_limited_support_and_says_how_likely_each_document_was() -> None:
    assert LOG.executed.tolist() == list(range(SHOWN[0], SHOWN[1] + 1))
    repeated = LOG.actions[:, 1:] == LOG.actions[:, :-1]
    assert LOG.propensities[:, 0] == pytest.approx(1 / 13)
    assert LOG.propensities[:, 1:][repeated] == pytest.approx(0.7 + 0.3 / 13)
    assert LOG.propensities[:, 1:][~repeated] == pytest.approx(0.3 / 13)


def test_propensities_are_the_frequencies() -> None:
    """Fails with probability below 1e-6: 100,000 draws, shares within 5 standard errors."""
    documents, propensity = habitual(np.full(100_000, 10), 100_000, np.random.default_rng(1))
    stays = documents == 10
    assert abs(stays.mean() - propensity[stays][0]) < 5 * np.sqrt(0.25 / 100_000)


@pytest.mark.parametrize(("field", "value"), [("rewards", np.full((2, 3), np.nan)), ("propensities", np.zeros((2, 3)))])
def test_impossible_trajectories_are_refused(field: str, value: np.ndarray) -> None:
    good = {"actions": np.zeros((2, 3), np.int64), "rewards": np.ones((2, 3)), "propensities": np.ones((2, 3))}
    with pytest.raises(FieldError, match=field):
        Trajectories(**(good | {"catalogue": LTS, "scale": LTS_SCALE, field: value}))


def test_true_world_passes_the_intervention_tests_and_its_mirror_image_fails() -> None:
    truth = Truth(USERS)
    assert trend_of(truth, LOG, 6, 18).passed

    class Mirrored(Truth):
        def predict(self, memory, shown):
            return super().predict(memory, -shown)

    assert trend_of(Mirrored(USERS), LOG, 6, 18).at_once < 0.2


@pytest.mark.parametrize("kind", ["plain", "trees", "recurrent"])
def test_models_predict_new_users_better_than_repeating_the_last_reward(kind: str) -> None:
    """Seeded, so the same on every run of one library version."""
    new = logged(draw_users(np.random.default_rng(5), np.array([14.0]), 60), 6)
    model = {
        "plain": lambda: PLAIN,
        "trees": lambda: TreeResponse(LOG, 0, bounds_of(LOG)),
        "recurrent": lambda: fit_recurrent(LOG, 12, 0, steps=60, bounds=bounds_of(LOG)),
    }[kind]()
    repeating = np.sqrt(np.square(np.diff(new.rewards, axis=1)).mean())
    assert errors_of(model, new)[10:].mean() < 0.5 * repeating


def test_an_error_is_that_of_the_decisions_that_there_were() -> None:
    some = replace(LOG.take(np.arange(4)), lengths=np.array([5, 7, 7, 3]))
    by_step = errors_of(PLAIN, some)
    assert np.isfinite(by_step).tolist() == [True] * 7 + [False] * (LOG.steps - 7)
    count = np.array([4, 4, 4, 3, 3, 2, 2])
    error = float(np.sqrt(count @ by_step[:7].astype(float) ** 2 / 22))
    assert error_of(PLAIN, some) == pytest.approx(error)
    alone = Ensemble([PLAIN], ["plain"], PLAIN, LTS, LTS_SCALE, np.arange(4))
    assert residual_of(alone, some) == pytest.approx(error / float(some.rewards[some.inside].std()), rel=1e-5)


def test_recurrent_model_step_by_step_is_its_loss_over_the_sequence() -> None:
    model = fit_recurrent(LOG, 8, 0, steps=2, bounds=bounds_of(LOG))
    shown, response = LOG.shown, LOG.responses
    memory, misfits = model.start(len(LOG)), []
    for time in range(LOG.steps):
        # Unclipped moments, as the loss has them.
        with torch.no_grad():
            mean, sd = (
                part.numpy() for part in model._moments(torch.from_numpy(memory), torch.from_numpy(shown[:, time]))
            )
        misfits.append((0.5 * ((response[:, time] - mean) / sd) ** 2 + np.log(sd)).mean())
        memory = model.advance(memory, shown[:, time], response[:, time])
    weight = 1.0 + 10.0 * np.exp(-np.arange(140) / 4.0)
    known = (np.array(misfits) * weight).sum() / weight.sum()
    with torch.no_grad():
        parts = [torch.from_numpy(part) for part in (shown, response, LOG.inside.astype(np.float32))]
        assert float(model.loss(*parts)) == pytest.approx(known, rel=1e-4)


def test_no_simulator_answers_with_what_was_never_seen() -> None:
    low, high = bounds_of(LOG)
    memory, far = PLAIN.start(50), np.tile(LTS.features[DOCUMENTS - 1], (50, 1))
    for _ in range(60):
        mean, _ = PLAIN.predict(memory, far)
        assert low <= mean.min()
        assert mean.max() <= high
        memory = PLAIN.advance(memory, far, mean)


def test_ensemble_keeps_those_that_passed_and_never_nobody() -> None:
    ensemble = ensemble_of([PLAIN, Truth(USERS)], ["plain", "truth"], PLAIN)
    assert ensemble.keep([False, True]).names == ["truth"]
    assert ensemble.keep([False, False]).names == ["plain", "truth"]
    with pytest.raises(FieldError, match="users"):
        fit_ensemble(LOG.take(np.arange(5)), 0)


def test_values_of_holding_a_document_are_the_true_ones_in_the_true_world() -> None:
    ensemble = ensemble_of([Truth(USERS)], ["truth"], Truth(USERS))
    plan = replace(SMALL, penalty=0.0, held=10)
    memory = ensemble.members[0].start(80)
    values = held_values(ensemble, [memory.copy()], np.zeros(80, np.int64), plan)
    for column, document in enumerate(plan.offered):
        env = LtsEnv(USERS, noise=0.0)
        env.reset(seed=0)
        total = sum(env.step(np.full(80, document))[1] for _ in range(10)) / 10
        assert values[:, column] == pytest.approx(total, rel=1e-4)


def test_disagreement_is_taken_off() -> None:
    class Louder(Truth):
        def predict(self, memory, shown):
            mean, sd = super().predict(memory, shown)
            return mean + np.where(clickbait(shown) > 0.5, 0.5, 0.0).astype(np.float32), sd

    ensemble = ensemble_of([Truth(USERS), Louder(USERS)], ["a", "b"], Truth(USERS))
    memories = [member.start(80) for member in ensemble.members]
    group = np.zeros(80, np.int64)
    free, priced = (
        held_values(ensemble, [m.copy() for m in memories], group, replace(SMALL, penalty=p)) for p in (0.0, 1.0)
    )
    assert priced[:, :2] == pytest.approx(free[:, :2], rel=1e-4)
    assert (priced[:, 2] < free[:, 2] - 0.1).all()


def test_a_member_far_from_the_others_is_priced_by_the_gap_and_one_among_them_less() -> None:
    """Beyond .5 of clickbait one member of three hears .01 more, ten deviations: 50 nats from each of two, or one."""

    class Louder(Truth):
        def predict(self, memory, shown):
            mean, sd = super().predict(memory, shown)
            return mean + np.where(clickbait(shown) > 0.5, 0.01, 0.0).astype(np.float32), sd

    ensemble = ensemble_of([Truth(USERS), Truth(USERS), Louder(USERS)], ["a", "b", "c"], Truth(USERS))
    memories = [member.start(80) for member in ensemble.members]
    for group, nats in ((0, 25.0), (2, 50.0)):
        own = np.full(80, group, np.int64)
        free, priced = (
            held_values(ensemble, memories, own, replace(SMALL, penalty=p, penalty_kind="gap")) for p in (0.0, 0.1)
        )
        assert priced[:, :2] == pytest.approx(free[:, :2], rel=1e-4)
        assert free[:, 2] - priced[:, 2] == pytest.approx(0.1 * nats, rel=0.01)
    with pytest.raises(FieldError, match="penalty_kind"):
        replace(SMALL, penalty_kind="distance")


def test_rollouts_follow_the_log_first_and_are_cut() -> None:
    ensemble = ensemble_of([PLAIN, Truth(USERS)], ["a", "b"], PLAIN)
    view = GroupView(new_sadae(0))
    policy, _ = teach(ensemble, LOG, view, SMALL, 0)
    inputs, values, marked = rollouts(ensemble, LOG, view, SMALL, policy, 5, np.random.default_rng(0))
    assert inputs.shape == (12, 13, view.width)
    assert values.shape == (12, 13, 3)
    assert marked.sum(axis=1).tolist() == [2.0] * 12
    assert marked[:, :5].sum() == 0
    logged_actions = {tuple(row) for row in np.round(LOG.shown[:, :4, 0], 4).tolist()}
    assert {tuple(row) for row in np.round(inputs[:, 1:5, 2], 4).tolist()} <= logged_actions


def test_teaching_is_repeatable() -> None:
    ensemble = ensemble_of([PLAIN], ["a"], PLAIN)
    one, other = (teach(ensemble, LOG, GroupView(None), SMALL, 3)[0] for _ in range(2))
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_fitted_parameters_find_the_group() -> None:
    """Seeded, so the same on every run."""
    for choc in (8.0, 14.0, 20.0):
        # The particles know mu 14 nowhere; memory and sensitivity are all they hold.
        log = logged(USERS.in_group(choc), 3)
        centre, spread = fitted_choc(log, 0, users=20)
        assert abs(centre - choc) < 1.0
        assert spread < 1.0


def test_impossible_plans_are_refused() -> None:
    ensemble = ensemble_of([PLAIN], ["a"], PLAIN)
    with pytest.raises(FieldError, match="offered"):
        teach(ensemble, LOG, GroupView(None), replace(SMALL, offered=(DOCUMENTS,)), 0)
    with pytest.raises(FieldError, match="latest"):
        teach(ensemble, LOG, GroupView(None), replace(SMALL, latest=200), 0)
    with pytest.raises(FieldError, match="lookahead"):
        replace(SMALL, steps=0)


def test_right_simulator_is_surprised_by_about_one_and_a_wrong_one_by_more() -> None:
    class Noisy(Truth):
        def predict(self, memory, shown):
            mean, _ = super().predict(memory, shown)
            return mean, (0.01 / LTS_SCALE.reward(mean)).astype(np.float32)

    assert surprise(Noisy(USERS), LOG) == pytest.approx(1.0, abs=0.1)
    assert surprise(Noisy(USERS), logged(USERS.in_group(9.0), 1)) > 10


def test_watch_is_quiet_in_its_own_world_and_alarmed_in_another() -> None:
    """Seeded, so the same on every run of one library version."""
    fresh = draw_users(np.random.default_rng(8), np.array([14.0]), 60)
    watch = calibrated([PLAIN], logged(fresh, 4), 0)
    same = logged(draw_users(np.random.default_rng(9), np.array([14.0]), 60), 5)
    assert not watch.alarmed([PLAIN], same)
    shifted = replace(same, rewards=same.rewards * np.where(same.actions > 12, np.float32(0.5), np.float32(1.0)))
    assert watch.alarmed([PLAIN], shifted)


def test_a_trajectory_knows_no_unit() -> None:
    """Rewards times a constant and features in other units give the same responses, features and models."""
    raw = LTS.raw * 7.0 + 3.0
    for form in ("log", "linear"):
        rewards = LOG.rewards if form == "log" else LOG.rewards - LOG.rewards.mean()
        one, other = (
            replace(LOG, rewards=found, scale=scale_of(found), catalogue=catalogue_of(LTS.ids, features, LOG.actions))
            for found, features in ((rewards, LTS.raw), (1000.0 * rewards, raw))
        )
        assert (one.scale.form, other.scale.form) == (form, form)
        assert other.shown == pytest.approx(one.shown, abs=1e-4)
        assert other.responses == pytest.approx(one.responses, abs=1e-4)
        assert other.scale.reward(other.responses) == pytest.approx(1000.0 * rewards, abs=0.1)


def test_two_valued_rewards_are_drawn_as_two_values_with_the_mean_predicted() -> None:
    """Fails with probability below 1e-6: 40,000 draws, 5 standard errors."""
    scale = scale_of(np.array([0.0, 1.0, 0.0, 0.0], np.float32))
    mean = scale.response(np.full(40_000, 0.3, np.float32))
    drawn = scale.reward(scale.drawn(mean, np.ones_like(mean), np.random.default_rng(0)))
    assert set(np.round(drawn, 5).tolist()) == {0.0, 1.0}
    assert abs(drawn.mean() - 0.3) < 5 * np.sqrt(0.21 / 40_000)


def test_actions_without_features_are_told_apart() -> None:
    found = catalogue_of(["a", "b", "c"], np.zeros((3, 0), np.float32), np.array([0, 1, 2, 2]))
    assert len({tuple(row) for row in found.features.tolist()}) == 3
    with pytest.raises(FieldError, match=r"catalogue\.ids"):
        Catalogue(("a", "a"), np.zeros((2, 1), np.float32), np.zeros(1, np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize("kind", [PlainResponse, ReservoirResponse])
def test_steps_beyond_a_users_last_are_no_rows(kind) -> None:
    """What stands beyond the last step changes no prediction."""
    lengths = np.random.default_rng(2).integers(20, 100, len(LOG))
    beyond = np.arange(LOG.steps) >= lengths[:, None]
    models = [
        kind(replace(LOG, lengths=lengths, rewards=np.where(beyond, np.float32(junk), LOG.rewards)), 30, 0, (-1.0, 2.0))
        for junk in (1.0, 50.0)
    ]
    shown = np.zeros((5, 1), np.float32)
    one, other = (model.predict(model.start(5), shown)[0] for model in models)
    assert one.tobytes() == other.tobytes()


def test_models_take_several_features_per_action() -> None:
    raw = np.stack([LTS.raw[:, 0], np.square(LTS.raw[:, 0])], axis=1)
    log = replace(LOG, catalogue=catalogue_of(LTS.ids, raw, LOG.actions))
    ensemble = fit_ensemble(log, 0, members=4, steps=3)
    view = GroupView(new_sadae(0, 2), 2)
    policy, _ = teach(ensemble, log, view, SMALL, 0)
    assert policy.inputs == view.width == 7
    assert trend_of(ensemble.members[0], log, 6, 18).at_once > 0.5
