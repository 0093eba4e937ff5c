"""What a group of users looks like at one moment, and what a policy sees of a user in it, without any simulator."""

from __future__ import annotations

import numpy as np

from simulators.environments.lts.env import DOCUMENTS, Counts, Singles
from simulators.sim2rec.sadae import Sadae

BLANK = np.float32(1.5)


class GroupView:
    """Inputs of a policy: own last response and action, and the embedding of the group's set of both, at every step.

    Attributes:
        sadae: over elements (logarithm of the reward, clickbait), the latter the action; None leaves the group out.
    """

    def __init__(self, sadae: Sadae | None) -> None:
        self.sadae = sadae

    @property
    def width(self) -> int:
        """Numbers per user and step."""
        return 3 + (0 if self.sadae is None else self.sadae.latent)

    def inputs(self, response: Singles, documents: Counts, group: Counts, *, first: bool) -> Singles:
        """Return [n, width] after responses [n] (logarithms) to documents [n] of users in groups [n]; `first`: none."""
        n = len(response)
        if first:
            return np.zeros((n, self.width), np.float32)
        clickbait = (documents / DOCUMENTS).astype(np.float32)
        own = np.stack([np.ones(n, np.float32), response - BLANK, clickbait], axis=1)
        if self.sadae is None:
            return own
        elements = np.stack([response - BLANK, clickbait], axis=1)
        return np.concatenate([own, self.sadae.embed(elements, group)], axis=1)


def new_sadae(seed: int) -> Sadae:
    """Return an untrained autoencoder of sets of (response, action)."""
    return Sadae(np.array([0.3, 0.4], np.float32), np.array([0.5, 0.2], np.float32), actions=1, latent=3, seed=seed)
