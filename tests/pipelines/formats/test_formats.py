from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from decision.errors import FieldError
from pipelines.formats.minari import read_minari
from pipelines.formats.obp import read_obp, write_obp
from pipelines.formats.scope_rl import read_scope_rl
from pipelines.formats.store import load_import, save_import
from pipelines.interactions.arrays import to_interactions
from pipelines.settings import load_settings

FEEDBACK: dict[str, Any] = {
    "n_rounds": 3,
    "n_actions": 2,
    "context": np.array([[0.5, 1.0], [0.0, -1.0], [2.0, 0.0]]),
    "action_context": np.array([[1.0], [3.0]]),
    "action": np.array([0, 1, 1]),
    "position": np.array([0, 1, 0]),
    "reward": np.array([1.0, 0.0, 1.0]),
    "pscore": np.array([0.25, 0.4, 0.75]),
    "pi_b": np.array([[[0.25, 0.9], [0.75, 0.1]], [[0.1, 0.6], [0.9, 0.4]], [[0.25, 0.5], [0.75, 0.5]]]),
}


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def imported(tmp_path: Path, rows: Any) -> pa.Table:
    settings = load_settings({}, home=str(tmp_path / "home"))
    save_import(settings, "given", rows, format="x", source="x")
    return load_import(settings, "given")


def test_obp_feedback_becomes_interactions_with_the_distribution_of_its_position(tmp_path: Path) -> None:
    rows = imported(tmp_path, read_obp(saved(tmp_path / "f.npz", FEEDBACK), name="f"))
    log = to_interactions(rows)
    assert log.pmf.tolist() == [0.25, 0.75, 0.6, 0.4, 0.25, 0.75]
    assert (log.chosen - log.batch.offsets[:-1]).tolist() == [0, 1, 1]
    assert log.reward.tolist() == [1.0, 0.0, 1.0]
    assert log.batch.contexts[1]["position=1"] == 1.0
    assert log.batch.contexts[0]["x0"] == 0.5
    assert log.batch.actions[1] == {"a0": 3.0}


def test_obp_feedback_comes_back_as_it_was(tmp_path: Path) -> None:
    plain = {name: FEEDBACK[name] for name in ("n_actions", "context", "action", "reward", "pscore")}
    plain["pi_b"] = np.array([[0.25, 0.75], [0.6, 0.4], [0.25, 0.75]])
    rows = imported(tmp_path, read_obp(saved(tmp_path / "f.npz", plain), name="f"))
    assert write_obp(rows, tmp_path / "back.npz") == (3, 0)
    with np.load(tmp_path / "back.npz", allow_pickle=False) as back:
        for name in ("n_actions", "context", "action", "reward", "pscore"):
            np.testing.assert_array_equal(back[name], plain[name])
        np.testing.assert_array_equal(back["pi_b"][:, :, 0], plain["pi_b"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"action": np.array([0, 1, 2])}, "row 2: action"),
        ({"action": np.array([0, 1, 0.5])}, "row 2: action"),
        ({"reward": np.array([1.0])}, "reward"),
        ({"context": np.ones((2, 2))}, "context"),
        ({"pi_b": np.ones((3, 3))}, "pi_b"),
        ({"n_actions": 0}, "n_actions"),
        ({"pscore": np.array([0.5, 0.5, {}], dtype=object)}, "pscore"),
    ],
)
def test_obp_feedback_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        list(read_obp(saved(tmp_path / "f.npz", {**FEEDBACK, **changes}), name="f"))
    assert caught.value.field == field


def test_what_is_no_npz_or_lacks_an_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(b"no archive")
    for path, field in ((tmp_path / "f.npz", "path"), (saved(tmp_path / "g.npz", {"action": np.ones(1)}), "n_actions")):
        with pytest.raises(FieldError) as caught:
            list(read_obp(path, name="f"))
        assert caught.value.field == field


LOGGED: dict[str, Any] = {
    "n_actions": 3,
    "n_trajectories": 2,
    "step_per_trajectory": 3,
    "action_type": "discrete",
    "state": np.arange(12.0).reshape(6, 2),
    "action": np.array([0, 1, 2, 2, 1, 0]),
    "reward": np.arange(6.0) / 10,
    "pscore": np.full(6, 0.5),
    "done": np.array([0, 1, 1, 0, 0, 1]),
}


def test_scope_rl_trajectories_end_where_they_are_done(tmp_path: Path) -> None:
    rows = imported(tmp_path, read_scope_rl(saved(tmp_path / "l.npz", LOGGED), name="l"))
    assert rows["episode_id"].to_pylist() == ["l-0", "l-0", "l-1", "l-1", "l-1"]
    assert rows["step"].to_pylist() == [0, 1, 0, 1, 2]
    assert rows["reward"].to_pylist() == [0.0, 0.1, 0.3, 0.4, 0.5]
    assert to_interactions(rows).batch.contexts[2] == {"s0": 6.0, "s1": 7.0}
    for changes, field in (
        ({"action_type": "continuous"}, "action_type"),
        ({"state": np.ones((5, 2))}, "state"),
        ({"done": np.ones(5)}, "done"),
    ):
        with pytest.raises(FieldError) as caught:
            list(read_scope_rl(saved(tmp_path / "x.npz", {**LOGGED, **changes}), name="l"))
        assert caught.value.field == field


