"""What an exploration rule is: a function from what is predicted to probabilities, and the numbers it may read.

Each rule's file ends with its `Rule`; `decision.options.RULES` names the files. Nothing else knows the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.options import RULES, SHIPPED, NotNegative, Range, RuleKind, Share, Steepness


class Exploration(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exploration rule and its numbers.

    Attributes:
        kind: the rule; ``thompson`` and ``regcb`` need an oracle with members (``logistic``, ``linear``, or a bag).
        gamma: of ``squarecb``, per `unit`; of ``fastcb``, which scales rewards to [0, 1], without unit; where `sigma`
            is not known, also the largest that ``falcon`` may reach.
        epsilon: epsilon-greedy's share of uniform draws.
        inverse_temperature: lambda of ``softmax`` and ``tilt``, per `unit`.
        steepness: eta of ``tilt``: how fast the application's ranking falls; 0 for none.
        falcon_scale: c of ``falcon``.
        rows: effective number of rows that the oracle was trained on, for ``falcon``; the training fills it in.
        sigma: standard deviation of rewards about what the oracle predicts, in reward units; the training fills it in.
            0 where it is not known, as in versions of before.
        floor: share of uniform draws under every rule.

    Raises:
        FieldError: a number is outside its range.
    """

    kind: RuleKind = SHIPPED.exploration
    gamma: NotNegative = SHIPPED.gamma
    epsilon: Share = SHIPPED.epsilon
    inverse_temperature: NotNegative = SHIPPED.inverse_temperature
    steepness: Steepness = 0.0
    falcon_scale: NotNegative = SHIPPED.falcon_scale
    rows: NotNegative = 0.0
    sigma: NotNegative = 0.0
    floor: Share = SHIPPED.floor

    @property
    def unit(self) -> float:
        """The reward that counts as one: sigma; 1 where that is not known."""
        return self.sigma or 1.0


class Rule(NamedTuple):
    """One exploration rule.

    Attributes:
        pmf: (predicted, offsets, numbers) -> [m] probabilities; see `asks_members` for what is predicted.
        asks_members: predicted is [S, m], expected rewards under each of the oracle's members, and not [m], the
            oracle's own.
        few: (scores, numbers) -> probabilities of one decision between a few actions, bit for bit those of `pmf`:
            plain arithmetic, where arrays of ten numbers cost more than what is computed with them. None for a rule
            without such a form.
    """

    pmf: Callable[[Floats, Ints, Exploration], Floats]
    asks_members: bool = False
    few: Callable[[list[float], Exploration], list[float]] | None = None


@cache
def rule_of(kind: str) -> Rule:
    """Return the rule of that name.

    Raises:
        FieldError: there is none.
    """
    if kind not in RULES:
        raise FieldError.choice("exploration", list(RULES), kind)
    return import_module(RULES[kind]).RULE
