"""A form's numbers come back from a log, whatever the reward's unit, and say how sure they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from decision.errors import FieldError, SupportError
from simulators.environments.lts.env import draw_users
from simulators.environments.lts.form import FORM
from simulators.learned.fitting import fitted
from simulators.learned.forms import form_of
from simulators.learned.logs import logged
from simulators.learned.trajectories import Trajectories, scale_of


def log_of(choc: float, seed: int, users: int = 24, steps: int = 60) -> Trajectories:
    return logged(draw_users(np.random.default_rng(seed), np.array([choc]), users), seed, horizon=steps)


@pytest.mark.parametrize(("choc", "seed"), [(14.0, 0), (7.0, 1)])
def test_the_numbers_of_a_group_come_back_from_its_log(choc: float, seed: int) -> None:
    found = fitted(FORM, log_of(choc, seed), seed)
    assert found.names == ("choc", "kale")
    assert found.group == pytest.approx([choc, 4.0], abs=0.1)
    assert (np.abs(found.group - [choc, 4.0]) <= 5.0 * found.errors).all()
    assert found.noise == pytest.approx(0.01, rel=0.15)
    drawn = found.drawn(np.random.default_rng(0), 4_000)
    assert drawn.mean(axis=0) == pytest.approx(found.group, abs=0.01)
    assert drawn.std(axis=0) == pytest.approx(found.errors, rel=0.1)


def test_a_unit_scales_the_numbers() -> None:
    log = log_of(10.0, 2, users=12, steps=40)
    pence = log.rewards * np.float32(128.0)
    one, other = fitted(FORM, log, 0), fitted(FORM, replace(log, rewards=pence, scale=scale_of(pence)), 0)
    assert other.group == pytest.approx(128.0 * one.group, rel=1e-3)
    assert other.noise == pytest.approx(128.0 * one.noise, rel=1e-2)


def test_a_log_that_tells_too_little_is_refused() -> None:
    with pytest.raises(SupportError, match="do not tell 2 and 2 numbers"):
        fitted(FORM, log_of(14.0, 0, users=3, steps=2), 0)


@pytest.mark.parametrize("name", ["", "lts:", "nowhere", "no.such.module:FORM", "math:pi"])
def test_a_form_that_cannot_be_had_is_named(name: str) -> None:
    with pytest.raises(FieldError, match=r"session\.form"):
        form_of(name)


def test_a_form_of_ones_own_is_imported() -> None:
    assert form_of("simulators.environments.lts.form:FORM") is form_of("lts") is FORM
