"""What is said of simulators, where it is known what they know."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.learned.knowledge import (
    ahead,
    disagreement,
    gap_of,
    gap_to_others,
    horizons_of,
    known,
    last_error,
    share_of_best,
)
from simulators.learned.trajectories import Scale, Singles, Trajectories, catalogue_of

USERS, STEPS, SD = 300, 30, 0.2


class Line:
    """Says that a response is `slope` times the action's feature and what it is `off` by, with deviation `sd`."""

    def __init__(self, slope: float = 1.0, off: float = 0.0, sd: float = SD) -> None:
        self.slope, self.off, self.sd = slope, off, sd

    def start(self, users: int) -> Singles:
        return np.zeros((users, 1), np.float32)

    def predict(self, memory: Singles, shown: Singles) -> tuple[Singles, Singles]:
        mean = np.float32(self.slope) * shown[:, 0] + np.float32(self.off)
        return mean, np.full(len(mean), self.sd, np.float32)

    def advance(self, memory: Singles, shown: Singles, response: Singles) -> Singles:
        return memory


@pytest.fixture(scope="module")
def log() -> Trajectories:
    """Actions a to d of features -1, 0, 1, 2, of which d is never shown; a third of the users leaves half way."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, (USERS, STEPS))
    raw = np.array([[-1.0], [0.0], [1.0], [2.0]], np.float32)
    catalogue = catalogue_of("abcd", raw, actions)
    rewards = catalogue.features[actions][..., 0] + SD * rng.standard_normal(actions.shape)
    lengths = np.where(np.arange(USERS) % 3 == 0, STEPS // 2, STEPS)
    scale = Scale("linear", 0.0)
    return Trajectories(
        actions, rewards.astype(np.float32), np.full(actions.shape, 1 / 3, np.float32), catalogue, scale, lengths
    )


def test_the_true_model_errs_by_the_noise_and_knows_it(log: Trajectories) -> None:
    found = known(Line(), log)
    assert found.error == pytest.approx(SD, rel=0.03)
    assert found.explained == pytest.approx(1.0 - SD**2 / (1.0 + SD**2), abs=0.005)
    assert found.surprise == pytest.approx(1.0, abs=0.06)
    assert found.within == pytest.approx(0.9, abs=0.015)
    assert found.by_action[:3] == pytest.approx(SD, rel=0.05)
    assert np.isnan(found.by_action[3])
    assert last_error(log) == pytest.approx(np.sqrt(2.0 * (1.0 + SD**2)), rel=0.05)


def test_a_model_that_is_too_sure_or_knows_nothing_is_told_by_its_numbers(log: Trajectories) -> None:
    assert known(Line(sd=SD / 2.0), log).surprise == pytest.approx(4.0, abs=0.25)
    assert known(Line(slope=0.0), log).explained == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("off", "sd", "wanted"), [(0.0, SD, 0.0), (SD, SD, 0.5), (0.0, SD / 2.0, np.log(2.0) - 0.375)])
def test_the_gap_of_a_model_is_the_divergence_between_two_normals(
    log: Trajectories, off: float, sd: float, wanted: float
) -> None:
    """Of 2,500 decisions an action: wrong by .04 with a probability below 1e-3."""
    found = known(Line(off=off, sd=sd), log)
    assert found.gap[:3] == pytest.approx(wanted, abs=0.04)
    assert np.isnan(found.gap[3])
    assert found.mean_gap(log) == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(("mean", "sd", "wanted"), [(0.0, 1.0, 0.0), (2.0, 1.0, 2.0), (0.0, 2.0, np.log(2.0) - 0.375)])
def test_the_gap_to_another_simulator_is_the_divergence_from_own_answers_to_its(
    mean: float, sd: float, wanted: float
) -> None:
    means, sds = np.array([[0.0], [mean]], np.float32), np.array([[1.0], [sd]], np.float32)
    assert gap_to_others(means, sds, np.array([0])) == pytest.approx(wanted, abs=1e-6)


def test_the_gap_to_others_is_that_to_answers_drawn_from_them() -> None:
    """`gap_of` with 100,000 answers that follow the other: wrong by .02 with a probability below 1e-3."""
    rng, own, other = np.random.default_rng(0), (0.3, 0.8), (-0.4, 1.3)
    standard = (other[0] + other[1] * rng.standard_normal(100_000) - own[0]) / own[1]
    said = np.array([own, other], np.float32)[:, :, None]
    logged = gap_of(standard, np.zeros(100_000, np.int64), 1)
    assert gap_to_others(said[:, 0], said[:, 1], np.array([0])) == pytest.approx(logged, abs=0.02)


def test_the_gap_is_nothing_where_simulators_agree_and_a_mean_over_the_others() -> None:
    rng = np.random.default_rng(1)
    means, sds = rng.normal(size=(4, 50)).astype(np.float32), rng.uniform(0.1, 2.0, (4, 50)).astype(np.float32)
    own = rng.integers(0, 4, 50)
    alike = gap_to_others(np.repeat(means[:1], 4, axis=0), np.repeat(sds[:1], 4, axis=0), own)
    assert alike == pytest.approx(0.0, abs=1e-6)
    assert gap_to_others(means[:1], sds[:1], np.zeros(50, np.int64)).tolist() == [0.0] * 50
    found = gap_to_others(means, sds, own)
    assert (found > 0.0).all()
    pairs = [
        [gap_to_others(means[[a, b]], sds[[a, b]], np.zeros(50, np.int64)) for b in range(4) if b != a]
        for a in range(4)
    ]
    by_pair = np.mean(pairs, axis=1)[own, np.arange(50)]
    assert found == pytest.approx(by_pair, rel=1e-3)
    louder = gap_to_others(100.0 * means, 100.0 * sds, own)
    assert louder == pytest.approx(found, rel=1e-3), "a unit is no part of a gap"


def test_a_gap_is_told_of_the_action_that_has_it(log: Trajectories) -> None:
    """Steeper by a tenth, the model is off on the two outer actions only, whose features are -1.22 and 1.22."""
    found = known(Line(slope=1.1), log).gap
    assert found[[0, 2]] == pytest.approx(0.5 * (0.1 * 1.2247 / SD) ** 2, abs=0.05)
    assert found[1] == pytest.approx(0.0, abs=0.02)


def test_a_bias_is_found_at_every_horizon_and_none_where_there_is_none(log: Trajectories) -> None:
    before, horizons = horizons_of(log)
    assert (before, horizons) == (7, (1, 2, 5, 10, 20))
    off = ahead(Line(off=0.1), log, 0, before, horizons)
    assert [each.steps for each in off] == list(horizons)
    assert all(each.low <= 0.1 <= each.high for each in off)
    assert off[-1].low > 0.0
    # Five intervals of 95%; a seed at which all hold.
    assert all(each.low <= 0.0 <= each.high for each in ahead(Line(), log, 0, before, horizons))


def test_disagreement_is_the_deviation_over_models(log: Trajectories) -> None:
    codes = np.arange(4)
    assert disagreement([Line(), Line()], log, codes, 7, 5) == pytest.approx(0.0)
    assert disagreement([Line(off=0.3), Line(off=-0.3)], log, codes, 7, 5) == pytest.approx(0.3, rel=1e-5)
    slopes = disagreement([Line(0.9), Line(1.1)], log, codes, 7, 1)
    assert slopes == pytest.approx(0.1 * np.abs(log.catalogue.features[:, 0]), rel=1e-4)


def test_a_share_is_of_what_the_best_action_brings_when_it_is_held(log: Trajectories) -> None:
    """Held, actions a to c bring -1.22, 0 and 1.22 and what all are off by; nothing is drawn."""
    users, actions = log.take(np.arange(10)), np.arange(3)
    _, next_best, best = log.catalogue.features[:3, 0].tolist()
    half = np.full(10, 0.5 * (best + 1.0))
    assert share_of_best(Line(off=1.0), users, actions, 3, 4, half) == pytest.approx(0.5)
    assert share_of_best(Line(off=1.0), users, np.array([0, 1]), 3, 4, half) == pytest.approx(
        half[0] / (next_best + 1.0)
    )
    assert np.isnan(share_of_best(Line(off=-9.0), users, actions, 3, 4, half))
