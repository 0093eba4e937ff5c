"""What a group of users looks like at one moment, and what a policy sees of a user in it, without any simulator."""

from __future__ import annotations

import numpy as np

from simulators.learned.trajectories import Counts, Singles
from simulators.sim2rec.sadae import Sadae


class GroupView:
    """Inputs of a policy: own last response and action, and the embedding of the group's set of both, at every step.

    Attributes:
        sadae: over elements (response, features of the action), the latter the action; None leaves the group out.
        features: d, numbers per action.
    """

    def __init__(self, sadae: Sadae | None, features: int = 1) -> None:
        self.sadae, self.features = sadae, features

    @property
    def width(self) -> int:
        """Numbers per user and step."""
        return 2 + self.features + (0 if self.sadae is None else self.sadae.latent)

    def inputs(self, response: Singles, shown: Singles, group: Counts, *, first: bool) -> Singles:
        """Return [n, width] after responses [n] to actions of features [n, d] in groups [n]; `first`: none."""
        n = len(response)
        if first:
            return np.zeros((n, self.width), np.float32)
        own = np.concatenate([np.ones((n, 1), np.float32), response[:, None], shown], axis=1)
        if self.sadae is None:
            return own
        return np.concatenate([own, self.sadae.embed(own[:, 1:], group)], axis=1)


def new_sadae(seed: int, features: int = 1) -> Sadae:
    """Return an untrained autoencoder of sets of (response, features of the action)."""
    centre, spread = np.zeros(1 + features, np.float32), np.ones(1 + features, np.float32)
    spread[0] = 0.5
    return Sadae(centre, spread, actions=features, latent=3, seed=seed)
