"""Model files of VW that somebody changed: what could lead VW astray is refused before it reads it."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.adf.oracle import AdfOracle
from decision.oracles.files.vw_head import MODEL_FILE, read_head
from decision.oracles.vw import VwOracle, VwSettings
from decision.protocols import Oracle
from tests.decision.oracles.test_vw_file import mended
from tests.strategies import interactions_of
from tests.worlds.vw_models import PERSONALIZER, learned, personalizer_line

MUTANTS = 100
"""Of each kind of file; 200 in all."""
NUMBERS = (0, 1, 2, 255, 256, 1023, 1024, 1 << 16, 1 << 24, 1 << 30, 0x7F800000, 0x7FC00000, 0x7FFFFFFF, 0x80000000)
SIZES = (0xFFFFFFFF, 1 << 40, 0x7FF0000000000000, 0xFFFFFFFFFFFFFFFF)
LOADERS = {"own": VwOracle.load, "brought": AdfOracle.load}


def files_of(kind: str, folder: Path) -> dict[str, bytes]:
    if kind == "brought":
        lines = [personalizer_line(random.Random(seed)) for seed in range(60)]
        return AdfOracle(learned(lines, f"{PERSONALIZER} -b 10", folder)).save()
    oracle = VwOracle(VwSettings(bits=10))
    oracle.fit(interactions_of(np.random.default_rng(5), 100))
    return oracle.save()


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Return a file with one to three changes: bits, bytes, numbers, a part cut out or put in, an end that is missing.

    Of three files two have a checksum that fits, as one would make it who means harm.
    """
    head = read_head(MODEL_FILE, data).size
    some = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if not some:
            break
        at = draw.randrange(min(len(some), head + 160) if draw.random() < 0.7 else len(some))
        match draw.randrange(7):
            case 0:
                some[at] ^= 1 << draw.randrange(8)
            case 1:
                some[at] = draw.randrange(256)
            case 2:
                some[at : at + 4] = struct.pack("<I", draw.choice(NUMBERS))
            case 3:
                some[at : at + 8] = struct.pack("<Q", draw.choice(SIZES))
            case 4:
                del some[at : at + draw.randrange(1, 40)]
            case 5:
                some[at:at] = draw.randbytes(draw.randrange(1, 40))
            case _:
                del some[at:]
    return bytes(some) if draw.random() < 1 / 3 else mended(bytes(some))


def outcomes(kind: str, files: dict[str, bytes], numbers: range, seed: int) -> Counter[str]:
    """Load the mutants of these numbers and decide by those that load: in this process, which some may end."""
    batch, found = interactions_of(np.random.default_rng(1), 5).batch, Counter[str]()
    for number in numbers:
        changed = mutant(files[MODEL_FILE], random.Random(f"{seed}:{number}"))
        try:
            oracle: Oracle = LOADERS[kind](files | {MODEL_FILE: changed})
        except FieldError as error:
            if MODEL_FILE not in error.field:
                raise
            found["refused by VW" if isinstance(error.__cause__, RuntimeError) else "refused before"] += 1
        else:
            assert np.isfinite(oracle.predict(batch)).all(), f"mutant {number}"
            assert oracle.save()[MODEL_FILE]
            found["loaded"] += 1
    return found


def child(
    kind: str, files: dict[str, bytes], numbers: range, seed: int, told: multiprocessing.SimpleQueue[object]
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # VW says more of each than anybody reads
    told.put(outcomes(kind, files, numbers, seed))


def apart(kind: str, files: dict[str, bytes], numbers: range, seed: int) -> Counter[str]:
    """Return the outcomes in a process of its own, with its end where it was a signal."""
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=child, args=(kind, files, numbers, seed, told))
    process.start()
    process.join()
    if process.exitcode != 0:
        return Counter({f"{kind}, {numbers}: ended by {process.exitcode}": 1})
    return told.get()


@pytest.mark.parametrize("kind", LOADERS)
def test_no_mutated_model_ends_the_process_that_loads_it(kind: str, tmp_path: Path) -> None:
    found = apart(kind, files_of(kind, tmp_path), range(MUTANTS), 11)
    assert found.keys() <= {"loaded", "refused before", "refused by VW"}
    assert found.total() == MUTANTS
    assert MUTANTS // 10 < found["loaded"] < MUTANTS // 2
    assert found["refused before"] > 2 * found["refused by VW"]
