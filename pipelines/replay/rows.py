"""Rows of a log as the arrays of an evaluation: features only where someone reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray
from pandas.util import hash_array

from decision.batch import Batch, Floats, Interactions, Ints
from decision.columns import FeatureRows, Texts
from decision.errors import FieldError
from decision.ragged import ragged_offsets, ragged_rows
from pipelines.interactions.arrays import interned, to_interactions

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_actions = msgspec.json.Decoder(list[dict[str, Any]]).decode
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Some rows of a log.

    Attributes:
        table: the rows.
        interactions: the same as arrays.
        ids: [m] dictionary of action ids and its codes, flat.
        names: [a] the ids.
        counts: [n] how many decisions each row stands for; None where every decision was kept.
        hashed: [n] uint64 hash of the decision's id, the same in every run.
        ts: [n] microseconds since 1970.
    """

    table: pa.Table
    interactions: Interactions
    ids: Ints
    names: list[str]
    counts: Floats | None
    hashed: NDArray[np.uint64]
    ts: Ints


def load(table: pa.Table, *, features: bool, counted: bool) -> Loaded:
    """Return rows as arrays.

    Args:
        table: rows with the columns of `pipelines.replay.source.COLUMNS`.
        features: whether contexts and actions are read; if not they are empty.
        counted: whether some rows of the log stand for several decisions.

    Raises:
        FieldError: features cannot be read.
    """
    ids = interned(pc.list_flatten(table["action_ids"]))
    return Loaded(
        table=table,
        interactions=to_interactions(table) if features else _without_features(table),
        ids=ids.code.astype(np.int64, copy=False),
        names=ids.names,
        counts=1.0 / table["pass_probability"].to_numpy() if counted else None,
        hashed=hash_of(table),
        ts=table["ts"].cast(pa.int64()).to_numpy(),
    )


def hash_of(table: pa.Table) -> NDArray[np.uint64]:
    """Return [n] hashes of event id and slot, which fall evenly whatever was logged."""
    slots = interned(table["slot"])  # most of them are alike
    hashed = text_hash(table["event_id"].to_numpy(zero_copy_only=False))
    hashed = hashed ^ (text_hash(np.array(slots.names, dtype=object)) * _ODD)[slots.code]
    # One more round (Steele, Lea, Flood 2014, "SplitMix"): the bits used here are not the hash's lowest ones alone.
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashed ^ (hashed >> np.uint64(31))


def text_hash(values: NDArray[np.object_]) -> NDArray[np.uint64]:
    """Return [n] hashes of [n] texts, the same in every run."""
    hashed: Any = hash_array  # its stub names another object
    return hashed(values, categorize=False)


def fold_of_hash(hashed: NDArray[np.uint64], folds: int) -> Ints:
    """Return [n] the fold of the reward model, in 0..folds-1."""
    return ((hashed >> np.uint64(32)) % np.uint64(folds)).astype(np.int64)


def group_of_hash(hashed: NDArray[np.uint64], groups: int) -> Ints:
    """Return [n] the random group of the bootstrap."""
    return (hashed % np.uint64(groups)).astype(np.int64)


def labels_of(table: pa.Table, segment: str) -> Texts:
    """Return [n] labels: a column of the log, or a field of the context.

    Args:
        table: the rows.
        segment: ``policy_version``, or a field of the context, by dots where it lies deeper.

    Raises:
        FieldError: a context cannot be read.
    """
    texts = interned(table["policy_version" if segment == "policy_version" else "context"])
    if segment == "policy_version":
        return texts
    first, *path = segment.split(".")
    # Only the field that is asked for is read; the others are passed over.
    kind = msgspec.defstruct("Part", [("value", Any, None)], rename={"value": first})
    decode = msgspec.json.Decoder(kind).decode
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(_label(decode, text, path), len(known)) for text in texts.names], dtype=np.int64)
    return Texts(list(known), codes[texts.code])


def action_groups(table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    """Return [m] codes and their labels: the value of the feature `name` of every offered action.

    Raises:
        FieldError: the actions of a row cannot be read, or their number is not that of the ids.
    """
    offered = interned(table["actions"])
    found: dict[str, int] = {}
    rows = [
        [found.setdefault(str(action.get(name, "")), len(found)) for action in _actions(text)] for text in offered.names
    ]
    sizes = pc.list_value_length(table["action_ids"]).to_numpy().astype(np.int64)
    starts = ragged_offsets(np.array([len(row) for row in rows], dtype=np.int64))
    there = np.diff(starts)[offered.code]
    if (there != sizes).any():
        row = int(np.flatnonzero(there != sizes)[0])
        raise FieldError("actions", wanted=f"{sizes[row]} objects, one per action", got=int(there[row]))
    codes = np.array([code for row in rows for code in row], dtype=np.int64)
    return codes[ragged_rows(starts[offered.code], ragged_offsets(sizes))], list(found)


def matching_rows(name: str, value: str) -> Callable[[pa.Table], pa.Table]:
    """Return what keeps the rows of a table whose label is `value`."""

    def kept(table: pa.Table) -> pa.Table:
        labels = labels_of(table, name)
        return table.filter(pa.array(np.array([label == value for label in labels.names], np.bool_)[labels.code]))

    return kept


def _label(decode: Callable[[str], Any], text: str, path: list[str]) -> str:
    try:
        value: Any = decode(text).value
    except msgspec.DecodeError as error:
        raise FieldError("context", wanted="a JSON object", got=error) from error
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def _without_features(table: pa.Table) -> Interactions:
    sizes = pc.list_value_length(table["action_ids"]).to_numpy().astype(np.int64)
    offsets = ragged_offsets(sizes)
    n, m = len(sizes), int(offsets[-1])
    pmf = np.full(m, np.nan)
    if table["pmf"].null_count == 0:
        pmf = pc.list_flatten(table["pmf"]).to_numpy().astype(np.float64)
    elif table["pmf"].null_count < n:
        known = np.repeat(pc.is_valid(table["pmf"]).to_numpy(), sizes)
        pmf[known] = pc.list_flatten(table["pmf"]).to_numpy()
    return Interactions(
        batch=Batch(FeatureRows.empty(n), FeatureRows.empty(m), Texts([""], np.zeros(m, np.int64)), offsets),
        chosen=offsets[:-1] + table["action_index"].to_numpy().astype(np.int64),
        propensity=table["propensity"].to_numpy(),
        reward=table["reward"].to_numpy().astype(np.float64),
        pmf=pmf,
    )
