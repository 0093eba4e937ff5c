"""Shared hypothesis strategies."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from decision.batch import Batch, Floats, Interactions, Ints


@st.composite
def ragged_scores(draw: st.DrawFn, *, low: float = -5.0, high: float = 5.0) -> tuple[Floats, Ints]:
    """Return scores [m] and offsets [n + 1] of 1 to 5 decisions with 1 to 12 actions."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    count = sum(sizes)
    values = draw(st.lists(st.floats(low, high), min_size=count, max_size=count))
    return np.array(values), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


_WORDS = st.sampled_from(["a", "b", "a=b", "feature.a", "é", "日", "", "x:y", "k,{", "|C a", "n\n"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
_NUMBERS = st.integers(-3, 3) | st.floats(-100.0, 100.0) | st.sampled_from([0, -0.0, 5e-324, 1e3])
_VALUES = st.recursive(
    _NUMBERS | _WORDS | st.booleans() | st.none(),
    lambda inner: (
        st.lists(_NUMBERS, max_size=3) | st.lists(_WORDS, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3)
    ),
    max_leaves=4,
)
FEATURE_OBJECTS = st.dictionaries(_WORDS, _VALUES, max_size=5)
"""Objects of features as requests have them: any name, numbers, texts, lists of either, objects in objects, nothing."""


@st.composite
def feature_logs(draw: st.DrawFn, *, most: int = 12) -> pa.Table:
    """Return up to `most` interactions with the lake's columns, whose contexts and catalogues repeat or do not."""
    n = draw(st.integers(1, most))
    contexts = draw(st.lists(FEATURE_OBJECTS, min_size=1, max_size=n))
    snapshots = draw(st.lists(st.just({}) | FEATURE_OBJECTS, min_size=1, max_size=3))
    objects = draw(st.lists(FEATURE_OBJECTS, min_size=1, max_size=5))
    catalogues = draw(
        st.lists(st.lists(st.integers(0, len(objects) - 1), min_size=1, max_size=4), min_size=1, max_size=3)
    )
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    offered = [catalogues[int(rng.integers(len(catalogues)))] for _ in range(n)]
    index = [int(rng.integers(len(ids))) for ids in offered]
    reward = rng.integers(2, size=n).astype(float) if draw(st.booleans()) else rng.random(n)
    return pa.table(
        {
            "event_id": [f"e{row}" for row in range(n)],
            "context": [json.dumps(contexts[int(rng.integers(len(contexts)))], ensure_ascii=False) for _ in range(n)],
            "feature_snapshot": [json.dumps(snapshots[int(rng.integers(len(snapshots)))]) for _ in range(n)],
            "actions": [json.dumps([objects[number] for number in ids]) for ids in offered],
            "action_ids": [[str(number) for number in ids] for ids in offered],
            "action_index": pa.array(index, pa.int32()),
            "propensity": [1.0 / len(ids) for ids in offered],
            "reward": reward,
            "pmf": [[1.0 / len(ids)] * len(ids) for ids in offered],
        }
    )


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
