"""The log alone: an implicit Q-learning critic, and a policy cloned by its advantages (`simulators.offline`).

Where several versions drew, those that did better are drawn from more often (`session.weights`).
"""

from __future__ import annotations

from simulators.learned.ensembles import Ensemble
from simulators.learned.trajectories import Trajectories
from simulators.offline.cloning import CloneRecipe, beta_for, cloned
from simulators.offline.critic import CriticRecipe, advantages_of
from simulators.offline.weights import effective_of, kind_of, share_of_users, weights_of
from simulators.trainers.contract import Plan, Taught, candidates_of
from simulators.trainers.grouped import grouped_view


def train(log: Trajectories, simulators: Ensemble, plan: Plan, seed: int) -> Taught:
    """Return the clone; see `simulators.trainers.contract.SessionTrainer`."""
    offered = candidates_of(log, plan)
    view = grouped_view(log, seed, offered, plan)
    advantages = advantages_of(log, offered, CriticRecipe(steps=plan.count(2_500)), seed)
    kind = kind_of(log, plan.weights)
    weights, recipe = weights_of(log, kind), CloneRecipe(steps=plan.count(1_500), beta=beta_for(kind))
    policy = cloned(log, view, offered, advantages, weights, recipe, seed)
    numbers = {
        "share_of_users": share_of_users(log),
        "effective_trajectories": effective_of(weights),
    }
    return Taught(policy, view, offered, numbers)
