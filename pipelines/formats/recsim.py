"""Episodes of RecSim (Ie et al., 2019) as its runner logs them: a TFRecord file with a `SequenceExample` an episode.

A step holds the user's observation, the candidates' (in the order of the slate's indices), the slate, the responses and
the reward; of several users, each has features of its own, with its number behind their names. Candidates become the
actions ``doc_0``, ``doc_1``, ..., whose features are what RecSim observed of them. Propensities are not logged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from decision.errors import FieldError, Words
from decision.records import MAX_ACTIONS
from pipelines.formats.npz import times
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file

MAX_EPISODE_BYTES = 64 << 20
_HEAD = struct.Struct("<QI")
"""Length of a record's data and its checksum; another checksum follows the data."""
_CHECKSUM_BYTES = 4


def find(path: Path | None, name: str, *, uniform: bool = False) -> list[Found]:
    """Return the log in the TFRecord file `path`.

    Args:
        path: of the file.
        name: of the import, and prefix of event, subject and episode ids.
        uniform: the log is of RecSim's random agent; of any other nothing can be estimated.

    Raises:
        FieldError: there is no such file, or the log is of another agent.
    """
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    check_file(path)
    if not uniform:
        says = "must be given: RecSim logs no propensities, so only a log of its random agent can be evaluated"
        raise FieldError("uniform", wanted="a log of the random agent", got=False, says=says)
    return [Found(name, path.name, _tables(path, name))]


def _tables(path: Path, name: str) -> Iterator[pa.Table]:
    done = 0
    for number, data in enumerate(_records(path)):
        steps = _episode(data, number)
        actions = _actions(steps, number)
        for user in sorted(_users(steps), key=lambda user: (len(user), user)):
            columns = _trajectory(steps, user, actions, f"episode {number}", f"{name}-{number}{user}")
            rows = len(columns["reward"])
            columns["offset"] = list(range(done, done + rows))
            yield complete(columns | {"ts": times(done, rows)}, rows)
            done += rows


def _trajectory(
    steps: Mapping[str, list[list[float]]], user: str, actions: list[str], place: str, episode: str
) -> dict[str, Any]:
    """Return the columns of a user's steps; `user` is what stands behind the names of its features."""
    seen, slates, rewards = (steps.get(f"{feature}{user}", []) for feature in ("user", "slate", "reward"))
    rows = len(slates)
    k = len(msgspec.json.decode(actions[0])) if actions else 0
    if not len(seen) == len(rewards) == len(actions) == rows:
        raise FieldError(f"{place}: slate{user}", wanted="as many as steps", got=rows)
    for step, slate in enumerate(slates):
        if len(slate) != 1:
            wanted = "one document: what a slate of several was paid for cannot be told apart"
            raise FieldError(f"{place}: step {step}: slate{user}", wanted=wanted, got=len(slate))
        if not 0 <= slate[0] < k:
            raise FieldError(f"{place}: step {step}: slate{user}", wanted=f"0 to {k - 1}", got=slate[0])
        if len(rewards[step]) != 1:
            raise FieldError(f"{place}: step {step}: reward{user}", wanted="one number", got=len(rewards[step]))
    return {
        "event_id": [f"{episode}-{step}" for step in range(rows)],
        "subject_id": [episode] * rows,
        "episode_id": [episode] * rows,
        "step": list(range(rows)),
        "context": [_features("user", row) for row in seen],
        "actions": actions,
        "action_ids": [[f"doc_{document}" for document in range(k)]] * rows,
        "action_index": [int(slate[0]) for slate in slates],
        "propensity": [1.0 / k] * rows,
        "reward": [row[0] for row in rewards],
    }


def _users(steps: Mapping[str, Any]) -> list[str]:
    """Return what stands behind the names of each user's features: nothing where there is one user."""
    return [name.removeprefix("slate") for name in steps if name == "slate" or name.startswith("slate_")]


def _actions(steps: Mapping[str, list[list[float]]], number: int) -> list[str]:
    """Return [steps] JSON of the candidates' features."""
    found = {int(name[4:]): rows for name, rows in steps.items() if name.startswith("doc_") and name[4:].isdecimal()}
    k = len(found)
    if not 1 <= k <= MAX_ACTIONS or sorted(found) != list(range(k)):
        raise FieldError(f"episode {number}: doc_0 ...", wanted=f"1 to {MAX_ACTIONS} documents", got=k)
    rows = len(found[0])
    if any(len(document) != rows for document in found.values()):
        raise FieldError(f"episode {number}: doc_0 ...", wanted="every document in every step", got=Words("fewer"))
    encoded = [[_features("doc", found[document][step]) for document in range(k)] for step in range(rows)]
    return [f"[{','.join(documents)}]" for documents in encoded]


def _features(prefix: str, values: list[float]) -> str:
    return msgspec.json.encode({f"{prefix}{column}": value for column, value in enumerate(values)}).decode()


def _episode(data: bytes, number: int) -> dict[str, list[list[float]]]:
    """Return {feature: its numbers, step by step} of a serialized `SequenceExample`."""
    from google.protobuf.message import DecodeError

    example = _sequence_example()()
    try:
        example.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise FieldError(f"episode {number}", wanted="a SequenceExample", got=error) from error
    lists = example.feature_lists.feature_list
    return {
        name: [
            list(feature.float_list.value) or list(map(float, feature.int64_list.value))
            for feature in lists[name].feature
        ]
        for name in lists
    }


def _records(path: Path) -> Iterator[bytes]:
    """Yield the data of a TFRecord file's records. Their checksums are not looked at: lengths and content are."""
    number = 0
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
            if not 0 < length <= MAX_EPISODE_BYTES:
                wanted = f"a TFRecord of 1 to {MAX_EPISODE_BYTES:,} bytes"
                raise FieldError(f"episode {number}", wanted=wanted, got=length)
            data = file.read(length)
            if len(data) < length or len(file.read(_CHECKSUM_BYTES)) < _CHECKSUM_BYTES:
                raise FieldError(f"episode {number}", wanted="a whole record", got=Words("a file that was cut"))
            yield data
            number += 1


@cache
def _sequence_example() -> Any:
    """Return the message class of TensorFlow's `SequenceExample`, as far as RecSim uses it."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sequence_example.proto", package="episodes", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, Any, str, bool], inside: Any = None) -> Any:
        made = (file.message_type if inside is None else inside.nested_type).add(name=name)
        for title, number, kind, of, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            made.field.add(name=title, number=number, type=kind, type_name=of or None, label=label)
        return made

    message("FloatList", ("value", 1, field.TYPE_FLOAT, "", True))
    message("Int64List", ("value", 1, field.TYPE_INT64, "", True))
    message(
        "Feature",
        ("float_list", 2, field.TYPE_MESSAGE, ".episodes.FloatList", False),
        ("int64_list", 3, field.TYPE_MESSAGE, ".episodes.Int64List", False),
    )
    message("FeatureList", ("feature", 1, field.TYPE_MESSAGE, ".episodes.Feature", True))
    lists = message(
        "FeatureLists", ("feature_list", 1, field.TYPE_MESSAGE, ".episodes.FeatureLists.FeatureListEntry", True)
    )
    entry = message(
        "FeatureListEntry",
        ("key", 1, field.TYPE_STRING, "", False),
        ("value", 2, field.TYPE_MESSAGE, ".episodes.FeatureList", False),
        inside=lists,
    )
    entry.options.map_entry = True
    message("SequenceExample", ("feature_lists", 2, field.TYPE_MESSAGE, ".episodes.FeatureLists", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("episodes.SequenceExample"))


FORMAT = Format(find)
