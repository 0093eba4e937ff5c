"""What a policy may see of long-term satisfaction: the observation, its own last action, the group's embedding.

Nothing privileged passes: a user's parameters and exposure are no input here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from decision.batch import Floats
from simulators.environments.lts.env import DOCUMENTS, Counts, LtsEnv, LtsUsers, Singles
from simulators.environments.lts.planner import documents
from simulators.environments.lts.tasks import TARGET
from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.sadae import Sadae

SCALE = 8.0
"""Contexts and rewards are divided by this."""


class Embedding(Protocol):
    """Turns the contexts of a group's users into what the policy sees of the group."""

    @property
    def width(self) -> int:
        """Numbers per user."""
        ...

    def __call__(self, contexts: Singles, group: Counts) -> Singles:
        """Return [n, width] for contexts [n] of users in groups [n] (0..g-1)."""
        ...


class GroupMean:
    """The sufficient statistic of a group's contexts, their mean: what an ideal embedding would tell."""

    width = 1

    def __call__(self, contexts: Singles, group: Counts) -> Singles:
        """Return [n, 1]."""
        mean = np.bincount(group, contexts) / np.bincount(group)
        return logarithm(mean[group])[:, None]


class SadaeEmbedding:
    """What a trained SADAE makes of a group: its code, read through its own decoder.

    The code v orders the groups but bends between those trained on; the distribution psi(v) that it stands for is on
    the scale of the rewards. A policy that sees psi(v) is interpolated along the scale that the simulators differ on.
    """

    def __init__(self, model: Sadae, *, decoded: bool = True) -> None:
        """Take a trained `model`; `decoded` False hands on the code itself, as the authors do."""
        self.model, self.decoded = model, decoded
        self.width = model.states if decoded else model.latent

    def __call__(self, contexts: Singles, group: Counts) -> Singles:
        """Return [n, z], or [n, 1] the logarithm of the reconstructed mean of the group's contexts."""
        code = self.model.embed(contexts[:, None], group)
        if not self.decoded:
            return code
        with torch.no_grad():
            mean, _ = self.model.decoded(torch.from_numpy(code))
        return logarithm(mean.numpy())


def logarithm(values: np.ndarray) -> Singles:
    """Return the logarithm of positive `values`, about 0 for those of this world.

    Engagement is a product, of what a document offers and how satisfied its reader is. As a sum of logarithms it is
    interpolated between simulators; as a product it has to be learned for each.
    """
    return (np.log(np.maximum(values, 0.05)) - 1.5).astype(np.float32)


@dataclass(frozen=True, slots=True)
class View:
    """Which parts of the observation are seen.

    Attributes:
        context: the user's own draw of the group's context.
        embedding: of the group; None leaves it out.
        crossed: the embedding times the last action, beside it.
    """

    context: bool = True
    embedding: Embedding | None = None
    crossed: bool = True

    @property
    def width(self) -> int:
        """Numbers per user and step."""
        return 3 + self.context + (0 if self.embedding is None else (1 + self.crossed) * self.embedding.width)

    def fixed(self, observed: Singles, group: Counts) -> Singles:
        """Return [n, w] what stays the same through an episode, from its first observation [n, 3]."""
        parts = [np.empty((len(observed), 0), np.float32)]
        if self.context:
            parts.append((observed[:, :1] - np.float32(TARGET)) / np.float32(SCALE))
        if self.embedding is not None:
            parts.append(self.embedding(observed[:, 0], group))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def inputs(self, observed: Singles, actions: Counts, fixed: Singles) -> Singles:
        """Return [n, width] for an observation [n, 3] that followed `actions` [n]."""
        last = (actions / DOCUMENTS).astype(np.float32)
        moving = np.stack([observed[:, 1], logarithm(observed[:, 2]) * observed[:, 1], last], axis=1)
        # What a reward says of its reader depends on group and document together; as a product it needs no learning.
        if not self.crossed:
            return np.concatenate([moving, fixed], axis=1)
        crossed = last[:, None] * fixed[:, int(self.context) :]
        return np.concatenate([moving, fixed, crossed], axis=1)


def returns_of_policy(policy: ContextPolicy, view: View, users: LtsUsers, seed: int, *, noise: float) -> Floats:
    """Return [n] what a policy of one logit (strong document when above 0) earns each user in one episode."""
    env = LtsEnv(users, noise=noise)
    observed, _ = env.reset(seed=seed)
    fixed, actions = view.fixed(observed, users.group), np.zeros(len(users), np.int64)
    step, total = policy.stepper(len(users)), np.zeros(len(users))
    with torch.no_grad():
        for _ in range(env.horizon):
            logit = step(torch.from_numpy(view.inputs(observed, actions, fixed)))
            actions = documents(logit[:, 0].numpy() > 0.0)
            observed, reward, *_ = env.step(actions)
            total += reward
    return total
