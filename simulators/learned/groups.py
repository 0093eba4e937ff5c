"""What a policy sees of a user and of the group that the user is in, without any simulator."""

from __future__ import annotations

import numpy as np

from simulators.learned.trajectories import Counts, Singles
from simulators.sim2rec.sadae import Sadae


class GroupView:
    """Inputs of a policy: own last response and action, and the embedding of the user's group.

    The embedding is that of the group's set of both at this step (`sadae`), or stays the same and is looked up
    (`table`), and then comes by itself and times each feature of the action: what a response says of its user depends
    on both.

    Attributes:
        sadae: over elements (response, features of the action), the latter the action; None leaves it out.
        features: d, numbers per action.
        table: [G, z] embedding of each group; None leaves it out.
    """

    def __init__(self, sadae: Sadae | None, features: int = 1, table: Singles | None = None) -> None:
        self.sadae, self.features, self.table = sadae, features, table

    @property
    def own(self) -> int:
        """Numbers per user and step that tell of the user alone; they come first."""
        return 2 + self.features

    @property
    def width(self) -> int:
        """Numbers per user and step."""
        of_table = 0 if self.table is None else self.table.shape[1] * (1 + self.features)
        return self.own + of_table + (0 if self.sadae is None else self.sadae.latent)

    @property
    def remembered(self) -> int:
        """Of them, how many enter a memory: a group that is looked up is at hand when a decision is made."""
        return self.own if self.table is not None else self.width

    def inputs(self, response: Singles, shown: Singles, group: Counts, *, first: bool) -> Singles:
        """Return [n, width] after responses [n] to actions of features [n, d] in groups [n]; `first`: none."""
        n = len(response)
        if first:
            own = np.zeros((n, self.own), np.float32)
        else:
            own = np.concatenate([np.ones((n, 1), np.float32), response[:, None], shown], axis=1)
        if self.table is not None:
            of_group = self.table[group]
            crossed = of_group[:, :, None] * own[:, None, 2:]
            own = np.concatenate([own, of_group, crossed.reshape(n, -1)], axis=1)
        if self.sadae is None:
            return own
        if first:
            return np.zeros((n, self.width), np.float32)
        return np.concatenate([own, self.sadae.embed(own[:, 1:], group)], axis=1)


def new_sadae(seed: int, features: int = 1) -> Sadae:
    """Return an untrained autoencoder of sets of (response, features of the action)."""
    centre, spread = np.zeros(1 + features, np.float32), np.ones(1 + features, np.float32)
    spread[0] = 0.5
    return Sadae(centre, spread, actions=features, latent=3, seed=seed)
