"""The whole family on a frame at hand: pandas or Arrow in and out, or what the Open Bandit Pipeline calls feedback.

::

    from decision import ope

    found = ope.evaluate(frame, policy=["pi_a", "pi_b", "pi_c"])
    found.frame           # every estimate with its interval, effective rows and warnings, of the kind that came in
    found.recommended, found.refused
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError, Words, nearest_of
from decision.ope.arrays import evaluate as evaluate_arrays
from decision.ope.estimate import Estimate
from decision.ope.evaluation.results import Results

Given = str | Sequence[str] | Floats
"""The name of a column of lists, [K] names of columns, or [n, K] numbers."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a log says about a policy.

    Attributes:
        frame: a row for each estimate with ``estimator``, ``value``, ``low``, ``high``, ``level``, ``rows``, ``ess``,
            ``first`` (the one to read first) and ``warnings``; a pandas frame where one came, else an Arrow table.
            The row ``logged`` is the mean logged reward, and ``lift`` how much more the policy earns. Numbers are null
            where the log cannot support them.
        results: the same as records, and what a frame has no room for.
    """

    frame: Any
    results: Results

    @property
    def recommended(self) -> str | None:
        """Name of the estimate to read first; None where no interval can be believed."""
        return self.results.recommended

    @property
    def refused(self) -> list[str]:
        """Why no estimate should be read; empty when they may."""
        return self.results.refused


def evaluate(
    frame: Any,
    *,
    policy: Given = "policy",
    action: str = "action",
    propensity: str = "propensity",
    reward: str = "reward",
    actions: str | Sequence[str] | None = None,
    logging: Given | None = None,
    expected: Given | None = None,
    low: float | None = None,
    high: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Found:
    """Return what the rows of a frame say about a policy.

    Args:
        frame: [n] rows: a pandas frame, an Arrow table, anything else that exports Arrow streams (polars, DuckDB), or a
            dictionary of columns.
        policy: probabilities of the policy under test: the name of a column of lists, the names of a column for each
            action, or [n, K] numbers.
        action: column of the drawn action: its number, from 0, or its id.
        propensity: column of its logged probability.
        reward: column of the reward.
        actions: where actions have ids: the column of lists of what was offered, or the ids in the order of `policy`.
            By default ids are the names of the columns in `policy`.
        logging: the logging policy, like `policy`; None where it is not known whole.
        expected: reward model, like `policy`, fitted on other rows; None for mean rewards by action.
        low: smallest reward possible; None for 0, or the smallest seen where that is below.
        high: largest reward possible; None for 1, or the largest seen where that is above.
        level: coverage of the intervals.
        seed: of the bootstrap and of the halves.

    Raises:
        FieldError: a column is missing, has nulls, or does not fit; naming it.
        SupportError: there are no rows.
    """
    table = _table(frame)
    if not table.num_rows:
        raise SupportError("the frame has no rows")
    pmf, offsets = _ragged(table, policy, "policy")
    whole = None if logging is None else _like(table, logging, "logging", offsets)
    model = None if expected is None else _like(table, expected, "expected", offsets)
    results = evaluate_arrays(
        action=_drawn(table, action, actions, policy, offsets),
        propensity=_numbers(table, propensity, "propensity"),
        reward=_numbers(table, reward, "reward"),
        policy=pmf,
        logging=whole,
        expected=model,
        offsets=offsets,
        low=low,
        high=high,
        level=level,
        seed=seed,
    )
    out = _frame(results)
    return Found(out.to_pandas() if type(frame).__module__.partition(".")[0] == "pandas" else out, results)


def evaluate_feedback(
    bandit_feedback: Mapping[str, Any],
    action_dist: Floats,
    estimated_rewards_by_reg_model: Floats | None = None,
    *,
    alpha: float = 0.05,
    random_state: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return estimates with their intervals, asked and answered as the Open Bandit Pipeline does it.

    Args:
        bandit_feedback: ``action`` [n], ``reward`` [n], ``pscore`` [n], ``n_actions``; ``position`` [n] where
            `action_dist` has several, and ``pi_b`` like `action_dist` where the logging policy is known whole.
        action_dist: [n, K] or [n, K, L] probabilities of the policy under test; L positions.
        estimated_rewards_by_reg_model: reward model of the same shape, fitted on other rows.
        alpha: one minus the coverage of the intervals.
        random_state: of the bootstrap and of the halves.

    Returns:
        by estimator ``mean``, ``95.0% CI (lower)`` and ``95.0% CI (upper)``, as ``estimate_intervals`` of OBP names
        them, and ``ess`` and ``warnings``. Estimators that the log cannot support are left out; where it was refused
        all are, and the key ``refused`` says why.

    Raises:
        FieldError: a field is missing or does not fit.
        SupportError: there are no rows.
    """
    for name in ("action", "reward", "pscore"):
        if bandit_feedback.get(name) is None:
            raise FieldError.missing(f"bandit_feedback.{name}")
    position = bandit_feedback.get("position")
    reward = np.asarray(bandit_feedback["reward"], dtype=np.float64)
    policy = _at(action_dist, position, "action_dist", len(reward))
    logging, model = bandit_feedback.get("pi_b"), estimated_rewards_by_reg_model
    results = evaluate_arrays(
        action=np.asarray(bandit_feedback["action"], dtype=np.int64),
        propensity=np.asarray(bandit_feedback["pscore"], dtype=np.float64),
        reward=reward,
        policy=policy,
        logging=None if logging is None else _at(logging, position, "bandit_feedback.pi_b", len(reward)),
        expected=None if model is None else _at(model, position, "estimated_rewards_by_reg_model", len(reward)),
        level=1.0 - alpha,
        seed=random_state,
    )
    if results.refused:
        return {"refused": {"warnings": list(results.refused)}}
    name = f"{100 * (1.0 - alpha):.1f}% CI"
    return {
        key: {
            "mean": e.value,
            f"{name} (lower)": e.low,
            f"{name} (upper)": e.high,
            "ess": e.ess,
            "warnings": [*e.reasons],
        }
        for key, e in results.estimates.items()
        if e is not None
    }


