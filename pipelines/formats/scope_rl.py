"""SCOPE-RL's `logged_dataset` of a discrete environment, as `numpy.savez(path, **logged_dataset)` writes it.

Needed: ``n_actions``, ``state`` [N, d], ``action`` [N], ``reward`` [N] and ``pscore`` [N], trajectory after trajectory.
SCOPE-RL goes on to a fixed length: with ``n_trajectories`` and ``step_per_trajectory`` that make N, ``done`` ends an
episode, and the steps after it only fill its trajectory up and are left out. Trajectories of unequal lengths end where
``done`` or ``terminal`` says so, or have their lengths in ``step_per_trajectory`` [n]. States become features
``s0``..., a trajectory an episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import FieldError
from decision.records import MAX_ACTIONS
from pipelines.formats.npz import ROWS_AT_ONCE, check_shape, numbers, one_number, read_npz, times, whole_numbers
from pipelines.formats.registry import Format, Found, Reason
from pipelines.formats.rows import complete

_NEEDED = ("n_actions", "state", "action", "reward", "pscore")
_LENGTHS = ("n_trajectories", "step_per_trajectory", "done", "terminal")


class _Trajectories(NamedTuple):
    """[N] of which trajectory a row is, which step of it, and whether it comes before the end."""

    number: Any
    step: Any
    kept: Any


def read_scope_rl(path: Path, *, name: str, left_out: Counter[Reason] | None = None) -> Iterable[pa.Table]:
    """Yield the interactions of a file.

    Args:
        path: of the npz file.
        name: prefix of the event and episode ids, which the format does not have.
        left_out: is told how many steps were left out.

    Raises:
        FieldError: an array is missing or does not fit the others, or actions are continuous.
    """
    kind = str(read_npz(path, (), ("action_type",)).get("action_type", "discrete"))
    if kind != "discrete":
        raise FieldError("action_type", wanted="discrete", got=kind)
    found = read_npz(path, _NEEDED, _LENGTHS)
    k = one_number("n_actions", found["n_actions"], 1, MAX_ACTIONS)
    action = whole_numbers("action", found["action"], k)
    n = len(action)
    for part in ("reward", "pscore"):
        found[part] = numbers(part, found[part]).reshape(-1)
        check_shape(part, found[part], (n,))
    state = numbers("state", found["state"])
    check_shape("state", state, (n, None))
    trajectories = _trajectories(found, n)
    kept = np.flatnonzero(trajectories.kept)
    if left_out is not None:
        left_out["after_the_end"] = n - len(kept)
    ids, offered = [str(number) for number in range(k)], msgspec.json.encode([{}] * k).decode()
    for start in range(0, len(kept), ROWS_AT_ONCE):
        rows = kept[start : start + ROWS_AT_ONCE]
        columns: dict[str, Any] = {
            "event_id": [f"{name}-{row:09d}" for row in rows],
            "ts": times(start, len(rows)),
            "episode_id": [f"{name}-{number}" for number in trajectories.number[rows]],
            "step": trajectories.step[rows],
            "context": [_state(row) for row in state[rows].tolist()],
            "actions": [offered] * len(rows),
            "action_ids": [ids] * len(rows),
            "action_index": action[rows],
            "propensity": found["pscore"][rows],
            "reward": found["reward"][rows],
            "offset": rows,
        }
        yield complete(columns, len(rows))


def _trajectories(found: dict[str, Any], n: int) -> _Trajectories:
    ends = np.zeros(n, dtype=bool)
    for part in ("done", "terminal"):
        if part in found:
            check_shape(part, found[part].reshape(-1), (n,))
            ends |= numbers(part, found[part]).reshape(-1) != 0
    counted = one_number("n_trajectories", found["n_trajectories"], 1, n) if "n_trajectories" in found else None
    lengths = numbers("step_per_trajectory", found.get("step_per_trajectory", 0)).reshape(-1)
    if len(lengths) == 1 and counted is not None and counted * lengths[0] == n:
        _check_filled_up(ends, counted)
        lengths = np.full(counted, n // counted)
    elif len(lengths) == 1:
        # One length that does not fit: the trajectories are as long as their ends say, and nothing fills them up.
        lengths = _between(ends, found, n)
    else:
        lengths = whole_numbers("step_per_trajectory", lengths, n + 1)
    if lengths.sum() != n:
        raise FieldError("step_per_trajectory", wanted=f"lengths that make {n}, the rows", got=int(lengths.sum()))
    if counted is not None and len(lengths) != counted:
        raise FieldError("n_trajectories", wanted=f"{len(lengths)}, as many as end, or left out", got=counted)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    # A step counts until an earlier one of its trajectory was the last.
    ended = np.cumsum(ends) - ends
    kept = ended == ended[starts] if n else np.zeros(0, dtype=bool)
    return _Trajectories(np.repeat(np.arange(len(lengths)), lengths), np.arange(n) - starts, kept)


def _check_filled_up(ends: Any, trajectories: int) -> None:
    """Refuse trajectories of one length that end elsewhere: what comes after an end might be another episode."""
    open_ended = np.flatnonzero(~ends.reshape(trajectories, -1)[:, -1])
    if ends.any() and len(open_ended):
        wanted = "set at the end of every trajectory, or step_per_trajectory left out, where done alone ends episodes"
        raise FieldError(f"trajectory {open_ended[0]}: done", wanted=wanted, got=0)


def _between(ends: Any, found: dict[str, Any], n: int) -> Any:
    """Return the lengths of trajectories that end where `ends` says; the last one may have no end."""
    if "done" not in found and "terminal" not in found:
        wanted = "an array that says where episodes of unequal lengths end, or step_per_trajectory with their lengths"
        raise FieldError("done", wanted=wanted, got=None)
    last = np.flatnonzero(ends) + 1
    return np.diff(np.concatenate([[0], last, [n] if not len(last) or last[-1] < n else []]).astype(np.int64))


def _state(row: list[float]) -> str:
    return msgspec.json.encode({f"s{column}": value for column, value in enumerate(row)}).decode()


def find(path: Path | None, name: str) -> list[Found]:
    """Return the log in the npz file `path`."""
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    left_out = Counter[Reason]()
    return [Found(name, path.name, read_scope_rl(path, name=name, left_out=left_out), left_out=lambda: left_out)]


FORMAT = Format(find)
