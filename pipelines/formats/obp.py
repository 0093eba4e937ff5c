"""The Open Bandit Pipeline's `bandit_feedback` dictionary, as `numpy.savez(path, **bandit_feedback)` writes it.

Needed: ``n_actions``, ``action``, ``reward``, ``pscore``. Read where they are there: ``context`` (features ``x0``...),
``action_context`` (features ``a0``... of every action), ``position`` (a category of the context) and ``pi_b``, the
whole logging distribution, [n, K] or [n, K, positions]. A field that is None, as OBP's synthetic data have
``position``, counts as one that is not there. Logs of slates and of continuous actions are refused: what they log is no
propensity of one action among those offered.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import FieldError
from decision.records import MAX_ACTIONS
from pipelines.formats.npz import ROWS_AT_ONCE, check_shape, numbers, one_number, read_npz, times, whole_numbers
from pipelines.formats.registry import Format, one_log
from pipelines.formats.rows import complete
from pipelines.interactions.arrays import to_interactions
from pipelines.progress import Progress, silent

_NEEDED = ("n_actions", "action", "reward", "pscore")
_OPTIONAL = ("context", "action_context", "position", "pi_b")
_SLATES = "slate_id"
_MAX_FEATURES = 1_000


def read_obp(path: Path, *, name: str) -> Iterable[pa.Table]:
    """Yield the interactions of a file.

    Args:
        path: of the npz file.
        name: prefix of the event ids, which the format does not have.

    Raises:
        FieldError: an array is missing or does not fit the others.
    """
    found = read_npz(path, (), (*_NEEDED, *_OPTIONAL, _SLATES))
    _check_kind(found)
    k = one_number("n_actions", found["n_actions"], 1, MAX_ACTIONS)
    action = whole_numbers("action", found["action"], k)
    n = len(action)
    for part in ("reward", "pscore"):
        found[part] = numbers(part, found[part]).reshape(-1)
        check_shape(part, found[part], (n,))
    position = _position(found, n)
    pmf = _pmf(found, n, k, position)
    context = numbers("context", found["context"]) if "context" in found else None
    if context is not None:
        check_shape("context", context, (n, None))
    offered = _actions(found, k)
    ids = [str(number) for number in range(k)]
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, n))
        size = rows.stop - rows.start
        columns: dict[str, Any] = {
            "event_id": [f"{name}-{start + row:09d}" for row in range(size)],
            "ts": times(start, size),
            "context": _contexts(context, position, rows),
            "actions": [offered] * size,
            "action_ids": [ids] * size,
            "action_index": action[rows],
            "propensity": found["pscore"][rows],
            "reward": found["reward"][rows],
            "offset": np.arange(start, rows.stop),
        }
        if pmf is not None:
            columns["pmf"] = list(pmf[rows])
        yield complete(columns, size)


def write_obp(rows: pa.Table, path: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write interactions as a `bandit_feedback` and return how many were written and how many left out.

    Only decisions that offer the log's first set of actions can be written: the format has one set for all rows.

    Raises:
        FieldError: a distribution is not known, or contexts have more than 1,000 different features.
    """
    ids = rows["action_ids"].to_pylist()
    kept = [offered == ids[0] for offered in ids]
    log = to_interactions(rows.filter(pa.array(kept)))
    n, k = len(log), len(ids[0]) if ids else 0
    progress("decisions exported", 0, n)
    if np.isnan(log.pmf).any():
        raise FieldError("pmf", wanted="the whole distribution of every decision", got=None)
    names = sorted({feature for context in log.batch.contexts for feature in context})
    if len(names) > _MAX_FEATURES:
        raise FieldError("context", wanted=f"at most {_MAX_FEATURES} different features", got=len(names))
    context = np.array([[row.get(name, 0.0) for name in names] for row in log.batch.contexts]).reshape(n, len(names))
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            n_rounds=n,
            n_actions=k,
            context=context,
            action=log.chosen - log.batch.offsets[:-1],
            position=np.zeros(n, dtype=np.int64),
            reward=log.reward,
            pscore=log.propensity,
            pi_b=log.pmf.reshape(n, k, 1),
        )
    return n, len(ids) - n


def _check_kind(found: dict[str, Any]) -> None:
    """Refuse what is another of OBP's logs, or none."""
    wanted = "a log of one action a decision"
    if _SLATES in found:
        says = "a log of slates cannot be read: what each action of a slate was paid for cannot be told apart"
        raise FieldError(_SLATES, wanted=wanted, got=found[_SLATES].shape, says=says)
    if "n_actions" not in found and "action" in found and found["action"].dtype.kind == "f":
        says = "is missing, and a log of continuous actions cannot be read: none are offered to choose among"
        raise FieldError("n_actions", wanted=wanted, got=None, says=says)
    for part in _NEEDED:
        if part not in found:
            raise FieldError(part, wanted="an array of the file, and not None", got=None)


def _position(found: dict[str, Any], n: int) -> Any:
    position = found.get("position")
    if position is None or position.ndim == 0:
        return np.zeros(n, dtype=np.int64)
    check_shape("position", position, (n,))
    return whole_numbers("position", position, 1_000)


def _pmf(found: dict[str, Any], n: int, k: int, position: Any) -> Any:
    if "pi_b" not in found:
        return None
    pmf = numbers("pi_b", found["pi_b"])
    if pmf.ndim == 3:
        check_shape("pi_b", pmf, (n, k, max(1, pmf.shape[2])))
        at = np.minimum(position, pmf.shape[2] - 1)
        return pmf[np.arange(n), :, at]
    check_shape("pi_b", pmf, (n, k))
    return pmf


def _contexts(context: Any, position: Any, rows: slice) -> list[str]:
    places = position[rows].tolist()
    values = [[]] * len(places) if context is None else context[rows].tolist()
    several = bool((position != position[0]).any()) if len(position) else False
    out: list[str] = []
    for row, place in zip(values, places, strict=True):
        features: dict[str, Any] = {f"x{column}": value for column, value in enumerate(row)}
        if several:
            features["position"] = str(place)
        out.append(msgspec.json.encode(features).decode())
    return out


def _actions(found: dict[str, Any], k: int) -> str:
    table = found.get("action_context")
    if table is None:
        return msgspec.json.encode([{}] * k).decode()
    table = numbers("action_context", table)
    check_shape("action_context", table, (k, None))
    features = [{f"a{column}": value for column, value in enumerate(row)} for row in table.tolist()]
    return msgspec.json.encode(features).decode()


FORMAT = Format(one_log(lambda path, name: read_obp(path, name=name)), write_obp)
