"""The teacher of worlds of a known form is near the optimum; groups between those fitted are taught in."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from decision.errors import FieldError
from tests.parts import require

require(importlib.util.find_spec("torch"), "torch is not installed")

from simulators.environments.lts.env import DOCUMENTS, draw_users  # noqa: E402
from simulators.environments.lts.form import FORM  # noqa: E402
from simulators.environments.lts.planner import plan, returns_of_plan  # noqa: E402
from simulators.learned.embedding import elements_of  # noqa: E402
from simulators.learned.fitting import Fitted  # noqa: E402
from simulators.learned.logs import logged  # noqa: E402
from simulators.trainers.contract import Plan, trainer_of  # noqa: E402
from simulators.trainers.parametric import AHEAD, completed, values  # noqa: E402
from tests.contracts.session_trainer import LOG  # noqa: E402


def test_the_best_by_the_teacher_is_near_the_optimum() -> None:
    users = draw_users(np.random.default_rng(5), np.array([14.0]), 100)
    traits = np.stack([users.memory, users.sensitivity], axis=1).astype(float)
    group, state, total = np.tile([14.0, 4.0], (100, 1)), FORM.start(np.empty((100, 2)), traits), np.zeros(100)
    offered = np.array([0, 10, 19, 29])[:, None] / DOCUMENTS
    for _ in range(140):
        best = values(FORM, group, traits, state, offered, offered, AHEAD).argmax(axis=1)
        reward = FORM.mean(group, traits, state, offered[best])
        total, state = total + reward, FORM.after(group, traits, state, offered[best], reward)
    assert 0.97 <= total.mean() / returns_of_plan(users, plan(users)).mean() <= 1.0


def test_values_are_the_first_reward_and_the_best_of_what_is_held_after_it() -> None:
    group, traits, state = np.array([[10.0, 4.0]]), np.array([[0.5, 0.3]]), np.array([[1.0]])
    actions, rest = np.array([[0.0], [0.6]]), np.array([[0.2], [0.8]])
    wanted = []
    for action in actions:
        first, after = (
            FORM.mean(group, traits, state, action[None]),
            FORM.after(group, traits, state, action[None], state),
        )
        later = []
        for held in rest:
            now, total = after, 0.0
            for _ in range(3):
                total += FORM.mean(group, traits, now, held[None])[0]
                now = FORM.after(group, traits, now, held[None], state)
            later.append(total)
        wanted.append(first[0] + max(later))
    assert values(FORM, group, traits, state, actions, rest, 3)[0] == pytest.approx(wanted)


def test_without_a_form_nothing_is_taught() -> None:
    with pytest.raises(FieldError, match=r"session\.form"):
        trainer_of("parametric")(LOG, None, Plan(effort=0.02), 0)  # type: ignore[arg-type]


FORM_NAMES = tuple(FORM.parameters)


class Broken:
    """A form of a user's own that takes two features where the log has one."""

    parameters = FORM.parameters
    scales = True
    traits, start, after = FORM.traits, FORM.start, FORM.after

    def mean(self, group, traits, state, shown):
        return shown[:, 1]


BROKEN = Broken()


def test_a_form_that_does_not_fit_the_log_is_named_and_no_crash() -> None:
    plan = Plan(effort=0.02, form=f"{__name__}:BROKEN")
    with pytest.raises(FieldError, match=r"session\.form: must be a form that takes the log's actions"):
        trainer_of("parametric")(LOG, None, plan, 0)  # type: ignore[arg-type]


def test_a_few_users_of_a_group_stand_for_it_by_its_numbers_and_not_by_who_they_are() -> None:
    def near(choc: float) -> Fitted:
        return Fitted(FORM_NAMES, np.array([choc, 4.0]), 1e-6 * np.eye(2), np.zeros(2), np.full(2, 50.0), 0.01, 20)

    many = logged(draw_users(np.random.default_rng(8), np.array([13.0]), 300), 8, horizon=40)
    few = many.take(np.argsort(many.rewards.mean(axis=1))[:6])  # those of it who like it least
    rest = logged(draw_users(np.random.default_rng(9), np.array([8.0, 19.0]), 20), 9, horizon=40)
    names = ("", "low", "high", "few", "two")
    codes = np.concatenate([[0] * 5, [1] * 15, [2] * 20, [3] * 6, [4] * 2])
    parts = (rest, few, many.take(np.arange(2)))
    log = replace(
        rest,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ("actions", "rewards")},
        propensities=np.concatenate([part.propensities for part in parts]),
        groups=codes,
        group_names=names,
        grouped_by="city",
    )
    found, own = completed(FORM, [near(8.0), near(19.0)], [1, 2], log, 0), elements_of(log)
    of_the_group = float(elements_of(many)[0][:, -1].mean())
    assert abs(found[3][:, -1].mean() - of_the_group) < 0.3 * abs(own[3][:, -1].mean() - of_the_group)
    # Users of no group, and two users, who tell no numbers, are what they are.
    assert found[0].tobytes() == own[0].tobytes()
    assert found[4].tobytes() == own[4].tobytes()
    assert [len(pool) > len(mine) for pool, mine in zip(found, own, strict=True)] == [False, True, True, True, False]
