"""Long-term satisfaction as a form: known but for how much clickbait and the rest engage, and for each user's traits.

The one feature of an action is its clickbait, in [0, 1]. Both numbers are in units of the reward, whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from decision.batch import Floats
from simulators.environments.lts.env import TRAIT_HIGH, TRAIT_LOW

_SAFE = 1e-3
"""How far a memory stays from 0 and 1, a sensitivity from 0, while they are fitted."""


class LtsForm:
    """See `simulators.learned.forms.Form`.

    Attributes:
        parameters: least and greatest engagement of clickbait ("choc") and of the rest ("kale"), in usual rewards.
        scales: they are in units of the reward.
    """

    parameters: Mapping[str, tuple[float, float]] = {"choc": (0.0, 12.0), "kale": (0.0, 12.0)}
    scales = True

    def traits(self, rng: np.random.Generator, users: int) -> Floats:
        """Return [n, 2] memory and sensitivity of fresh users."""
        return np.log(rng.uniform(TRAIT_LOW, TRAIT_HIGH, (users, 2)))

    def start(self, group: Floats, traits: Floats) -> Floats:
        """Return [n, 1] the exposure that users begin with."""
        return 0.5 / (1.0 - np.clip(traits[:, :1], _SAFE, 1.0 - _SAFE))

    def mean(self, group: Floats, traits: Floats, state: Floats, shown: Floats) -> Floats:
        """Return [n] expected rewards of documents of clickbait [n, 1]."""
        engaged = group[:, 1] + shown[:, 0] * (group[:, 0] - group[:, 1])
        return engaged / (1.0 + np.exp(-np.maximum(traits[:, 1], _SAFE) * state[:, 0]))

    def after(self, group: Floats, traits: Floats, state: Floats, shown: Floats, reward: Floats) -> Floats:
        """Return [n, 1] the exposure after documents of clickbait [n, 1]."""
        return np.clip(traits[:, :1], _SAFE, 1.0 - _SAFE) * state + 1.0 - 2.0 * shown[:, :1]


FORM = LtsForm()
