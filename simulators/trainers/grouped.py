"""What a trainer's policy sees of groups: nothing, or the embedding of each group of the log."""

from __future__ import annotations

import numpy as np

from simulators.learned.embedding import PROBES, elements_of, fit_embedding, spread_out
from simulators.learned.groups import GroupView
from simulators.learned.trajectories import Counts, Trajectories
from simulators.trainers.contract import Plan

FEWEST = 20
"""Users of a group from whom on it is trained on; a smaller one is embedded alone."""
STEPS = 400
"""Gradient steps of the autoencoder."""


def grouped_view(log: Trajectories, seed: int, offered: Counts, plan: Plan) -> GroupView:
    """Return a view with the embeddings of the log's groups, by an autoencoder trained on those of enough users."""
    d = log.shown.shape[2]
    if not log.grouped_by:
        return GroupView(None, d)
    pools = elements_of(log)
    features = log.catalogue.features[offered]
    probes = features[spread_out(features, PROBES)]
    trained = [pools[code] for code in groups_of(log)]
    embedding = fit_embedding(trained, probes, seed, steps=plan.count(STEPS))
    return GroupView(None, d, np.stack([embedding.of(pool) for pool in pools]))


def groups_of(log: Trajectories) -> list[int]:
    """Return the codes of the groups of enough users; the largest group's where none has."""
    count = np.bincount(log.group_codes, minlength=len(log.group_names))
    found = np.flatnonzero(count >= FEWEST).tolist()
    return found or [int(count.argmax())]
