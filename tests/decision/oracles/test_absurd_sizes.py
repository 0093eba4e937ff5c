"""Model files whose numbers are absurd, with hashes that fit: each is refused by name, or is loaded as it is small."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.gradient_boosting import GradientBoostingOracle, GradientBoostingSettings
from decision.oracles.kind import OracleSettings
from decision.oracles.linear import LinearOracle
from decision.oracles.logistic import LogisticOracle
from decision.oracles.neural import MODEL_FILE, NeuralOracle, NeuralSettings
from decision.oracles.vw import VwOracle, VwSettings
from tests.decision.oracles.test_session import oracle as session_oracle
from tests.strategies import interactions_of

ABSURD = (-1, 1 << 31, 1 << 32, 1 << 62, 10**30, -1e300)
ROOM = 2 << 30
MADE = {
    "linear": LinearOracle,
    "logistic": LogisticOracle,
    "lightgbm": lambda: GradientBoostingOracle(GradientBoostingSettings(rounds=3)),
    "neural": lambda: NeuralOracle(NeuralSettings(hidden=4, steps=2)),
    "vw": lambda: VwOracle(VwSettings(bits=12)),
    "ensemble": lambda: new_oracle(OracleSettings(kind="logistic", bag=2, seed=4)),
}


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process take no more than 2 GiB beyond what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def files_of(kind: str) -> dict[str, bytes]:
    if kind == "session":
        return session_oracle().save()
    oracle = MADE[kind]()
    oracle.fit(interactions_of(np.random.default_rng(1), 60))
    return oracle.save()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a JSON value numbers stand; of a list the first and the last."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*path, name))
    elif isinstance(value, list):
        for at in sorted({0, len(value) - 1} if value else ()):
            yield from leaves(value[at], (*path, at))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def replaced(value: Any, path: tuple[Any, ...], number: float) -> Any:
    copy = json.loads(json.dumps(value))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = number
    return copy


@pytest.mark.parametrize("kind", [*MADE, "session"])
def test_absurd_numbers_of_a_model_file_are_refused_by_name(kind: str) -> None:
    files, tried = files_of(kind), 0
    load_oracle(kind, files)
    with little_memory():
        for name, data in files.items():
            if not name.endswith(".json"):
                continue
            told = json.loads(data)
            for path in leaves(told):
                for number in ABSURD:
                    changed = files | {name: json.dumps(replaced(told, path, number)).encode()}
                    tried += 1
                    try:
                        load_oracle(kind, changed)
                    except FieldError:
                        pass
                    except Exception as error:
                        raise AssertionError(f"{name} with {number} at {path}") from error
    assert tried >= len(ABSURD)


@pytest.mark.parametrize("shape", [[1 << 32, 1 << 32], [-1, -1], [1 << 62, 4], [0] * 1000])
def test_shapes_of_a_session_policy_that_overflow_are_refused(shape: list[int]) -> None:
    files = session_oracle().save()
    name = next(name for name in files if name.endswith(".json"))
    told = json.loads(files[name])
    for array in told["shapes"]:
        changed = told | {"shapes": told["shapes"] | {array: shape}}
        with pytest.raises(FieldError):
            load_oracle("session", files | {name: json.dumps(changed).encode()})


def archive_of(files: dict[str, bytes], elements: int, megabytes: int) -> bytes:
    """Return an archive of the layers' names: all say that they have so many elements, the first has megabytes of 0."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({elements},), }}".ljust(117).encode() + b"\n"
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(files[MODEL_FILE])) as known,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for number, name in enumerate(known.namelist()):
            with new.open(name, "w", force_zip64=True) as member:
                member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
                for _ in range(megabytes if number == 0 else 0):
                    member.write(bytes(1 << 20))
    return made.getvalue()


@pytest.mark.parametrize(("elements", "megabytes", "says"), [(1 << 25, 256, "at most"), (1 << 40, 0, "layers")])
def test_an_archive_that_is_far_more_than_it_holds_is_refused(elements: int, megabytes: int, says: str) -> None:
    files = files_of("neural")
    bomb = archive_of(files, elements, megabytes)
    assert len(bomb) < 1 << 20
    with little_memory(), pytest.raises(FieldError, match=says):
        load_oracle("neural", files | {MODEL_FILE: bomb})
