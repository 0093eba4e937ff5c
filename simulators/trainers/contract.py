"""What a trainer of policies with memory takes and returns.

    train(log, simulators, plan, seed) -> Taught

The same log, plan, code and seed give the same numbers, bit for bit, on one thread. A trainer is a module that holds
`train`; `TRAINERS` names it, and it is imported, torch with it, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal, Protocol

import numpy as np

from decision.errors import FieldError
from decision.ope.diagnostics.untried import SHOWN
from decision.oracles.session import SessionOracle
from simulators.learned.ensembles import Ensemble
from simulators.learned.groups import GroupView
from simulators.learned.lookahead import PenaltyKind
from simulators.learned.served import served
from simulators.learned.trajectories import Counts, Trajectories
from simulators.offline.gated import Gated
from simulators.offline.weights import Kind
from simulators.sim2rec.network import ContextPolicy

TRAINERS = {
    "clone": "simulators.trainers.clone",
    "parametric": "simulators.trainers.parametric",
    "sim2rec": "simulators.trainers.sim2rec",
}
"""Methods by name: the module of each."""
MOST_ACTIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much a trainer learns, and of what.

    Attributes:
        candidates: actions that the policy may show: those that the log did (``executed``), or all it offered.
        members: simulators in the set.
        held: steps that an action is held to value it.
        penalty: taken off the reward for the simulators' disagreement, or for a deviation of the rewards times the gap.
        penalty_kind: ``disagreement`` of the simulators, or the dynamics ``gap`` of each to the others, in nats.
        trend: what is known of the first feature of the actions: nothing, that more of it pays more at once
            (``rises``), or that besides much of it makes the same pay less later (``wears_out``). Simulators that do
            not behave so are left out.
        weights: whose trajectories are imitated more (`simulators.offline.weights`): of the versions that did better
            (``pw``), of users who brought more than expected (``aw``), or all alike (``uniform``).
        gated: on which logs a clone follows its critic in steps that users apart have to prove.
        effort: how much is learned, in shares of the usual: gradient steps and rounds.
        form: of the world, where it is known (`simulators.learned.forms`); "" where it is not.
    """

    candidates: Literal["executed", "all"] = "executed"
    members: int = 4
    held: int = 25
    penalty: float = 1.0
    penalty_kind: PenaltyKind = "disagreement"
    trend: Literal["none", "rises", "wears_out"] = "none"
    weights: Kind = "pw"
    gated: Gated = "mixed"
    effort: float = 1.0
    form: str = ""

    def count(self, usual: int) -> int:
        """Return `usual` times the effort, 1 or more."""
        return max(1, round(usual * self.effort))


@dataclass(frozen=True, slots=True)
class Taught:
    """A policy with memory, as its trainer left it.

    Attributes:
        policy: the net; it sees what `view` shows, and has a logit per action offered.
        view: of the user; where it holds a table of embeddings, of the groups in the log.
        offered: codes of the actions.
        numbers: what the trainer has to tell, by name.
    """

    policy: ContextPolicy
    view: GroupView
    offered: Counts
    numbers: Mapping[str, float] = field(default_factory=dict)

    def oracle(self, log: Trajectories) -> SessionOracle:
        """Return the servable form of what was taught on `log`."""
        groups = None
        if self.view.table is not None:
            groups = {name: row for name, row in zip(log.group_names, self.view.table.tolist(), strict=True) if name}
        return served(
            self.policy, log.catalogue, log.scale, self.offered.tolist(), grouped_by=log.grouped_by, groups=groups
        )


class SessionTrainer(Protocol):
    """One trainer."""

    def __call__(self, log: Trajectories, simulators: Ensemble, plan: Plan, seed: int) -> Taught:
        """Return a policy.

        Args:
            log: what was shown to whom, and what came of it.
            simulators: learned from `log`; a trainer need not use them, and never sees the one held out.
            plan: how much is learned.
            seed: of every random choice.

        Raises:
            FieldError: the log is too small, or offers too many actions.
        """
        ...


def trainer_of(method: str) -> SessionTrainer:
    """Return the trainer of that name.

    Raises:
        FieldError: there is none.
    """
    if method not in TRAINERS:
        raise FieldError.choice("session.method", list(TRAINERS), method)
    return import_module(TRAINERS[method]).train


def candidates_of(log: Trajectories, plan: Plan) -> Counts:
    """Return the codes of the actions that a policy may show, ascending.

    Raises:
        FieldError: they are more than 200, or one alone.
    """
    found = executed_in(log) if plan.candidates == "executed" else np.arange(len(log.catalogue))
    if not 2 <= len(found) <= MOST_ACTIONS:
        raise FieldError("candidates", wanted=f"2 to {MOST_ACTIONS} actions", got=len(found))
    return found


def executed_in(log: Trajectories) -> Counts:
    """Return the codes of the actions that the log showed in 1 of 400 decisions or more, ascending."""
    count = np.bincount(log.actions[log.inside], minlength=len(log.catalogue))
    return np.flatnonzero(count >= SHOWN * count.sum())
