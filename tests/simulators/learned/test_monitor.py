"""Users whose reports no simulator explains, told from honest ones by the surprise of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulators.environments.lts.env import draw_users
from simulators.environments.lts.tasks import TARGET
from simulators.learned.ensembles import fit_ensemble
from simulators.learned.logs import logged
from simulators.learned.monitor import surprises
from simulators.learned.trajectories import Trajectories


@pytest.mark.parametrize("begins", [0, 30])
def test_a_user_who_reports_a_third_too_much_is_told_from_honest_ones_after_60_reports(begins: int) -> None:
    """AUC with 150 users of each and three seeds is .90 to .92, begun midway .96; standard error here about .03."""
    rng = np.random.default_rng(0)
    known, fresh = (logged(draw_users(rng, np.array([TARGET]), 120), seed, horizon=60) for seed in (0, 50))
    ensemble = fit_ensemble(known, 0, members=2, steps=60)
    models = [*ensemble.members, ensemble.held_out]

    def surprise_of(log: Trajectories) -> np.ndarray:
        return np.min([surprises(model, log) for model in models], axis=0)

    liars = fresh.take(np.arange(60, 120))
    told = liars.rewards.copy()
    told[:, begins:] *= np.exp(0.3)
    honest, lying = surprise_of(fresh.take(np.arange(60))), surprise_of(replace(liars, rewards=told))
    assert (lying[:, None] > honest).mean() >= 0.83
