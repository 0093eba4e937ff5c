"""SCOPE-RL's logs: filled up to one length, as the library writes them, or of episodes as long as they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.registry import Reason
from pipelines.formats.scope_rl import find, read_scope_rl

# As SyntheticDataset.obtain_episodes of SCOPE-RL 0.2.1 returns it: trajectories of 4 steps, whose episodes are over
# after 4, 2 and 3 of them; `done` stays set, and is set on the last step of each.
DONE = np.array([[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1]], dtype=float)
LOGGED: dict[str, Any] = {
    "size": 12,
    "n_trajectories": 3,
    "step_per_trajectory": 4,
    "action_type": "discrete",
    "n_actions": 3,
    "action_dim": None,
    "action_meaning": None,
    "action_keys": None,
    "state_dim": 2,
    "state_keys": None,
    "state": np.arange(24.0).reshape(12, 2),
    "action": np.array([0, 1, 2, 2, 1, 0, 0, 0, 1, 2, 1, 0]),
    "reward": np.arange(12.0),
    "done": DONE.ravel(),
    "terminal": np.array([0, 0, 0, 1] * 3, dtype=float),
    "info": {"click": np.zeros(12)},
    "pscore": np.linspace(0.2, 0.75, 12),
    "behavior" + "_policy": "ddqn_epsilon_0.3",  # their word, which is not ours
    "dataset_id": 0,
}
ROWS = ("state", "action", "reward", "done", "terminal", "pscore")
WITHIN = np.flatnonzero((np.cumsum(DONE, axis=1) - DONE == 0).ravel())
UNEQUAL = {name: value[WITHIN] if name in ROWS else value for name, value in LOGGED.items()}


def read(folder: Path, log: dict[str, Any], left_out: Counter[Reason] | None = None) -> pa.Table:
    np.savez(folder / "l.npz", **log)
    return pa.concat_tables(read_scope_rl(folder / "l.npz", name="l", left_out=left_out))


def without(log: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in log.items() if name not in names}


def test_a_log_as_the_library_returns_it_ends_where_its_episodes_do(tmp_path: Path) -> None:
    left_out = Counter[Reason]()
    rows = read(tmp_path, LOGGED, left_out)
    assert rows["episode_id"].to_pylist() == ["l-0"] * 4 + ["l-1"] * 2 + ["l-2"] * 3
    assert rows["step"].to_pylist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert rows["reward"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0]
    assert left_out == {"after_the_end": 3}


@pytest.mark.parametrize(
    "log",
    [
        UNEQUAL,
        UNEQUAL | {"step_per_trajectory": None},
        without(UNEQUAL, "step_per_trajectory", "n_trajectories"),
        without(UNEQUAL, "terminal"),
        without(UNEQUAL, "done", "terminal") | {"step_per_trajectory": np.array([4, 2, 3])},
        without(UNEQUAL, "done") | {"terminal": UNEQUAL["done"]},
    ],
)
def test_episodes_of_unequal_lengths_are_the_episodes_of_the_filled_log(tmp_path: Path, log: dict[str, Any]) -> None:
    filled, unequal = read(tmp_path, LOGGED), read(tmp_path, log)
    for column in ("episode_id", "step", "context", "action_index", "propensity", "reward"):
        assert unequal[column].to_pylist() == filled[column].to_pylist()


def test_a_last_episode_may_have_no_end(tmp_path: Path) -> None:
    log = {name: value[:-1] if name in ROWS else value for name, value in UNEQUAL.items()}
    assert read(tmp_path, log)["episode_id"].to_pylist() == ["l-0"] * 4 + ["l-1"] * 2 + ["l-2"] * 2


@pytest.mark.parametrize(
    ("log", "match"),
    [
        (without(UNEQUAL, "done", "terminal"), "done: must be an array that says where"),
        (UNEQUAL | {"step_per_trajectory": np.array([4, 4, 4])}, "step_per_trajectory: must be lengths that make 9"),
        (UNEQUAL | {"step_per_trajectory": np.array([4.5, 2, 2.5])}, "step_per_trajectory: must be whole"),
        (UNEQUAL | {"n_trajectories": 2}, "n_trajectories: must be 3, as many as end"),
        # Nine rows are three by three as well, and nobody could tell a third of them from an episode.
        (UNEQUAL | {"step_per_trajectory": 3}, "trajectory 0: done: must be set at the end"),
        (UNEQUAL | {"n_trajectories": 0}, "n_trajectories"),
        (LOGGED | {"done": np.zeros(11)}, "done"),
        (LOGGED | {"n_actions": "3"}, "n_actions"),
        (LOGGED | {"pscore": None}, "pscore: .*None"),
        (LOGGED | {"action_type": "continuous", "action": np.ones((12, 2)), "n_actions": None}, "action_type"),
    ],
)
def test_lengths_that_do_not_fit_are_named(tmp_path: Path, log: dict[str, Any], match: str) -> None:
    with pytest.raises(FieldError, match=match):
        read(tmp_path, log)


def test_an_import_tells_of_the_steps_it_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", **LOGGED)
    (found,) = find(tmp_path / "l.npz", "l")
    assert sum(map(len, found.batches)) == 9
    assert found.left_out() == {"after_the_end": 3}
