"""A set of simulators learned from the log, and a student taught in it by looking ahead (`simulators.learned`).

Simulators whose one-step errors on users they have not seen are far above the best one's, or that contradict the trend
that is known, are left out.

References:
    Chen et al. 2023, "Sim2Rec", arXiv 2305.04832.
"""

from __future__ import annotations

import numpy as np

from simulators.learned.ensembles import Ensemble, error_of
from simulators.learned.interventions import PASS, trend_of
from simulators.learned.lookahead import Lookahead, teach
from simulators.learned.trajectories import Trajectories
from simulators.trainers.contract import Plan, Taught, candidates_of
from simulators.trainers.grouped import grouped_view

WORST = 1.5
"""A simulator whose errors are above this many times the best one's is left out."""
TEMPERATURE = 0.03
"""Of the softmax of values, in deviations of the rewards."""


def train(log: Trajectories, simulators: Ensemble, plan: Plan, seed: int) -> Taught:
    """Return the student; see `simulators.trainers.contract.SessionTrainer`."""
    offered = candidates_of(log, plan)
    passed = passing(simulators, log, plan)
    kept = simulators.keep(passed)
    longest = int(np.quantile(log.inside.sum(axis=1), 0.5))
    deviation = float(log.rewards[log.inside].std()) or 1.0
    how = Lookahead(
        tuple(offered.tolist()),
        iterations=plan.count(20),
        steps=max(1, round(longest * 2 / 7)),
        latest=round(longest * 9 / 14),
        held=min(plan.held, longest),
        every=max(1, longest // 14),
        penalty=plan.penalty * (deviation if plan.penalty_kind == "gap" else 1.0),
        penalty_kind=plan.penalty_kind,
        temperature=TEMPERATURE * deviation,
    )
    view = grouped_view(log, seed, offered, plan)
    policy, user_steps = teach(kept, log, view, how, seed)
    numbers = {
        "user_steps": float(user_steps),
        "members": float(len(simulators.members)),
        "members_kept": float(len(kept.members)),
    }
    return Taught(policy, view, offered, numbers)


def passing(simulators: Ensemble, log: Trajectories, plan: Plan) -> list[bool]:
    """Return which members are near the best on users apart, and behave as is known."""
    apart = log.take(simulators.apart)
    errors = [error_of(member, apart) for member in simulators.members]
    good = [error <= WORST * min(errors) for error in errors]
    if plan.trend == "none":
        return good
    first = log.catalogue.features[log.executed, 0]
    low, high = int(log.executed[first.argmin()]), int(log.executed[first.argmax()])
    found: list[bool] = []
    for ok, member in zip(good, simulators.members, strict=True):
        trend = trend_of(member, log, low, high, after=min(30, log.steps // 4))
        worn = plan.trend == "rises" or trend.worn >= PASS
        found.append(ok and trend.at_once >= PASS and worn)
    return found
