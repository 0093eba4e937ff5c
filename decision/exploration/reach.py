"""How far whoever writes some features of a context pushes each action: the plainest attack on a policy, tried out.

Bai et al. (2025, "RAT: Adversarial Attacks on Deep Reinforcement Agents for Targeted Behaviors", AAAI) train an
adversary that perturbs what a policy observes until it does what they want. Against a policy of one step no training is
needed: each way of writing the features is tried on each context, and the best for the attacker is kept. What is found
is what can be done at least; a way that was not tried may do more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from decision.batch import Batch, Features, Floats
from decision.exploration.cap import without_supplied

Move = Mapping[str, Features]
"""What is written: {name: features in place of all that stands under the name}."""


class Reach(NamedTuple):
    """What can be done.

    Attributes:
        own: [m] probabilities as the contexts are.
        least: [m] smallest that a move leads to, at most `own`.
        most: [m] largest, at least `own`.
    """

    own: Floats
    least: Floats
    most: Floats


def moved(batch: Batch, move: Move) -> Batch:
    """Return the decisions with what `move` writes in place of what stands under its names."""
    written: Features = {name: value for features in move.values() for name, value in features.items()}
    rest = without_supplied(batch.contexts, tuple(move))
    contexts = [{**context, **written} for context in rest]
    return Batch(contexts, batch.actions, batch.action_ids, batch.offsets)


def moves_of(choices: Mapping[str, Sequence[Features]], *, most: int, rng: np.random.Generator) -> list[Move]:
    """Return every combination of `choices` ({name: what may be written there}); of more than `most`, a sample.

    Args:
        choices: one or more ways to write each.
        most: combinations that are returned at most, 1 or more.
        rng: draws the sample.
    """
    names, ways = list(choices), list(choices.values())
    if prod(len(way) for way in ways) <= most:
        return [dict(zip(names, one, strict=True)) for one in product(*ways)]
    return [{name: way[int(rng.integers(len(way)))] for name, way in choices.items()} for _ in range(most)]


def reach_of(pmf: Callable[[Batch], Floats], batch: Batch, moves: Sequence[Move]) -> Reach:
    """Return how far `moves` push each action in each decision; every decision's attacker picks his own move.

    Args:
        pmf: of the policy.
        batch: the decisions.
        moves: what may be written.
    """
    own = pmf(batch)
    least, most = own.copy(), own.copy()
    for move in moves:
        found = pmf(moved(batch, move))
        np.minimum(least, found, out=least)
        np.maximum(most, found, out=most)
    return Reach(own, least, most)
