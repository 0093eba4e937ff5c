"""Interaction rows that come from elsewhere: completed to the lake's columns, and checked before anything is kept.

What an off-policy estimate rests on has to be there and to fit together: the actions offered, the one drawn, its
propensity and the reward. The whole distribution may be unknown, and then stays null. A row is refused here if a later
replay could not read it.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.errors import FieldError
from decision.records import FIRST_US, LAST_US, MAX_ACTIONS, MAX_ID_CHARS, SCHEMA_VERSION, SUM_TOLERANCE
from pipelines.lake.features import Reading, flat_actions, flat_contexts
from pipelines.lake.schemas import INTERACTIONS, STRINGS, TIME

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_WEIGHTED = 1e50
"""A reward over its propensity, and one over it, in size: estimates are sums of squares of these, up to 1e150."""

STATES = ("joined", "expired", "dropped")
MODES = ("online", "apprentice", "logging_only")

REQUIRED = ("event_id", "ts", "action_ids", "action_index", "propensity")


def complete(columns: dict[str, Any], rows: int) -> pa.Table:
    """Return `columns` as a table with the lake's interaction columns, every missing one at its neutral value.

    Args:
        columns: {column: values}; `REQUIRED` and, in their absence null, ``reward``, ``pmf`` and the rest. ``offset``
            is each row's number in what it was read from, by which `check_rows` names it.
        rows: number of rows.

    Raises:
        FieldError: a column is missing, unknown or of another type.
    """
    for name in REQUIRED:
        if name not in columns:
            raise FieldError(name, wanted="a column", got=None)
    neutral: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "slot": "",
        "context": "{}",
        "guard_weight": 0.0,
        "guard_version": 0,
        "mode": "online",
        "deferred": False,
        "policy_version": "",
        "baseline_version": "",
        "feature_snapshot": "{}",
        "seed": 0,
        "pass_probability": 1.0,
        "settings_version": 0,
        "state": "joined",
        "clipped": False,
        "reward_version": "imported",
    }
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for field in INTERACTIONS:
        given = columns.get(field.name)
        try:
            if given is not None:
                array = given if isinstance(given, pa.Array | pa.ChunkedArray) else pa.array(given, field.type)
                if field.type == TIME and not pa.types.is_temporal(array.type):
                    # A number would be taken for microseconds, whatever it was: `Clock` reads those.
                    raise FieldError(field.name, wanted="a column of times", got=str(array.type))
                array = array if array.type == field.type else array.cast(field.type)
                arrays.append(pc.fill_null(array, neutral[field.name]) if field.name in neutral else array)
            elif field.name in neutral:
                arrays.append(pa.array(np.repeat(np.array([neutral[field.name]], dtype=object), rows), field.type))
            elif field.name == "actions":
                arrays.append(_empty_actions(columns["action_ids"]))
            else:
                arrays.append(pa.nulls(rows, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise FieldError(field.name, wanted=f"a column of {field.type}", got=error) from error
    return pa.table(arrays, schema=INTERACTIONS)


def _empty_actions(action_ids: Any) -> pa.Array:
    """Return the JSON of as many actions without features as each row offers."""
    try:
        given = action_ids if isinstance(action_ids, pa.Array | pa.ChunkedArray) else pa.array(action_ids, STRINGS)
        sizes = pc.list_value_length(given.cast(STRINGS)).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise FieldError("action_ids", wanted=f"a column of {STRINGS}", got=error) from error
    texts = {k: json.dumps([{}] * (k or 0)) for k in set(sizes)}
    return pa.array([texts[k] for k in sizes], pa.string())


def check_rows(table: pa.Table, *, first_row: int = 0) -> None:
    """Refuse rows that no off-policy estimate could be made of.

    Args:
        table: rows with the lake's interaction columns.
        first_row: number of the first row, for the message, where ``offset`` says none.

    Raises:
        FieldError: naming row and field of the first row that does not fit.
    """
    number = numbers_of(table, first_row)

    def refuse(bad: Any, field: str, wanted: str, got: Any) -> None:
        rows = np.flatnonzero(np.asarray(bad))
        if len(rows):
            row = int(rows[0])
            shown = got[row].as_py() if isinstance(got, pa.ChunkedArray) else got[row].item()
            raise FieldError(f"row {number[row]}: {field}", wanted=wanted, got=shown)

    for name in (*REQUIRED, "context", "actions"):
        if table[name].null_count:
            refuse(pc.is_null(table[name]).to_numpy(), name, "a value", table[name])
    k = pc.list_value_length(table["action_ids"]).to_numpy()
    refuse((k < 1) | (k > MAX_ACTIONS), "action_ids", f"1 to {MAX_ACTIONS} ids", k)
    refuse(_repeats(table["action_ids"], k), "action_ids", "ids, and each once", table["action_ids"])
    index = table["action_index"].to_numpy()
    refuse((index < 0) | (index >= k), "action_index", "an index into action_ids", index)
    propensity = table["propensity"].to_numpy()
    refuse(~((propensity > 0) & (propensity <= 1)), "propensity", "a number in (0, 1]", propensity)
    dropped = pc.equal(table["state"], "dropped").to_numpy(zero_copy_only=False)
    reward = table["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
    refuse(~(np.isfinite(reward) | dropped), "reward", "a finite number", reward)
    refuse(propensity < 1 / MAX_WEIGHTED, "propensity", f"at least {1 / MAX_WEIGHTED:g}", propensity)
    refuse(np.abs(reward) > MAX_WEIGHTED * propensity, "reward", f"up to {MAX_WEIGHTED:g} times the propensity", reward)
    kept = table["pass_probability"].to_numpy()
    refuse(~((kept > 0) & (kept <= 1)), "pass_probability", "a number in (0, 1]", kept)
    _check_marks(table, refuse)
    for name in ("pmf", "pmf_baseline", "pmf_candidate"):
        _check_pmfs(table, name, k, index, propensity, refuse)


def numbers_of(table: pa.Table, first_row: int = 0) -> Any:
    """Return [n] the number of each row in what it was read from: its ``offset``, or counted from `first_row`."""
    if table["offset"].null_count:
        return np.arange(first_row, first_row + len(table))
    return table["offset"].to_numpy()


def check_features(table: pa.Table, *, first_row: int = 0) -> None:
    """Refuse rows whose features no request could have brought; arguments and errors as `check_rows`."""
    asked = Reading(cut=False)
    sizes = pc.list_value_length(table["action_ids"]).to_numpy().astype(np.int64)
    _, errors = flat_contexts(table["context"], pc.fill_null(table["feature_snapshot"], "{}"), asked)
    _, more = flat_actions(table["actions"], sizes, asked)
    for row, error in sorted({**more, **errors}.items())[:1]:
        raise error.under(f"row {numbers_of(table, first_row)[row]}: ") from error


class _Refuse(Protocol):
    def __call__(self, bad: Any, field: str, wanted: str, got: Any) -> None: ...


def _repeats(action_ids: pa.ChunkedArray, k: Any) -> Any:
    """Return [n] whether a row offers an action twice, or one without an id."""
    flat = pc.list_flatten(action_ids)
    codes = flat.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(action_ids)), k)
    order = np.lexsort((codes, rows))
    codes, rows = codes[order], rows[order]
    bad = np.zeros(len(action_ids), np.bool_)
    bad[rows[1:][(codes[1:] == codes[:-1]) & (rows[1:] == rows[:-1])]] = True
    bad[rows[codes < 0]] = True
    return bad


def _check_marks(table: pa.Table, refuse: _Refuse) -> None:
    """Refuse what a row says about its decision, where no decision on record could say it."""
    for name, least in (("event_id", 1), ("slot", 0)):
        chars = pc.utf8_length(table[name]).to_numpy()
        refuse((chars < least) | (chars > MAX_ID_CHARS), name, f"{least} to {MAX_ID_CHARS} characters", table[name])
    ts = table["ts"].cast(pa.int64()).to_numpy()
    refuse((ts < FIRST_US) | (ts >= LAST_US), "ts", "a time between 1970 and 2200", table["ts"])
    for name, allowed in (("state", STATES), ("mode", MODES)):
        known = pc.is_in(table[name], value_set=pa.array(allowed)).to_numpy(zero_copy_only=False)
        refuse(~known, name, f"one of {', '.join(allowed)}", table[name])
    for name, most in (("step", None), ("schema_version", SCHEMA_VERSION), ("seed", 2**53 - 1), ("guard_weight", 1)):
        values = pc.fill_null(table[name], 0).to_numpy()
        wanted = "0 or more" if most is None else f"0 to {most}"
        refuse((values < 0) | (values > (np.inf if most is None else most)), name, wanted, values)


def _check_pmfs(table: pa.Table, name: str, k: Any, index: Any, propensity: Any, refuse: _Refuse) -> None:
    known = pc.is_valid(table[name]).to_numpy()
    if not known.any():
        return
    sizes = pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy()
    refuse(known & (sizes != k), name, "one probability per action", sizes)
    flat = pc.list_flatten(table[name]).to_numpy()
    rows = np.repeat(np.arange(len(table)), sizes)
    low = np.full(len(table), np.inf)
    with np.errstate(invalid="ignore"):  # what is no number is refused in the next line
        np.minimum.at(low, rows, flat)
    refuse(known & ~(low >= 0), name, "no negative probability", low)
    sums = np.bincount(rows, weights=flat, minlength=len(table))
    refuse(known & ~(np.abs(sums - 1.0) <= SUM_TOLERANCE), name, f"a sum of 1 within {SUM_TOLERANCE:.3g}", sums)
    if name != "pmf":
        return
    starts = np.cumsum(sizes) - sizes
    drawn = np.where(known, flat[np.minimum(starts + index, len(flat) - 1)], propensity)
    refuse(np.abs(drawn - propensity) > SUM_TOLERANCE, "propensity", "pmf[action_index]", propensity)
