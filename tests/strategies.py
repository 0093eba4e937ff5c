"""Shared hypothesis strategies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from decision.batch import Batch, Floats, Interactions, Ints


@st.composite
def ragged_scores(draw: st.DrawFn, *, low: float = -5.0, high: float = 5.0) -> tuple[Floats, Ints]:
    """Return scores [m] and offsets [n + 1] of 1 to 5 decisions with 1 to 12 actions."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    count = sum(sizes)
    values = draw(st.lists(st.floats(low, high), min_size=count, max_size=count))
    return np.array(values), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def interactions_of(rng: np.random.Generator, n: int = 200, *, binary: bool = True) -> Interactions:
    """Return a log of a learnable world: an action pays by its cost, and by one of the context features."""
    contexts, actions, ids, sizes, rewards, chosen, propensity = [], [], [], [], [], [], []
    row = 0
    for _ in range(n):
        k = int(rng.integers(2, 6))
        offered = sorted(rng.choice(6, size=k, replace=False).tolist())
        context = {f"c{j}": float(rng.random()) for j in range(3)} | {f"s={int(rng.integers(3))}": 1.0}
        contexts.append(context)
        actions += [{f"a={j}": 1.0, "cost": j / 6} for j in offered]
        ids += [str(j) for j in offered]
        pick = int(rng.integers(k))
        mean = 0.05 + 0.4 * context[f"c{offered[pick] % 3}"] + 0.5 * offered[pick] / 6
        rewards.append(float(rng.random() < mean) if binary else mean + 0.05 * float(rng.normal()))
        chosen.append(row + pick)
        propensity.append(1.0 / k)
        sizes.append(k)
        row += k
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    pmf = np.repeat(1.0 / np.array(sizes), sizes)
    batch = Batch(contexts, actions, ids, offsets)
    return Interactions(batch, np.array(chosen), np.array(propensity), np.array(rewards), pmf)
