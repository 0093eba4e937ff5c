"""What else was reported of the decisions in interaction rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from decision.batch import Floats
from decision.reward import LARGEST, Aggregation, aggregate_groups


def values_of(table: pa.Table, name: str, kind: Aggregation) -> Floats:
    """Return [n] the outcome `name` of each row, 0 where it was not reported in the reward window.

    Values beyond `LARGEST` are cut, as rewards are whose range nobody gave.

    Args:
        table: [n] rows with the lake's column ``outcomes``; of imported rows there are none.
        name: the outcome's.
        kind: how several of a decision become one number.
    """
    counted = table["outcomes"].combine_chunks()
    sizes = counted.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    owner = np.repeat(np.arange(len(table)), sizes)
    flat = counted.flatten()
    is_named = np.array(flat.field("name").to_pylist(), dtype=object) == name
    values = flat.field("value").to_numpy(zero_copy_only=False)[is_named]
    times = flat.field("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)[is_named]
    found = aggregate_groups(values, times, owner[is_named], len(table), kind)
    return np.clip(np.nan_to_num(found, nan=0.0), -LARGEST, LARGEST)
