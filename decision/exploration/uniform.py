"""Every eligible action alike."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints


def uniform(offsets: Ints) -> Floats:
    """Return [m] probabilities 1 / K of each decision's K actions."""
    k = np.diff(offsets)
    return np.repeat(1.0 / k, k)
