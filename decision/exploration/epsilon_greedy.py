"""Epsilon-greedy: a share epsilon uniformly, the rest to the best (Langford and Zhang 2007)."""

from __future__ import annotations

from decision.batch import Floats, Ints
from decision.errors import FieldError
from decision.exploration.greedy import greedy, greedy_few
from decision.exploration.mix import with_floor, with_floor_few
from decision.exploration.rule import Exploration, Rule


def epsilon_greedy(scores: Floats, offsets: Ints, *, epsilon: float) -> Floats:
    """Return [m] probabilities ``epsilon / K``, plus ``1 - epsilon`` shared by the best.

    Args:
        scores: [m] expected rewards, flat.
        offsets: [n + 1].
        epsilon: in [0, 1]; 0 is greedy, 1 uniform.

    Raises:
        FieldError: `epsilon` is outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise FieldError("epsilon", wanted="a number in [0, 1]", got=epsilon)
    return with_floor(greedy(scores, offsets), offsets, epsilon)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return epsilon_greedy(scores, offsets, epsilon=given.epsilon)


def _few(scores: list[float], given: Exploration) -> list[float]:
    return with_floor_few(greedy_few(scores), given.epsilon)


RULE = Rule(_pmf, few=_few)
