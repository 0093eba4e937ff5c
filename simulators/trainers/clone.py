"""The log alone: an implicit Q-learning critic, and a policy that follows it from a plain clone (`simulators.offline`).

Where several versions drew, those that did better are drawn from more often (`session.weights`), and the critic is
followed as far as users apart prove that it pays, and not at all where they do not (`session.gated`).
"""

from __future__ import annotations

from simulators.learned.ensembles import Ensemble
from simulators.learned.trajectories import Trajectories
from simulators.offline.cloning import CloneRecipe, followed
from simulators.offline.critic import CriticRecipe, critic_of
from simulators.offline.gated import apart_of, in_steps
from simulators.offline.weights import effective_of, kind_of, share_of_users, weights_of
from simulators.trainers.contract import Plan, Taught, candidates_of
from simulators.trainers.grouped import grouped_view


def train(log: Trajectories, simulators: Ensemble, plan: Plan, seed: int) -> Taught:
    """Return the clone; see `simulators.trainers.contract.SessionTrainer`."""
    offered = candidates_of(log, plan)
    view = grouped_view(log, seed, offered, plan)
    kind = kind_of(log, plan.weights)
    weights = weights_of(log, kind)
    numbers = {
        "share_of_users": share_of_users(log),
        "effective_trajectories": effective_of(weights),
    }
    critic, recipe = CriticRecipe(steps=plan.count(2_500)), CloneRecipe(steps=plan.count(1_500))
    if plan.gated == "always" or (plan.gated == "mixed" and kind != "uniform"):
        apart = apart_of(len(log), simulators.apart, seed)
        policy, told = in_steps(log, view, offered, kind, apart, critic, recipe, seed)
        return Taught(policy, view, offered, numbers | told)
    policy = followed(log, view, offered, critic_of(log, offered, critic, seed), weights, recipe, seed)
    return Taught(policy, view, offered, numbers)
