"""From interaction rows of the lake to the arrays that trainers and estimators take.

Features are flattened by the function that the request path uses, with the looked-up ones under the same prefix, so a
model is trained on what it was asked with. No row becomes a dictionary: names and equal texts are read once.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Batch, Floats, Interactions, Ints
from decision.columns import Texts
from decision.errors import FieldError
from decision.features import VERSION
from decision.policy import features_version_of
from decision.protocols import Policy
from decision.ragged import ragged_offsets
from pipelines.lake.features import Reading, contexts_of, flat_actions, without_features
from pipelines.lake.schemas import FEATURE_FIELDS

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_OFFERED = ("event_id", "actions", "action_ids")
_TEXTS = ("context", "feature_snapshot")  # what columns of features, where there are such, were made of
_COLUMNS = (*_OFFERED, "action_index", "propensity", "reward", "pmf")
READ = (*_COLUMNS, *_TEXTS, "pass_probability", *(field.name for field in FEATURE_FIELDS))
"""The columns of a row that `to_interactions` looks at."""


def to_interactions(table: pa.Table) -> Interactions:
    """Return the rows of `table` as arrays, in order.

    Args:
        table: [n] rows with the lake's interaction columns. A distribution that is not known may be null, and is NaN
            in the result; so is the reward of a decision that was dropped. A row of a log that was sampled down counts
            for the decisions it stands for.

    Raises:
        FieldError: a column is missing, or the features of a row cannot be read.
    """
    _require(table, _COLUMNS)
    batch = to_batch(table)
    return Interactions(
        batch=batch,
        chosen=batch.offsets[:-1] + table["action_index"].to_numpy().astype(np.int64),
        propensity=table["propensity"].to_numpy(),
        reward=table["reward"].to_numpy().astype(np.float64),
        pmf=pmf_of(table["pmf"], np.diff(batch.offsets)),
        weight=_stands_for(table),
    )


def _stands_for(table: pa.Table) -> Floats | None:
    """Return [n] how many decisions each row stands for; None where every decision was kept."""
    if "pass_probability" not in table.column_names:
        return None
    kept = table["pass_probability"].to_numpy()
    return 1.0 / kept if (kept < 1.0).any() else None


def to_batch(table: pa.Table, *, version: int = VERSION) -> Batch:
    """Return what the decisions in the rows of `table` were asked, in order.

    Args:
        table: [n] rows with the lake's decision or interaction columns.
        version: of the rules of flattening.

    Raises:
        FieldError: a column is missing, or the features of a row cannot be read.
    """
    _require(table, _OFFERED if "features_version" in table.column_names else (*_OFFERED, *_TEXTS))
    contexts, errors = contexts_of(table, Reading(version))
    sizes = sizes_of(table)
    actions, more = flat_actions(table["actions"], sizes, Reading(version))
    errors = more | errors
    if errors:
        row = min(errors)
        raise errors[row].under(f"{table['event_id'][row].as_py()}: ") from errors[row]
    return Batch(contexts, actions, interned(pc.list_flatten(table["action_ids"])), ragged_offsets(sizes))


def asked_of(policy: Policy, table: pa.Table, log: Interactions) -> Interactions:
    """Return the rows with their features flattened as `policy` learned them: `log` as it is, unless it is older.

    Args:
        policy: who is to be asked.
        table: [n] rows, their texts among them.
        log: [n] the same as arrays. What an older policy cannot read has no features.
    """
    version = features_version_of(policy)
    if version == VERSION:
        return log
    contexts = contexts_of(table, Reading(version)).rows
    actions = flat_actions(table["actions"], sizes_of(table), Reading(version)).rows
    return replace(log, batch=replace(log.batch, contexts=contexts, actions=actions))


def read_apart(table: pa.Table) -> tuple[Interactions, dict[int, FieldError]]:
    """Return the rows of `table` as arrays, as `to_interactions`, and which cannot be read and why: {row: error}.

    Those have no features in the result; they stopped nothing when they were joined, and stop nothing here.

    Raises:
        FieldError: a column is missing.
    """
    try:
        return to_interactions(table), {}
    except FieldError:
        errors = contexts_of(table).errors
        errors = flat_actions(table["actions"], sizes_of(table)).errors | errors
        if not errors:
            raise
    bad = np.zeros(len(table), np.bool_)
    bad[list(errors)] = True
    nothing = [json.dumps([{}] * k) for k in sizes_of(table).tolist()]
    blank: dict[str, list[str]] = {
        "context": ["{}"] * len(bad),
        "feature_snapshot": ["{}"] * len(bad),
        "actions": nothing,
    }
    for name, texts in blank.items():
        column = pc.if_else(pa.array(bad), pa.array(texts, pa.string()), table[name].cast(pa.string()))
        table = table.set_column(table.column_names.index(name), name, column)
    return to_interactions(without_features(table)), errors


def unreadable(table: pa.Table) -> Ints:
    """Return the rows of `table`, decisions as `to_batch` takes them, whose features cannot be read."""
    contexts = contexts_of(table)
    actions = flat_actions(table["actions"], sizes_of(table))
    return np.array(sorted({*contexts.errors, *actions.errors}), dtype=np.int64)


def sizes_of(table: pa.Table) -> Ints:
    """Return [n] how many actions each row's decision offered."""
    return pc.list_value_length(table["action_ids"]).to_numpy().astype(np.int64)


def interned(column: pa.ChunkedArray) -> Texts:
    """Return a column of [n] texts, each distinct one held once; null is ""."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    codes, names = encoded.indices, encoded.dictionary.to_pylist()
    if encoded.null_count:
        names = names if "" in names else [*names, ""]
        codes = pc.fill_null(codes, names.index(""))
    return Texts(names, codes.to_numpy().astype(np.int64))


def _require(table: pa.Table, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in table.column_names:
            raise FieldError(name, wanted="a column of the interactions", got=None)


def pmf_of(column: pa.ChunkedArray, sizes: Ints) -> Floats:
    """Return [m] the probabilities of a column of lists, flat; NaN in rows of `sizes` ([n]) actions that have none."""
    flat = pc.list_flatten(column).to_numpy().astype(np.float64)
    if column.null_count == 0:
        return flat
    known = np.repeat(column.is_valid().to_numpy(), sizes)
    pmf = np.full(int(sizes.sum()), np.nan)
    pmf[known] = flat
    return pmf
