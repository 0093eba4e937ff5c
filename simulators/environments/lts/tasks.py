"""The tasks on long-term satisfaction: which groups a learner may train on, and the one it is deployed to unseen.

Sim2Rec (Chen et al. 2023) trains on group means mu_c in 6..21 and tests at 14; a task leaves out every group within
alpha of 14, so the larger alpha, the wider the gap. LTS1, 2 and 3 have alpha 2, 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.errors import FieldError

TARGET = 14.0
GROUPS = range(6, 22)
ALPHAS = {"1": 2, "2": 3, "3": 4}


@dataclass(frozen=True, slots=True)
class LtsTask:
    """A task.

    Attributes:
        name: ``1``, ``2`` or ``3``, with ``-b`` after it for a kale shift.
        chocs: [g] group means to train on.
        kale_shift: half width of the users' kale means in training; deployment has none.
    """

    name: str
    chocs: Floats
    kale_shift: float = 0.0

    @property
    def wrong(self) -> float:
        """The one group that training directly in one simulator takes: the nearest below the target."""
        return float(self.chocs[self.chocs < TARGET].max())


def task(name: str, *, kale_shift: float = 0.0) -> LtsTask:
    """Return the task called `name`.

    Raises:
        FieldError: `name` is not 1, 2 or 3, or the shift is not in [0, 4).
    """
    if name not in ALPHAS:
        raise FieldError.choice("task", list(ALPHAS), name)
    if not 0.0 <= kale_shift < 4.0:
        raise FieldError("kale_shift", wanted="a number in [0, 4)", got=kale_shift)
    chocs = np.array([choc for choc in GROUPS if abs(choc - TARGET) > ALPHAS[name]], np.float64)
    return LtsTask(f"{name}-{kale_shift:g}" if kale_shift else name, chocs, kale_shift)
