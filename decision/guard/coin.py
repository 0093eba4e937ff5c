"""One coin for a whole slate or episode: all of its decisions come from the candidate, or none.

A policy that needs several decisions to pay off is worth what its whole trajectories are worth, so the mixture is over
trajectories (EpsMix: Yang, Wu, Wang, Jin and Shen 2023, StepMix, section 5). Given weight rho and the products B and C
of the two policies' probabilities along a trajectory, it was drawn with probability ``(1 - rho) * B + rho * C``.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.draw import draw, seed_of


def candidate_has(loop: str, unit_id: str, weight: float) -> bool:
    """Return whether the candidate takes a unit, the same in every process and for ever.

    Args:
        loop: the loop's name.
        unit_id: event id of a slate, or episode id.
        weight: rho, the candidate's share, in [0, 1).
    """
    # No loop's name holds a slash, so this is no decision's seed.
    return draw([1.0 - weight, weight], seed_of(f"{loop}/coin", unit_id)) == 1


def trajectory_weights(log_baseline: Floats, log_candidate: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """Return w_c and w_b [n], each policy's probability of a trajectory over that of the mixture of both.

    Args:
        log_baseline: [n] sum of the logarithms of the baseline's probabilities; -inf where one is 0.
        log_candidate: [n] the same of the candidate.
        rho: [n] weight of the candidate, in [0, 1).
    """
    top = np.maximum(log_baseline, log_candidate)
    baseline, candidate = np.exp(log_baseline - top), np.exp(log_candidate - top)
    drawn = (1.0 - rho) * baseline + rho * candidate
    return candidate / drawn, baseline / drawn