def _table(frame: Any) -> Any:
    import pyarrow as pa  # who asks with arrays does without

    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, Mapping):
        return pa.table({str(name): list(column) if _nested(column) else column for name, column in frame.items()})
    if type(frame).__module__.partition(".")[0] == "pandas":
        try:
            return pa.Table.from_pandas(frame, preserve_index=False)
        except pa.ArrowException as error:  # its two texts: what is wrong, and of which column
            raise FieldError(
                "frame", wanted="columns of one kind each", got=Words("; ".join(map(str, error.args[::-1])))
            ) from error
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    got = Words(type(frame).__name__)
    raise FieldError("frame", wanted="a pandas frame, an Arrow table, or a dictionary of columns", got=got)


def _nested(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.ndim > 1


def _column(table: Any, name: str, field: str) -> Any:
    if name not in table.column_names:
        near = nearest_of(name, table.column_names)
        found = ", ".join(map(repr, table.column_names)) or "none"
        hint = "" if near is None else repr(near)
        raise FieldError(field, wanted=f"the name of a column (there are {found})", got=name, hint=hint)
    column = table[name].combine_chunks()
    if column.null_count:
        raise FieldError(name, wanted="a column without nulls", got=Words(f"{column.null_count} nulls"))
    return column


def _numbers(table: Any, name: str, field: str) -> Floats:
    column = _column(table, name, field)
    try:
        out = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FieldError(name, wanted="a column of numbers", got=error) from error
    if not np.isfinite(out).all():
        raise FieldError(
            name, wanted="finite numbers", got=Words(f"not so in row {int(np.flatnonzero(~np.isfinite(out))[0])}")
        )
    return out


def _ragged(table: Any, given: Given, field: str) -> tuple[Floats, Ints]:
    """Return [m] numbers, and [n + 1] where each row's begin."""
    import pyarrow as pa

    n = table.num_rows
    if isinstance(given, str):
        column = _column(table, given, field)
        if not (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            raise FieldError(given, wanted="a column of lists of probabilities", got=Words(str(column.type)))
        sizes = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        values = column.flatten()
        if values.null_count:
            raise FieldError(given, wanted="lists without nulls", got=Words(f"{values.null_count} nulls"))
        flat = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        return flat, np.concatenate(([0], np.cumsum(sizes)))
    if isinstance(given, np.ndarray):
        if given.ndim != 2 or len(given) != n:
            raise FieldError(field, wanted=f"[{n}, K] numbers", got=given.shape)
        dense = given
    else:
        names = [str(name) for name in given]
        if not names:
            raise FieldError(field, wanted="the names of columns, one for each action", got=names)
        dense = np.stack([_numbers(table, name, field) for name in names], axis=1)
    return np.ascontiguousarray(dense, dtype=np.float64).reshape(-1), np.arange(n + 1) * dense.shape[1]


def _like(table: Any, given: Given, field: str, offsets: Ints) -> Floats:
    flat, cuts = _ragged(table, given, field)
    if not np.array_equal(cuts, offsets):
        raise FieldError(field, wanted="as many numbers in each row as `policy` has", got=Words("another number"))
    return flat


def _drawn(table: Any, name: str, actions: str | Sequence[str] | None, policy: Given, offsets: Ints) -> Ints:
    import pyarrow as pa

    column = _column(table, name, "action")
    if pa.types.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False).astype(np.int64)
    drawn: list[Any] = column.to_pylist()
    sizes = np.diff(offsets)
    if isinstance(actions, str):
        offered: list[list[Any]] = _column(table, actions, "actions").to_pylist()
    else:
        named = policy if actions is None and not isinstance(policy, str | np.ndarray) else actions
        if named is None:
            raise FieldError("actions", wanted="the ids of the actions, as actions have no numbers", got=None)
        offered = [list(named)] * len(drawn)
    out = np.empty(len(drawn), dtype=np.int64)
    for row, (one, ids) in enumerate(zip(drawn, offered, strict=True)):
        if len(ids) != sizes[row]:
            raise FieldError(f"actions, row {row}", wanted=f"{sizes[row]} ids, one for each probability", got=ids)
        if one not in ids:
            raise FieldError(f"{name}, row {row}", wanted=f"one of the ids that were offered: {ids}", got=one)
        out[row] = ids.index(one)
    return out


def _at(values: Any, position: Any, field: str, n: int) -> Floats:
    """Return [n, K] probabilities at the positions that were shown."""
    found = np.asarray(values, dtype=np.float64)
    if found.ndim == 2:
        found = found[:, :, None]
    if found.ndim != 3 or len(found) != n:
        raise FieldError(field, wanted=f"[{n}, K] or [{n}, K, L] numbers", got=found.shape)
    if found.shape[2] == 1:
        return found[:, :, 0]
    if position is None:
        raise FieldError("bandit_feedback.position", wanted=f"[{n}] positions, as {field} has several", got=None)
    shown = np.asarray(position, dtype=np.int64)
    if shown.shape != (n,) or (n and not 0 <= int(shown.min()) <= int(shown.max()) < found.shape[2]):
        raise FieldError("bandit_feedback.position", wanted=f"[{n}] numbers below {found.shape[2]}", got=shown.shape)
    return found[np.arange(n), :, shown]


def _frame(results: Results) -> Any:
    import pyarrow as pa

    rows: dict[str, Estimate | None] = {"logged": results.logged}
    rows |= dict.fromkeys(results.estimates) if results.refused else results.estimates
    rows["lift"] = None if results.refused else results.lift
    found = list(rows.values())
    refused = tuple(results.refused) or ("the log has no support for it",)
    return pa.table(
        {
            "estimator": list(rows),
            "value": pa.array([e and e.value for e in found], pa.float64()),
            "low": pa.array([e and e.low for e in found], pa.float64()),
            "high": pa.array([e and e.high for e in found], pa.float64()),
            "level": pa.array([e and e.level for e in found], pa.float64()),
            "rows": pa.array([e and e.n for e in found], pa.int64()),
            "ess": pa.array([e and e.ess for e in found], pa.float64()),
            "first": [name == results.recommended for name in rows],
            "warnings": ["; ".join(refused if e is None else e.reasons) for e in found],
        }
    )
