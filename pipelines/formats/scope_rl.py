"""SCOPE-RL's `logged_dataset` of a discrete environment, as `numpy.savez(path, **logged_dataset)` writes it.

Needed: ``n_actions``, ``n_trajectories``, ``step_per_trajectory``, ``state`` [N, d], ``action`` [N], ``reward`` [N] and
``pscore`` [N], trajectory after trajectory. ``done`` ends an episode: steps that only fill a trajectory up to its fixed
length, after its end, are left out. States become features ``s0``..., a trajectory an episode.
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
from pipelines.formats.npz import ROWS_AT_ONCE, check_shape, read_npz, times, whole_numbers
from pipelines.formats.registry import Format, one_log
from pipelines.formats.rows import complete

_NEEDED = ("n_actions", "n_trajectories", "step_per_trajectory", "state", "action", "reward", "pscore")


def read_scope_rl(path: Path, *, name: str) -> Iterable[pa.Table]:
    """Yield the interactions of a file.

    Args:
        path: of the npz file.
        name: prefix of the event and episode ids, which the format does not have.

    Raises:
        FieldError: an array is missing or does not fit the others, or actions are continuous.
    """
    found = read_npz(path, _NEEDED, ("action_type", "done"))
    kind = str(found.get("action_type", "discrete"))
    if kind != "discrete":
        raise FieldError("action_type", wanted="discrete", got=kind)
    k, trajectories, steps = (
        int(np.asarray(found[part]).reshape(-1)[0]) for part in ("n_actions", "n_trajectories", "step_per_trajectory")
    )
    if not 1 <= k <= MAX_ACTIONS:
        raise FieldError("n_actions", wanted=f"1 to {MAX_ACTIONS}", got=k)
    n = trajectories * steps
    action = whole_numbers("action", found["action"], k)
    check_shape("action", action, (n,))
    for part in ("reward", "pscore"):
        found[part] = np.asarray(found[part], dtype=np.float64).reshape(-1)
        check_shape(part, found[part], (n,))
    check_shape("state", found["state"], (n, None))
    kept = np.flatnonzero(_before_the_end(found.get("done"), trajectories, steps))
    ids, offered = [str(number) for number in range(k)], msgspec.json.encode([{}] * k).decode()
    for start in range(0, len(kept), ROWS_AT_ONCE):
        rows = kept[start : start + ROWS_AT_ONCE]
        columns: dict[str, Any] = {
            "event_id": [f"{name}-{row:09d}" for row in rows],
            "ts": times(start, len(rows)),
            "episode_id": [f"{name}-{row // steps}" for row in rows],
            "step": rows % steps,
            "context": [_state(row) for row in found["state"][rows]],
            "actions": [offered] * len(rows),
            "action_ids": [ids] * len(rows),
            "action_index": action[rows],
            "propensity": found["pscore"][rows],
            "reward": found["reward"][rows],
        }
        yield complete(columns, len(rows))


def _before_the_end(done: Any, trajectories: int, steps: int) -> Any:
    if done is None:
        return np.ones(trajectories * steps, dtype=bool)
    ends = np.asarray(done).astype(bool).reshape(-1)
    check_shape("done", ends, (trajectories * steps,))
    # A step counts until an earlier one of its trajectory was the last.
    by_step = ends.reshape(trajectories, steps)
    ended = np.cumsum(by_step, axis=1) - by_step > 0
    return ~ended.ravel()


def _state(row: Any) -> str:
    return msgspec.json.encode({f"s{column}": float(value) for column, value in enumerate(row)}).decode()


FORMAT = Format(one_log(lambda path, name: read_scope_rl(path, name=name)))
