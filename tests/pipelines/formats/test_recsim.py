"""RecSim's episodes: read from bytes in TensorFlow's format, of a world that RecSim itself plays."""

from __future__ import annotations

import importlib.util
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.recsim import find
from tests.parts import require

Steps = dict[str, list[Any]]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer, by the published wire format."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Any) -> bytes:
    values = np.asarray(values).ravel()
    if np.issubdtype(values.dtype, np.integer):
        return field(3, field(1, b"".join(varint(int(value)) for value in values)))
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def record(steps: Steps) -> bytes:
    """A TFRecord of a SequenceExample with these features, step by step."""
    lists = b"".join(
        field(1, field(1, name.encode()) + field(2, b"".join(field(1, feature(step)) for step in values)))
        for name, values in steps.items()
    )
    data = field(1, b"") + field(2, lists)
    return struct.pack("<QI", len(data), 0) + data + struct.pack("<I", 0)


def written(folder: Path, episodes: Iterable[Steps]) -> Path:
    path = folder / "episodes.tfrecord"
    path.write_bytes(b"".join(map(record, episodes)))
    return path


def played(episodes: int, seed: int) -> list[Steps]:
    """Episodes of RecSim's long-term satisfaction under a random agent, as its runner logs them."""
    require(importlib.util.find_spec("recsim"), "recsim-no-tf is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RecSim and its gym are older than this Python
        from recsim.environments import long_term_satisfaction as lts

        env: Any = lts.create_environment(
            {"slate_size": 1, "num_candidates": 5, "resample_documents": True, "seed": seed}
        )
        rng = np.random.default_rng(seed)
        found: list[Steps] = []
        for _ in range(episodes):
            seen, done, steps = env.reset(), False, Steps()
            while not done:
                slate = [int(rng.integers(5))]
                after, reward, done, _ = env.step(slate)
                row = {"user": np.asarray(seen["user"], float), "slate": slate, "reward": [float(reward)]}
                row |= {f"doc_{at}": np.asarray(document) for at, document in enumerate(seen["doc"].values())}
                for name, value in {**row, "is_terminal": [int(done)]}.items():
                    steps.setdefault(name, []).append(value)
                seen = after
            found.append(steps)
    return found


def test_a_session_comes_out_step_by_step_with_its_documents_and_an_even_propensity(tmp_path: Path) -> None:
    episodes = played(3, seed=5)
    (found,) = find(written(tmp_path, episodes), "lts", uniform=True)
    rows = pa.concat_tables(found.batches)
    assert len(rows) == sum(len(steps["reward"]) for steps in episodes)
    assert set(rows["propensity"].to_pylist()) == {0.2}
    assert rows["action_index"].to_pylist() == [slate[0] for steps in episodes for slate in steps["slate"]]
    wanted = [np.float32(reward[0]) for steps in episodes for reward in steps["reward"]]
    assert rows["reward"].to_pylist() == wanted
    assert rows["step"].to_pylist() == [at for steps in episodes for at in range(len(steps["reward"]))]
    assert len(set(rows["episode_id"].to_pylist())) == 3
    clickbait = msgspec.json.decode(rows["actions"][0].as_py())
    assert [document["doc0"] for document in clickbait] == [
        float(np.float32(episodes[0][f"doc_{at}"][0].item())) for at in range(5)
    ]


def test_several_users_of_an_episode_are_trajectories_of_their_own(tmp_path: Path) -> None:
    steps: Steps = {"doc_0": [[0.5], [0.5]], "doc_1": [[1.0], [1.0]], "is_terminal": [[0], [1]]}
    for user, slates in enumerate(([[0], [1]], [[1], [1]])):
        steps |= {f"user_{user}": [[0.1 * user], [2.0]], f"slate_{user}": slates, f"reward_{user}": [[user], [3]]}
    (rows,) = (pa.concat_tables(found.batches) for found in find(written(tmp_path, [steps]), "many", uniform=True))
    assert rows["subject_id"].to_pylist() == ["many-0_0"] * 2 + ["many-0_1"] * 2
    assert rows["action_index"].to_pylist() == [0, 1, 1, 1]
    assert rows["reward"].to_pylist() == [0.0, 3.0, 1.0, 3.0]
    assert rows["context"][3].as_py() == '{"user0":2.0}'


def test_a_log_of_another_agent_is_refused_because_nothing_can_be_estimated(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"uniform.*no propensities"):
        find(written(tmp_path, []), "lts")


ONE: Steps = {"user": [[1.0]], "doc_0": [[0.5]], "doc_1": [[0.7]], "slate": [[1]], "reward": [[2.0]]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"slate": [[0, 1]]}, "slate.*one document"),
        ({"slate": [[2]]}, "slate.*0 to 1"),
        ({"reward": [[]]}, "reward"),
        ({"reward": [[1.0], [1.0]]}, "as many as steps"),
        ({"doc_1": []}, "every document in every step"),
        ({"doc_1": [[0.7]], "doc_3": [[0.7]]}, "documents"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(tmp_path: Path, change: Steps, match: str) -> None:
    with pytest.raises(FieldError, match=match):
        list(find(written(tmp_path, [ONE, ONE | change]), "lts", uniform=True)[0].batches)


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_a_file_that_was_cut_or_is_no_tfrecord_is_refused(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, [ONE])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FieldError, match="episode 0"):
        list(find(path, "lts", uniform=True)[0].batches)
    path.write_bytes(bytes([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + b"\xff\xff\xff" + bytes(4))
    with pytest.raises(FieldError, match="SequenceExample"):
        list(find(path, "lts", uniform=True)[0].batches)
