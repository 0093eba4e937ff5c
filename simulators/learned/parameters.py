"""Offline domain randomisation: the distribution of a simulator's parameters, fitted to a log by likelihood.

Fitting beats a range chosen by hand (offline domain randomisation, arXiv 2506.10133; DROPO). It needs the form of the
dynamics; what it is worth beside models that have to learn the form is part of the study.
"""

from __future__ import annotations

import numpy as np

from simulators.environments.lts.env import KALE, draw_users
from simulators.learned.trajectories import Trajectories

_GRID = np.arange(6.0, 22.01, 0.5)


def fitted_choc(log: Trajectories, seed: int, *, users: int = 24, particles: int = 300) -> tuple[float, float]:
    """Return the likeliest group mean mu_c and its deviation over users of the log.

    Each user's memory and sensitivity are those of the particle that explains the log best at a given mu_c; mu_c is
    refined around the best of a grid by a parabola through the misfit.

    Args:
        log: logged trajectories.
        seed: of the particles.
        users: of the log that are used, at most.
        particles: pairs of memory and sensitivity tried for each.
    """
    drawn = draw_users(np.random.default_rng(seed), np.array([14.0]), particles)
    log = log.take(np.arange(min(users, len(log))))
    clickbait = log.catalogue.raw[log.actions][..., 0]
    npe = np.tile(0.5 / (1.0 - drawn.memory), (len(log), 1)).astype(np.float32)
    satisfaction = np.empty((clickbait.shape[1], len(log), particles), np.float32)
    for time in range(len(satisfaction)):
        satisfaction[time] = 1.0 / (1.0 + np.exp(-drawn.sensitivity * npe))
        npe = drawn.memory * npe + np.float32(1.0) - 2.0 * clickbait[:, time : time + 1]
    misfit = np.empty((len(_GRID), len(log)))
    for row, choc in enumerate(_GRID):
        engaged = (KALE + clickbait * (choc - KALE)).T[:, :, None]
        errors = engaged * satisfaction - log.rewards.T[:, :, None]
        misfit[row] = np.square(errors).mean(axis=0).min(axis=1)
    best = _GRID[misfit.argmin(axis=0)]
    total = misfit.sum(axis=1)
    at = int(np.clip(total.argmin(), 1, len(_GRID) - 2))
    left, middle, right = total[at - 1 : at + 2]
    bend = left - 2.0 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0.0 else 0.0
    centre = float(_GRID[at] + np.clip(shift, -1.0, 1.0) * (_GRID[1] - _GRID[0]))
    return centre, float(best.std() / np.sqrt(len(best)))