def minari(folder: Path, infos: Any, space: Any) -> Path:
    """Write two episodes the way `minari.dataset._storages.arrow_storage` does."""
    data = folder / "shop-v0" / "data"
    for episode in range(2):
        steps = 2 + episode
        batch = pa.RecordBatch.from_pydict(
            {
                "episode_id": np.full(steps + 1, episode, dtype=np.int32),
                "observations": pa.FixedSizeListArray.from_arrays(pa.array(np.arange((steps + 1) * 2.0)), 2),
                "actions": pa.array([0, 1, 1, 0][: steps + 1], pa.int32()),
                "rewards": np.arange(steps + 1.0),
                "terminations": np.zeros(steps + 1, dtype=bool),
                "truncations": np.zeros(steps + 1, dtype=bool),
                "infos": infos(steps + 1),
            }
        )
        ds.write_dataset(
            batch, data, format="arrow", partitioning=["episode_id"], existing_data_behavior="overwrite_or_ignore"
        )
        (data / str(episode) / "metadata.json").write_text("{}")
    (data / "metadata.json").write_text(json.dumps({"action_space": json.dumps(space)}))
    return folder / "shop-v0"


@pytest.mark.parametrize("kind", ["texts", "struct"])
def test_minari_episodes_with_propensities_in_their_infos(tmp_path: Path, kind: str) -> None:
    def infos(n: int) -> Any:
        if kind == "texts":
            return pa.array([json.dumps({"propensity": 0.5})] * n)
        return pa.StructArray.from_arrays([pa.array([0.5] * n)], names=["propensity"])

    path = minari(tmp_path, infos, {"type": "Discrete", "n": 2, "start": 0})
    rows = imported(tmp_path, read_minari(path, name="m"))
    assert rows["episode_id"].to_pylist() == ["m-0"] * 2 + ["m-1"] * 3
    assert rows["reward"].to_pylist() == [0.0, 1.0, 0.0, 1.0, 2.0]
    assert rows["action_index"].to_pylist() == [0, 1, 0, 1, 1]
    assert to_interactions(rows).batch.contexts[1] == {"s0": 2.0, "s1": 3.0}


PROPENSITIES = {0: 0.25, 1: 0.75}


@pytest.mark.parametrize("none", [float("nan"), None, 0.0])
@pytest.mark.parametrize("at_reset", [True, False])
def test_minari_propensities_are_those_of_their_actions(tmp_path: Path, none: Any, at_reset: bool) -> None:
    """Minari's own collector puts what a step returned one row after the action, and what reset returned first."""

    def infos(n: int) -> Any:
        drawn: list[Any] = [PROPENSITIES[action] for action in [0, 1, 1, 0][: n - 1]]
        values = [none, *drawn] if at_reset else [*drawn, none]
        kind = pa.struct([("propensity", pa.list_(pa.float64(), 1))])
        return pa.array([{"propensity": [value]} for value in values], kind)

    path = minari(tmp_path, infos, {"type": "Discrete", "n": 2, "start": 0})
    rows = imported(tmp_path, read_minari(path, name="m"))
    assert rows["propensity"].to_pylist() == [PROPENSITIES[action] for action in rows["action_index"].to_pylist()]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1.0, 0.25, 0.75], r"^episode 0: infos\.propensity: must be NaN in the row of the reset"),
        ([None, 0.25, None], r"^episode 0: step 1: infos\.propensity"),
        ([0.25, 1.5, None], r"^episode 0: step 1: infos\.propensity: .* is 1\.5"),
    ],
)
def test_minari_propensities_that_might_be_of_another_action_are_refused(
    tmp_path: Path, values: list[Any], match: str
) -> None:
    def infos(n: int) -> Any:
        return pa.array([{"propensity": value} for value in [*values, *values][:n]])

    path = minari(tmp_path, infos, {"type": "Discrete", "n": 2, "start": 0})
    with pytest.raises(FieldError, match=match):
        list(read_minari(path, name="m"))


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"data_format": "hdf5"}, "data_format: must be arrow: write it again"),
        ({"total_steps": 9}, "total_steps: must be 5, the steps"),
        ({"action_space": "{"}, r"metadata\.json"),
        ({"action_space": {"type": "Discrete", "n": "two"}}, "action_space: must be 1 to"),
    ],
)
def test_minari_data_of_another_layout_or_in_part_is_named(
    tmp_path: Path, metadata: dict[str, Any], match: str
) -> None:
    path = minari(tmp_path, lambda n: pa.array([{"propensity": 0.5}] * n), {"type": "Discrete", "n": 2})
    told = json.loads((path / "data" / "metadata.json").read_text())
    (path / "data" / "metadata.json").write_text(json.dumps(told | metadata))
    with pytest.raises(FieldError, match=match):
        list(read_minari(path, name="m"))


def test_minari_files_that_are_damaged_are_named_by_their_episode(tmp_path: Path) -> None:
    path = minari(tmp_path, lambda n: pa.array([{"propensity": 0.5}] * n), {"type": "Discrete", "n": 2})
    (file,) = (path / "data" / "1").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(FieldError, match=r"^episode 1: rows: must be an Arrow file"):
        list(read_minari(path, name="m"))


def test_minari_without_propensities_or_with_other_actions_is_refused(tmp_path: Path) -> None:
    bare = minari(tmp_path, lambda n: pa.array(["{}"] * n), {"type": "Discrete", "n": 2})
    with pytest.raises(FieldError) as caught:
        list(read_minari(bare, name="m"))
    assert caught.value.field == "episode 0: step 0: infos.propensity"
    boxed = minari(tmp_path / "box", lambda n: pa.array(["{}"] * n), {"type": "Box"})
    with pytest.raises(FieldError) as caught:
        list(read_minari(boxed, name="m"))
    assert caught.value.field == "action_space"
    with pytest.raises(FieldError, match="Arrow layout"):
        list(read_minari(tmp_path, name="m"))
