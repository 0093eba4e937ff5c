"""A model file of VW cannot make VW do what it was not told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.files.vw_head import MODEL_FILE, check_head
from decision.oracles.vw import VwOracle, VwSettings
from tests.strategies import interactions_of


def murmur(data: bytes, seed: int) -> int:
    """Return MurmurHash3 of 32 bits (Appleby 2008), by which VW finds its head damaged."""
    mask, h = 0xFFFFFFFF, seed

    def mixed(k: int) -> int:
        k = k * 0xCC9E2D51 & mask
        return (k << 15 | k >> 17) * 0x1B873593 & mask

    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        h ^= mixed(int.from_bytes(data[at : at + 4], "little"))
        h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & mask
    h ^= mixed(int.from_bytes(data[whole:], "little")) ^ len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ h >> shift) * factor & mask
    return h ^ h >> 16


def with_options(model: bytes, more: bytes) -> bytes:
    """Return the model with more options in its head, and the checksum that fits."""
    start = model.index(b" --")
    end = model.index(b"\0", start) + 1
    options = model[start : end - 1] + more + b"\0"
    at = int.from_bytes(model[:4], "little") + 4
    sizes = (4, 1, 1, 4, 4, 4, 4, 4, 4)  # what stands between VW's version and the options
    fields, place = list[bytes](), at
    for size in sizes:
        fields.append(model[place : place + size])
        place += size
    fields += [len(options).to_bytes(4, "little"), options]
    checksum = 0
    for field in fields:
        checksum = murmur(field, checksum)
    return model[:at] + b"".join(fields) + (4).to_bytes(4, "little") + checksum.to_bytes(4, "little") + model[end + 8 :]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    oracle = VwOracle(VwSettings(l2=1e-6))
    oracle.fit(interactions_of(np.random.default_rng(4), 50))
    return oracle.save()


def test_a_head_made_here_is_one_that_vw_takes(files: dict[str, bytes]) -> None:
    assert with_options(files[MODEL_FILE], b"") == files[MODEL_FILE]
    data = interactions_of(np.random.default_rng(5), 20).batch
    more = {**files, MODEL_FILE: with_options(files[MODEL_FILE], b" --power_t 0.5")}  # VW checks the sum
    assert np.array_equal(VwOracle.load(more).predict(data), VwOracle.load(files).predict(data))


@pytest.mark.parametrize(
    "option",
    ["--final_regressor", "-f", "--readable_model", "--predictions", "--cache_file", "--initial_regressor", "--data"],
)
def test_a_model_that_names_a_file_is_refused_and_the_file_is_not_touched(
    option: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    changed = with_options(files[MODEL_FILE], f" {option} {target}".encode())
    with pytest.raises(FieldError, match="no other options"):
        VwOracle.load({**files, MODEL_FILE: changed})
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_text() == "mine"


@pytest.mark.parametrize("more", [b" --daemon", b" --link=logistic", b" --quadratic a;b", b" --l2 /tmp/x", b" x"])
def test_options_that_ours_never_have_are_refused(more: bytes, files: dict[str, bytes]) -> None:
    with pytest.raises(FieldError, match=MODEL_FILE):
        check_head(MODEL_FILE, with_options(files[MODEL_FILE], more), VwSettings().bits)


def test_a_table_of_another_size_and_a_torn_head_are_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(FieldError, match=r"2\^19 weights"):
        check_head(MODEL_FILE, files[MODEL_FILE], 19)
    for length in range(60):
        with pytest.raises(FieldError, match=MODEL_FILE):
            check_head(MODEL_FILE, files[MODEL_FILE][:length], VwSettings().bits)
