"""Text models of LightGBM that somebody changed: what could lead the library astray is refused before it reads it."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.files.lightgbm_text import checked
from decision.oracles.gradient_boosting import MODEL_FILE, GradientBoostingOracle, GradientBoostingSettings
from tests.strategies import interactions_of

MUTANTS = 500
NUMBERS = (
    b"-1",
    b"0",
    b"1",
    b"2",
    b"3",
    b"99",
    b"-99",
    b"2147483647",
    b"-2147483648",
    b"9" * 30,
    b"1e308",
    b"nan",
    b"",
)


def files_of(rounds: int = 3, leaves: int = 7, seed: int = 5) -> dict[str, bytes]:
    oracle = GradientBoostingOracle(GradientBoostingSettings(rounds=rounds, leaves=leaves, rows_per_leaf=5))
    oracle.fit(interactions_of(np.random.default_rng(seed), 200))
    return oracle.save()


def mutant(text: bytes, draw: random.Random) -> bytes:
    """Return a text with one to three changes: bytes, numbers, lines, or numbers that change places, sizes mended."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        lines, at = text.split(b"\n"), draw.randrange(len(text))
        trees = [number for number, line in enumerate(lines) if re.match(rb"[a-z_]+=-?\d", line)]
        line = draw.choice(trees) if trees else 0
        match draw.randrange(8):
            case 0:
                text = text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :]
            case 1:
                text = text[: at + 1] + text[at + draw.randrange(2, 40) :]
            case 2:
                text = text[: at + 1]
            case 3:
                lines.insert(draw.randrange(len(lines)), lines[line])
                text = b"\n".join(lines)
            case 4:
                del lines[line]
                text = b"\n".join(lines)
            case _:
                key, _, value = lines[line].partition(b"=")
                words = value.split(b" ")
                other = draw.randrange(len(words))
                if draw.random() < 0.5:
                    words[other] = draw.choice(NUMBERS)
                else:
                    draw.shuffle(words)
                lines[line] = key + b"=" + b" ".join(words)
                text = mended(b"\n".join(lines))
    return text


def mended(text: bytes) -> bytes:
    """Return a text whose head says how long its trees are, as one would who means harm."""
    trees = re.findall(rb"Tree=.*?\n\n\n", text, re.DOTALL)
    sizes = b" ".join(b"%d" % len(tree) for tree in trees)
    return re.sub(rb"tree_sizes=.*", b"tree_sizes=" + sizes, text, count=1)


def loaded(seed: int, count: int) -> int:
    """Load so many mutants, decide by those that load, and return how many did."""
    files, draw, found = files_of(), random.Random(seed), 0
    batch = interactions_of(np.random.default_rng(1), 20).batch
    for _ in range(count):
        try:
            oracle = GradientBoostingOracle.load(files | {MODEL_FILE: mutant(files[MODEL_FILE], draw)})
        except FieldError as error:
            if error.field != MODEL_FILE:
                raise
        else:
            found += 1
            assert np.isfinite(oracle.predict(batch)).all()
            assert oracle.save()[MODEL_FILE]
    return found


def test_no_mutated_model_ends_the_process_that_loads_it() -> None:
    """The process is this one. Some mutants reach the library, most are refused before."""
    assert MUTANTS // 50 < loaded(11, MUTANTS) < MUTANTS // 2


def changed(text: bytes, key: bytes, value: bytes) -> bytes:
    """Return a text in whose first tree a line says something else."""
    begun = text.index(b"Tree=0")
    return text[:begun] + mended(re.sub(rb"(?m)^%s=.*$" % key, key + b"=" + value, text[begun:], count=1))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (b"left_child", b"1 0 -3", "a node above itself|nobody's child"),
        (b"left_child", b"1 -1 -1", "nobody's child"),
        (b"right_child", b"-2 -3 7", "nobody's child"),
        (b"right_child", b"-2 -3", "must have 3 values, has 2"),
        (b"split_feature", b"0 1 900", "beyond the"),
        (b"split_feature", b"0 -1 1", "beyond the"),
        (b"decision_type", b"2 3 2", "not by a number"),
        (b"decision_type", b"2 2 99999999999", "'decision_type'"),
        (b"num_cat", b"1", "num_cat=0"),
        (b"num_leaves", b"5", "must have 4 values, has 3"),
        (b"num_leaves", b"2000000", "a tree of 2000000 leaves"),
        (b"leaf_value", b"1 1 1 1e+200", "a leaf of more than"),
        (b"leaf_value", b"1 1 1 nan", "'leaf_value'"),
        (b"is_linear", b"1", "is_linear=0"),
    ],
)
def test_a_tree_that_is_none_is_refused_by_what_is_wrong_with_it(key: bytes, value: bytes, says: str) -> None:
    text = b"\n".join([*HEAD, *TREE, b"", b"", b"end of trees", b""])
    checked("file", sized(text), 2)
    with pytest.raises(FieldError, match=says):
        checked("file", sized(changed(text, key, value)), 2)


