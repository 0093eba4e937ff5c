"""What a whole group of users is like, as a few numbers: a SADAE's code of its set, read through its own decoder.

The set holds what was shown and what was answered, users and steps alike. Here the "state" of an element is the action
shown and its "action" the response, so that the decoder says how the group responds to any action; the embedding is
what it says of a few actions far from one another. So a group that no simulator was made for lies between others on
the scale of the responses, where the raw code bends (`simulators.sim2rec.views`).

References:
    Chen et al. 2023, "Sim2Rec", arXiv 2305.04832.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.sim2rec.sadae import Sadae, fit

PROBES = 3
"""Actions whose expected response is read."""
_SETS, _ELEMENTS = 12, 96
"""Sets, and elements in each, of a gradient step."""
_MOST = 20_000
"""Elements of a group that are embedded, at most."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A trained autoencoder.

    Attributes:
        sadae: over elements (features of the action, response), the latter its action.
        probes: [q, d] features of the actions whose response is read.
    """

    sadae: Sadae
    probes: Singles

    def of(self, elements: Singles) -> Singles:
        """Return [q] what a group is like whose elements are [m, d + 1]."""
        if len(elements) > _MOST:
            elements = elements[np.linspace(0, len(elements) - 1, _MOST).astype(np.int64)]
        with torch.no_grad():
            code, _ = self.sadae.posterior(torch.from_numpy(elements)[None])
            decoded = self.sadae.action_given(code.expand(len(self.probes), -1), torch.from_numpy(self.probes))
        return decoded[:, 0].numpy()


def elements_of(log: Trajectories) -> list[Singles]:
    """Return each group's elements [m, d + 1] in the order of the groups' codes, user after user."""
    both, groups = np.concatenate([log.shown, log.responses[..., None]], axis=2), log.group_codes
    return [both[rows][log.inside[rows]] for rows in (groups == code for code in range(int(groups.max()) + 1))]


def fit_embedding(pools: Sequence[Singles], probes: Singles, seed: int, *, steps: int = 400) -> Embedding:
    """Return an autoencoder trained on sets drawn from `pools` ([m, d + 1] each), the groups trained on."""
    every = np.concatenate(list(pools))
    spread = np.maximum(every.std(axis=0), 1e-3)
    model = Sadae(every.mean(axis=0), spread, actions=1, latent=2, seed=seed)

    def draw(rng: np.random.Generator) -> Singles:
        chosen = (pools[at] for at in rng.integers(0, len(pools), _SETS))
        return np.stack([pool[rng.integers(0, len(pool), _ELEMENTS)] for pool in chosen])

    fit(model, draw, seed, steps=max(10, steps), penalty=1e-2)
    return Embedding(model, probes)


def spread_out(features: Singles, count: int) -> Counts:
    """Return the positions of at most `count` of [A, d] features: the farthest from the mean, then from the chosen."""
    gap = np.linalg.norm(features - features.mean(axis=0), axis=1)
    chosen = [int(gap.argmax())]
    nearest = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < min(count, len(features)) and nearest.max() > 0.0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return np.array(chosen)
