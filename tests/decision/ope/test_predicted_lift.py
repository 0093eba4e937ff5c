from __future__ import annotations

import math

import numpy as np
import pytest

from decision.batch import Batch, Floats, Interactions
from decision.ope.diagnostics.predicted_lift import PredictedLift, predicted_lift_of
from decision.ope.estimators.lift import SWITCH_AT, lift_of, switched_lift_of

ROWS, ACTIONS, SIGMA = 4_000, 4, 0.5


def logged(seed: int) -> tuple[Interactions, Floats, Floats, Floats]:
    """Return a log whose rewards are the model's predictions and noise of deviation SIGMA, and two policies."""
    rng = np.random.default_rng(seed)
    logging, new, old = (rng.dirichlet(np.full(ACTIONS, 0.7), ROWS) * 0.9 + 0.025 for _ in range(3))
    expected = rng.normal(0.0, 1.0, (ROWS, ACTIONS))
    action = (rng.random(ROWS)[:, None] > logging.cumsum(1)).sum(1).clip(0, ACTIONS - 1)
    at = np.arange(ROWS)
    reward = expected[at, action] + SIGMA * rng.standard_normal(ROWS)
    batch = Batch([{}] * ROWS, [{}] * (ROWS * ACTIONS), [""] * (ROWS * ACTIONS), np.arange(ROWS + 1) * ACTIONS)
    log = Interactions(batch, at * ACTIONS + action, logging[at, action], reward, logging.ravel())
    return log, new.ravel(), old.ravel(), expected.ravel()


@pytest.mark.parametrize("largest", [math.inf, SWITCH_AT])
def test_the_predicted_error_is_that_of_the_estimate_where_the_model_is_right(largest: float) -> None:
    log, new, old, expected = logged(1)
    predicted = predicted_lift_of(log, new, old, expected, largest=largest)
    lift = (lift_of if largest == math.inf else switched_lift_of)(log, new, old, expected)
    direct = float(np.add.reduceat((new - old) * expected, log.batch.offsets[:-1]).mean())
    assert direct / predicted.score(SIGMA) == pytest.approx(lift.sums.error, rel=0.05)


def test_rewards_change_no_prediction() -> None:
    log, new, old, expected = logged(2)
    other = Interactions(log.batch, log.chosen, log.propensity, -7.0 * log.reward, log.pmf)
    assert predicted_lift_of(log, new, old, expected) == predicted_lift_of(other, new, old, expected)


def test_slices_add_up_to_the_whole() -> None:
    log, new, old, expected = logged(3)
    cut = ROWS // 3
    whole, parts = predicted_lift_of(log, new, old, expected), list[PredictedLift]()
    for rows in (slice(0, cut), slice(cut, ROWS)):
        flat = slice(rows.start * ACTIONS, rows.stop * ACTIONS)
        parts.append(predicted_lift_of(log.take(np.arange(ROWS)[rows]), new[flat], old[flat], expected[flat]))
    assert parts[0] + parts[1] == whole


def test_the_score_has_no_unit_and_is_0_where_nothing_differs() -> None:
    log, new, old, expected = logged(4)
    score = predicted_lift_of(log, new, old, expected).score(SIGMA)
    assert predicted_lift_of(log, new, old, 1e3 * expected).score(1e3 * SIGMA) == pytest.approx(score, rel=1e-9)
    assert predicted_lift_of(log, old, old, expected).score(SIGMA) == 0.0
    assert predicted_lift_of(log.take(np.arange(0)), new[:0], old[:0], expected[:0]).score(SIGMA) == 0.0