HEAD = b"""tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=cross_entropy
feature_names=Column_0 Column_1
feature_infos=[0:1] none
tree_sizes=0
""".split(b"\n")
TREE = b"""Tree=0
num_leaves=4
num_cat=0
split_feature=0 1 0
split_gain=3 2 inf
threshold=0.5 1e-35 0.25
decision_type=2 8 10
left_child=1 2 -1
right_child=-2 -3 -4
leaf_value=-1 0.5 1e-7 2
leaf_weight=1 1 1 1
leaf_count=9 8 7 6
internal_value=0 0 0
internal_weight=3 2 1
internal_count=30 20 10
is_linear=0
shrinkage=0.03""".split(b"\n")


def sized(text: bytes) -> bytes:
    return mended(text)


def test_a_tree_whose_nodes_lead_back_to_themselves_is_refused() -> None:
    text = b"\n".join([*HEAD, *TREE, b"", b"", b"end of trees", b""])
    circle = changed(changed(text, b"left_child", b"-1 1 2"), b"right_child", b"-2 -3 -4")
    with pytest.raises(FieldError, match="a node above itself"):
        checked("file", sized(circle), 2)


@pytest.mark.parametrize("size", [0, -1, 1, 1 << 30])
def test_a_size_that_is_not_the_trees_is_refused(size: int) -> None:
    text = sized(b"\n".join([*HEAD, *TREE, b"", b"", b"end of trees", b""]))
    with pytest.raises(FieldError, match="bytes, the head says"):
        checked("file", re.sub(rb"tree_sizes=.*", b"tree_sizes=%d" % size, text), 2)


@pytest.mark.parametrize(
    "line", ["[num_machines: 2]", "[machine_list_filename: list]", "[device_type: cuda]", "x" * 99]
)
def test_what_a_file_says_after_its_trees_never_reaches_the_library(line: str) -> None:
    files = files_of()
    text = files[MODEL_FILE].decode()
    oracle = GradientBoostingOracle.load(
        files | {MODEL_FILE: text.replace("parameters:\n", f"parameters:\n{line}\n").encode()}
    )
    assert oracle.save() == files


def test_a_model_of_a_former_release_loads_with_its_parameters_left_out() -> None:
    """Its text ends as LightGBM writes it."""
    files = files_of()
    import lightgbm

    whole = lightgbm.Booster(model_str=files[MODEL_FILE].decode()).model_to_string()
    assert "feature_importances:\nColumn_" in whole
    old = GradientBoostingOracle.load(files | {MODEL_FILE: whole.encode()})
    assert old.save() == files


@pytest.mark.parametrize(("rounds", "leaves"), [(1, 2), (40, 31)])
def test_models_that_boost_on_or_have_one_leaf_load_with_the_same_bytes(rounds: int, leaves: int) -> None:
    told = interactions_of(np.random.default_rng(rounds), 150)
    alike = interactions_of(np.random.default_rng(2), 150)
    alike.reward[:] = 1.0  # nothing to split by
    for first, second in ((told, told), (told, alike), (alike, told), (alike, alike)):
        oracle = GradientBoostingOracle(GradientBoostingSettings(rounds=rounds, leaves=leaves, rows_per_leaf=3))
        for given in (first, second):
            oracle.fit(given)
            again = GradientBoostingOracle.load(oracle.save())
            assert again.save() == oracle.save()
            assert np.array_equal(again.predict(told.batch), oracle.predict(told.batch))
        again.fit(first)
        oracle.fit(first)
        assert again.save() == oracle.save()
