"""From interaction rows of the lake to the arrays that trainers and estimators take.

Features are flattened by the function that the request path uses, with the looked-up ones under the same prefix, so a
model is trained on what it was asked with.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Batch, Features, Floats, Interactions
from decision.errors import FieldError
from decision.features import flatten, looked_up

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode
_MOST_KNOWN = 1_000
_COLUMNS = (
    "event_id",
    "context",
    "feature_snapshot",
    "actions",
    "action_ids",
    "action_index",
    "propensity",
    "reward",
    "pmf",
)


def to_interactions(table: pa.Table) -> Interactions:
    """Return the rows of `table` as arrays, in order.

    Args:
        table: [n] rows with the lake's interaction columns. A distribution that is not known may be null, and is NaN
            in the result; so is the reward of a decision that was dropped.

    Raises:
        FieldError: a column is missing, or the features of a row cannot be read.
    """
    for name in _COLUMNS:
        if name not in table.column_names:
            raise FieldError(name, wanted="a column of the interactions", got=None)
    contexts: list[Features] = []
    actions: list[Features] = []
    texts = (table[name].to_pylist() for name in ("event_id", "context", "feature_snapshot", "actions"))
    ids = table["action_ids"].combine_chunks()
    sizes = np.diff(ids.offsets.to_numpy()).astype(np.int64)
    # Many decisions offer the same actions: equal texts share one list of features, which nobody changes.
    known: dict[tuple[str, int], list[Features]] = {}
    for event_id, context, snapshot, offered, k in zip(*texts, sizes.tolist(), strict=True):
        try:
            contexts.append(context_features(context, snapshot))
            shared = known.get((offered, k))
            if shared is None:
                shared = action_features(offered, k)
                if len(known) < _MOST_KNOWN:
                    known[offered, k] = shared
            actions += shared
        except FieldError as error:
            raise error.under(f"{event_id}: ") from error
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return Interactions(
        batch=Batch(contexts, actions, ids.flatten().to_pylist(), offsets),
        chosen=offsets[:-1] + table["action_index"].to_numpy().astype(np.int64),
        propensity=table["propensity"].to_numpy(),
        reward=table["reward"].to_numpy().astype(np.float64),
        pmf=_pmf(table["pmf"].combine_chunks(), sizes),
    )


def context_features(context: str | bytes, snapshot: str | bytes) -> Features:
    """Return the flattened features of a context, the looked-up ones among them.

    Args:
        context: JSON object.
        snapshot: JSON object of the features that were looked up for the decision.

    Raises:
        FieldError: either is no object of features.
    """
    try:
        features = flatten(_decode_object(context), field="context")
        if len(snapshot) > 2:  # not "{}"
            features |= looked_up(_decode_object(snapshot))
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldError("context", wanted="a JSON object of features", got=error) from error
    return features


def action_features(actions: str | bytes, k: int) -> list[Features]:
    """Return the flattened features of `k` actions, which stand in a JSON list.

    Raises:
        FieldError: it is no list of `k` objects of features.
    """
    try:
        offered = _decode_objects(actions)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldError("actions", wanted="a JSON list of objects of features", got=error) from error
    if len(offered) != k:
        raise FieldError("actions", wanted=f"{k} objects, one per action", got=len(offered))
    try:
        return [flatten(action, field=f"actions[{index}]") for index, action in enumerate(offered)]
    except RecursionError as error:
        raise FieldError("actions", wanted="objects that are nested less deeply", got=error) from error


def _pmf(column: pa.ListArray, sizes: np.ndarray[Any, np.dtype[np.int64]]) -> Floats:
    if column.null_count == 0:
        return column.flatten().to_numpy().astype(np.float64)
    known = np.repeat(column.is_valid().to_numpy(zero_copy_only=False), sizes)
    pmf = np.full(int(sizes.sum()), np.nan)
    pmf[known] = column.flatten().to_numpy()
    return pmf
