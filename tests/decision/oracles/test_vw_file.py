"""A model file of VW cannot make VW do what it was not told."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.files.vw_body import check_body
from decision.oracles.files.vw_head import MODEL_FILE, check_head, read_head
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


def parts(model: bytes) -> tuple[list[bytes], bytes]:
    """Return the fields of a model's head, sizes of texts before them, and what comes after the checksum.

    Raises:
        ValueError: the head is torn.
    """
    fields, at = list[bytes](), 0

    def take(count: int) -> None:
        nonlocal at
        if at + count > len(model):
            raise ValueError("torn")
        fields.append(model[at : at + count])
        at += count

    def text() -> None:
        take(4)
        take(int.from_bytes(fields[-1], "little"))

    text()  # VW's version
    text()  # the model's name
    for size in (1, 4, 4, 4, 4, 4, 4):
        take(size)
    text()  # the options
    return fields, model[at + 8 :]


def whole(fields: list[bytes], rest: bytes) -> bytes:
    """Return the model of these parts, with the checksum that fits."""
    checksum = 0
    for field in fields[2:]:
        checksum = murmur(field, checksum)
    return b"".join(fields) + (4).to_bytes(4, "little") + checksum.to_bytes(4, "little") + rest


def mended(model: bytes) -> bytes:
    """Return the model with the checksum that fits, if it has a head."""
    try:
        return whole(*parts(model))
    except ValueError:
        return model


def with_text(model: bytes, which: int, text: bytes) -> bytes:
    """Return the model with another text in its head: VW's version, the model's name, the options (0, 1, -1)."""
    fields, rest = parts(model)
    place = (1, 3, len(fields) - 1)[which]
    fields[place - 1 : place + 1] = [len(text).to_bytes(4, "little"), text]
    return whole(fields, rest)


def with_options(model: bytes, more: bytes) -> bytes:
    """Return the model with more options in its head, and the checksum that fits."""
    return with_text(model, -1, parts(model)[0][-1][:-1] + more + b"\0")


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


@pytest.mark.parametrize("name", [b"x --final_regressor %s\0", b"--final_regressor\0", b"x\0--final_regressor\0", b"x"])
def test_a_name_that_would_be_read_as_options_is_refused_and_the_file_is_not_touched(
    name: bytes, files: dict[str, bytes], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    changed = with_text(files[MODEL_FILE], 1, name.replace(b"%s", bytes(target)))
    with pytest.raises(FieldError, match=r"one plain word|does not end"):
        VwOracle.load({**files, MODEL_FILE: changed})
    assert target.read_text() == "mine"
    plain = with_text(files[MODEL_FILE], 1, b"model-7\0")
    check_head(MODEL_FILE, plain, VwSettings().bits)


def test_options_that_do_not_end_are_refused_for_vw_would_read_on_in_its_memory(files: dict[str, bytes]) -> None:
    options = parts(files[MODEL_FILE])[0][-1]
    for text in (options[:-1], options + b"\0", b"\0" + options):
        with pytest.raises(FieldError, match="does not end where it must"):
            check_head(MODEL_FILE, with_text(files[MODEL_FILE], -1, text), VwSettings().bits)


@pytest.mark.parametrize("version", [b"7.8.0", b"8.0.2", b"10.0.0", b"9", b"9.11", b"9.11.9x", b"", b"99999999999.0.0"])
def test_a_release_of_vw_that_lays_heads_out_otherwise_is_refused(version: bytes, files: dict[str, bytes]) -> None:
    changed = with_text(files[MODEL_FILE], 0, version + b"\0")
    with pytest.raises(FieldError, match=r"read are 8\.0\.3 to 9"):
        check_head(MODEL_FILE, changed, VwSettings().bits)


def test_weights_that_are_none_or_out_of_place_and_a_state_that_is_none_are_refused(files: dict[str, bytes]) -> None:
    model, nan = files[MODEL_FILE], struct.pack("<f", np.nan)
    head = read_head(MODEL_FILE, model)
    check_body(MODEL_FILE, model, head)
    weights = head.size + 1 + 112 + 16
    for changed, says in [
        (model[: head.size] + b"\2" + model[head.size + 1 :], "whether it goes on learning"),
        (model[: head.size + 1] + nan + model[head.size + 5 :], "its state has a number that is none"),
        (model[: head.size + 40], "unpack_from requires"),
        (model[: weights - 16] + struct.pack("<d", -1e300) + model[weights - 8 :], "what l1 and l2 came to"),
        (model[: weights - 8] + struct.pack("<d", 0.0) + model[weights:], "what l1 and l2 came to"),
        (model[:-1], "ends within a weight"),
        (model[:-12] + nan + model[-8:], "a weight is no number"),
        (model[:-12] + struct.pack("<f", 1e30) + model[-8:], "a weight is no number"),
        (model[:-4] + nan, "beside a weight is no number"),
        (model[:-4] + struct.pack("<f", -1.0), "beside a weight is no number, or below 0"),
        (model[:-16] + b"\0\0\4\0" + model[-12:], r"a weight at 262144 of 2\^18"),
        (model[: weights + 16] + model[weights:], "out of order"),
    ]:
        with pytest.raises(FieldError, match=says):
            check_body(MODEL_FILE, changed, head)
    check_body(MODEL_FILE, model[:-4] + struct.pack("<f", np.inf), head)  # as VW has it where features are large
