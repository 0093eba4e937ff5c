"""A model that VW's users bring along decides as it did with VW, and goes on learning as it would there."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.columns import joined
from decision.errors import FieldError
from decision.oracles.action_ids import with_ids
from decision.oracles.adf.oracle import SETTINGS_FILE, AdfOracle, AdfSettings
from decision.oracles.factory import load_oracle
from decision.oracles.files.vw_head import MODEL_FILE
from decision.ragged import ragged_offsets
from tests.decision.oracles.test_vw_file import parts, whole, with_options, with_text
from tests.worlds.vw_models import PERSONALIZER, asked, costs, learned, personalizer_line, plain_line

LINES = [personalizer_line(random.Random(seed)) for seed in range(120)]
PLAIN = [plain_line(random.Random(seed)) for seed in range(120)]


def near(scores: list[float]) -> Any:
    """VW adds up in single precision, and a flattened request has some features in another order."""
    return pytest.approx(scores, abs=1e-6)


def many(lines: list) -> Batch:
    each = [asked(line) for line in lines]
    ids = [name for batch in each for name in batch.action_ids]
    sizes = np.array([len(batch.action_ids) for batch in each])
    contexts, actions = (joined(getattr(batch, side) for batch in each) for side in ("contexts", "actions"))
    return Batch(contexts, actions, ids, ragged_offsets(sizes))


def logged(lines: list, weight: list[float] | None = None) -> Interactions:
    batch = many(lines)
    chosen = batch.offsets[:-1] + np.array([line["_labelIndex"] for line in lines])
    propensity = np.array([line["_label_probability"] for line in lines])
    pmf = np.repeat(propensity, np.diff(batch.offsets))
    reward = np.array([-line["_label_cost"] for line in lines])
    return Interactions(batch, chosen, propensity, reward, pmf, None if weight is None else np.array(weight))


@pytest.mark.parametrize(
    "arguments",
    [
        PERSONALIZER,
        "--cb_adf -b 12 --noconstant --interactions Fij --ignore_linear Fp",
        "--cb_explore_adf --chain_hash --quadratic Fj --cubic Fij --l1 1e-5 --keep F --keep j --keep i",
    ],
)
def test_scores_are_minus_the_costs_that_vw_predicts_for_the_same_lines(arguments: str, tmp_path: Path) -> None:
    model = learned(LINES[:80], arguments, tmp_path)
    wanted = [-cost for row in costs(model, LINES, tmp_path) for cost in row]
    assert len({round(score, 6) for score in wanted}) > 20
    assert AdfOracle(model).predict(many(LINES)) == near(wanted)


def test_lines_without_personalizers_shape_are_asked_as_they_stand(tmp_path: Path) -> None:
    model = learned(PLAIN[:80], "--cb_explore_adf -q GT -q G:", tmp_path)
    wanted = [-cost for row in costs(model, PLAIN, tmp_path) for cost in row]
    assert AdfOracle(model, AdfSettings(shape="plain")).predict(many(PLAIN)) == near(wanted)
    assert AdfOracle(model).predict(many(PLAIN)) != near(wanted)


def test_it_goes_on_learning_as_vws_driver_does_from_the_same_file(tmp_path: Path) -> None:
    model = learned(LINES[:60], PERSONALIZER, tmp_path)
    oracle = AdfOracle(model)
    oracle.fit(logged(LINES[60:]))
    (tmp_path / "before.vw").write_bytes(model)
    wanted = costs(learned(LINES[60:], f"-i {tmp_path / 'before.vw'}", tmp_path), LINES, tmp_path)
    found = load_oracle("vw", oracle.save()).predict(many(LINES))
    assert found == near([-cost for row in wanted for cost in row])
    assert found != near(AdfOracle(model).predict(many(LINES)).tolist())


def test_a_weight_counts_as_the_lines_that_the_logger_left_out(tmp_path: Path) -> None:
    model = learned(LINES[:60], PERSONALIZER, tmp_path)
    weights = [(0.5, 1.0, 4.0, 0.0)[at % 4] for at in range(60)]
    lines = [line | {"pdrop": 1 - 1 / w} for line, w in zip(LINES[60:], weights, strict=True) if w]
    oracle = AdfOracle(model)
    oracle.fit(logged(LINES[60:], weights))
    (tmp_path / "before.vw").write_bytes(model)
    wanted = costs(learned(lines, f"-i {tmp_path / 'before.vw'}", tmp_path), LINES, tmp_path)
    assert oracle.predict(many(LINES)) == near([-cost for row in wanted for cost in row])


def test_the_file_stays_as_it_came_until_something_is_learned_and_asking_changes_nothing(tmp_path: Path) -> None:
    model = learned(LINES[:60], PERSONALIZER, tmp_path)
    oracle = load_oracle("vw", {MODEL_FILE: model, SETTINGS_FILE: b"{}"})
    first = oracle.predict(many(LINES))
    assert oracle.predict(many(LINES)).tolist() == first.tolist()
    assert oracle.save()[MODEL_FILE] == model
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(oracle.predict, [many(LINES[:30])] * 8):
            assert found.tolist() == first[: found.size].tolist()


def test_the_ids_and_names_that_a_model_of_ours_would_read_change_nothing(tmp_path: Path) -> None:
    oracle = AdfOracle(learned(LINES, PERSONALIZER, tmp_path))
    batch = many(LINES[:1])
    assert oracle.predict(with_ids(batch)).tolist() == oracle.predict(batch).tolist()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--cb_explore_adf --squarecb", r"--squarecb: .*--epsilon"),
        ("--cb_explore_adf --bag 2", r"--bag: .*several models"),
        ("--cb_explore_adf --cover 3", "--cover"),
        ("--cb_adf --cb_type dr", r"--cb_type: must be mtr, is 'dr': import its log"),
        ("--cb_adf --ftrl", r"--ftrl: .*decision import dsjson"),
        ("--ccb_explore_adf", r"--cb_sample|--ccb_explore_adf: .*slots"),
    ],
)
def test_a_model_that_is_not_read_is_refused_by_the_option_and_told_what_to_do(
    arguments: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(FieldError, match=told):
        AdfOracle(learned(LINES[:5], arguments, tmp_path), name="m.vw")


@pytest.mark.parametrize(
    "option",
    [
        *(b" --final_regressor /tmp/x", b" -f x", b" --predictions x", b" --readable_model=x", b" --daemon"),
        *(b" --quadratic --daemon", b" --quadratic 'a b'", b" --quadratic a\\ b", b" --keep", b" --l2 1e400"),
        *(b" --epsilon 2", b" --epsilon nan", b" --hash /x", b" --epsilon_decay 1"),
    ],
)
def test_a_head_with_what_no_such_model_has_is_refused_before_vw_reads_it(option: bytes, tmp_path: Path) -> None:
    model = learned(LINES[:5], "--cb_explore_adf", tmp_path)
    with pytest.raises(FieldError, match=r"m\.vw"):
        AdfOracle(with_options(model, option), name="m.vw")


@pytest.mark.parametrize(
    "arguments",
    [
        *("--sgd", "--adaptive", "--normalized", "--invariant", "--sgd --normalized", "--adaptive --normalized"),
        *("--predict_only_model", "--id model-7", "--initial_weight 0.1 --l1 1e-4", "--initial_t 3 --random_seed 5"),
    ],
)
def test_every_layout_of_a_file_is_read_and_so_is_one_of_vw_8(arguments: str, tmp_path: Path) -> None:
    model = learned(LINES[:60], f"--cb_adf -b 10 {arguments}", tmp_path)
    wanted = [-cost for row in costs(model, LINES[:20], tmp_path) for cost in row]
    assert AdfOracle(model).predict(many(LINES[:20])) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    if "predict_only" not in arguments and "l1" not in arguments:  # of l1 the state is in the file since VW 9 alone
        fields, rest = parts(with_text(model, 0, b"8.11.0\0"))
        older = whole(fields, rest[: 16 + 1 + 112] + rest[16 + 1 + 112 + 16 :])
        assert AdfOracle(older).predict(many(LINES[:20])) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_interactions_of_many_namespaces_are_refused_for_each_prediction_makes_them(tmp_path: Path) -> None:
    model = learned(LINES[:5], "--cb_adf", tmp_path)
    AdfOracle(with_options(model, b" --interactions FiFj"))
    with pytest.raises(FieldError, match="at most 4 namespaces together"):
        AdfOracle(with_options(model, b" --interactions ::::::::"))


def test_a_table_that_is_too_large_a_torn_head_and_another_learner_are_refused(tmp_path: Path) -> None:
    large = learned(PLAIN[:3], "--cb_adf -b 25", tmp_path)
    with pytest.raises(FieldError, match=r"at most 2\^24 weights, is 2\^25"):
        AdfOracle(large)
    model = learned(LINES[:5], PERSONALIZER, tmp_path)
    for end in (0, 40, model.index(b"--cb_adf") + 20):
        with pytest.raises(FieldError, match="must be a VW model"):
            AdfOracle(model[:end])
    with pytest.raises(FieldError, match="a model of --cb_explore_adf or --cb_adf"):
        AdfOracle(learned(LINES[:5], "--quadratic Fj --noconstant --l2 0.1", tmp_path))
