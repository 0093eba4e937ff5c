"""Evaluation of a frame: whatever holds the columns, the answer is that of the arrays in it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from decision import ope
from decision.errors import FieldError, SupportError
from decision.ope.arrays import evaluate

N = 1_500
LOGGING = np.array([0.5, 0.3, 0.2])
IDS = ["tea", "coffee", "milk"]
rng = np.random.default_rng(11)
DRAWN = rng.choice(3, p=LOGGING, size=N)
REWARD = (rng.random(N) < np.array([0.2, 0.5, 0.4])[DRAWN]).astype(float)
POLICY = rng.dirichlet([4.0, 6.0, 5.0], size=N)
ARRAYS = evaluate(action=DRAWN, propensity=LOGGING[DRAWN], reward=REWARD, policy=POLICY)


def columns() -> dict[str, Any]:
    return {
        "action": DRAWN,
        "propensity": LOGGING[DRAWN],
        "reward": REWARD,
        "policy": list(POLICY),
        **{name: POLICY[:, place] for place, name in enumerate(IDS)},
        "bought": [IDS[place] for place in DRAWN],
        "offered": [IDS] * N,
    }


def test_every_kind_of_frame_gives_the_answer_of_its_arrays() -> None:
    for frame in (columns(), pa.table({**columns(), "policy": POLICY.tolist()}), pd.DataFrame(columns())):
        assert ope.evaluate(frame).results == ARRAYS
        assert ope.evaluate(frame, policy=IDS, action="bought").results == ARRAYS
        assert ope.evaluate(frame, policy=POLICY, action="bought", actions="offered").results == ARRAYS
        assert ope.evaluate(frame, policy=POLICY, action="bought", actions=IDS).results == ARRAYS


def test_what_exports_arrow_streams_is_a_frame() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.table(columns()).__arrow_c_stream__(requested_schema)

    assert ope.evaluate(Stream()).results == ARRAYS


def test_the_answer_is_a_frame_of_the_kind_that_came() -> None:
    found = ope.evaluate(pd.DataFrame(columns())).frame
    assert isinstance(found, pd.DataFrame)
    rows = found.set_index("estimator")
    for name, estimate in {"logged": ARRAYS.logged, "lift": ARRAYS.lift, **ARRAYS.estimates}.items():
        assert estimate is not None
        assert rows.loc[name, ["value", "low", "high", "ess"]].tolist() == [
            estimate.value,
            estimate.low,
            estimate.high,
            estimate.ess,
        ]
        assert rows.loc[name, "warnings"] == "; ".join(estimate.reasons)
    assert rows.index[rows["first"]].tolist() == [ARRAYS.recommended]
    assert isinstance(ope.evaluate(pa.table(columns())).frame, pa.Table)


def test_sets_of_actions_may_differ_from_row_to_row() -> None:
    sizes = rng.integers(2, 6, size=400)
    action = rng.integers(sizes)
    policy = [rng.dirichlet(np.ones(size)) for size in sizes]
    offered = [[f"i{row}-{place}" for place in range(size)] for row, size in enumerate(sizes)]
    frame = {
        "action": [ids[place] for ids, place in zip(offered, action, strict=True)],
        "propensity": 1 / sizes,
        "reward": rng.random(400),
        "policy": policy,
        "offered": offered,
        "logging": [np.full(size, 1 / size) for size in sizes],
    }
    found = ope.evaluate(frame, actions="offered", logging="logging")
    wanted = evaluate(
        action=action,
        propensity=1 / sizes,
        reward=frame["reward"],
        policy=np.concatenate(policy),
        logging=np.repeat(1 / sizes, sizes),
        offsets=np.concatenate(([0], np.cumsum(sizes))),
    )
    assert found.results == wanted


@pytest.mark.parametrize(
    ("changes", "options", "field"),
    [
        ({}, {"reward": "rewards"}, "reward"),
        ({"policy": list(1.1 * POLICY)}, {}, "policy, row 0"),
        ({"policy": [*POLICY[:-1], np.array([1.5, -0.5, 0.0])]}, {}, f"policy, row {N - 1}"),
        ({"logging": [[0.5, 0.3, 0.3]] * N}, {"logging": "logging"}, "logging, row 0"),
        ({"reward": [None] + [1.0] * (N - 1)}, {}, "reward"),
        ({"reward": ["much"] * N}, {}, "reward"),
        ({"propensity": np.full(N, np.inf)}, {}, "propensity"),
        ({}, {"policy": "tea"}, "tea"),
        ({}, {"policy": []}, "policy"),
        ({}, {"policy": POLICY[:-1]}, "policy"),
        ({}, {"logging": IDS[:2]}, "logging"),
        ({}, {"action": "bought"}, "actions"),
        ({"bought": ["beer"] * N}, {"action": "bought", "actions": IDS}, "bought, row 0"),
        ({}, {"action": "bought", "actions": IDS[:2]}, "actions, row 0"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], options: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as told:
        ope.evaluate({**columns(), **changes}, **options)
    assert told.value.field == field


def test_probabilities_of_three_digits_are_probabilities() -> None:
    frame = {**columns(), "policy": list(np.round(POLICY, 3)), "logging": [[0.333, 0.333, 0.333]] * N}
    found, whole = ope.evaluate(frame, logging="logging").results, ARRAYS
    assert found.logged == whole.logged
    assert found.estimates["snips"].value == pytest.approx(whole.estimates["snips"].value, abs=2e-3)


def test_a_frame_that_is_empty_mixed_or_lacks_a_column_says_so_in_words() -> None:
    frame = pd.DataFrame(columns()).drop(columns="policy")
    with pytest.raises(SupportError, match="the frame has no rows"):
        ope.evaluate(frame[:0], policy=IDS)
    with pytest.raises(FieldError, match=r"frame: must be columns of one kind each, is .*column reward"):
        ope.evaluate(frame.assign(reward=["much", *REWARD[1:]]), policy=IDS)
    with pytest.raises(
        FieldError, match=r"reward: must be the name of a column \(there are .*'offered'\), is 'reward'"
    ):
        ope.evaluate(frame.drop(columns="reward"), policy=IDS)


def test_a_refused_log_has_no_numbers_in_its_frame() -> None:
    found = ope.evaluate({**columns(), "propensity": LOGGING[DRAWN] / 3})
    rows = found.frame.to_pylist()
    assert [row["estimator"] for row in rows if row["value"] is not None] == ["logged"]
    assert "mean weight" in rows[1]["warnings"]


def test_feedback_of_the_open_bandit_pipeline_gives_the_same_numbers() -> None:
    feedback = {"n_rounds": N, "n_actions": 3, "action": DRAWN, "reward": REWARD, "pscore": LOGGING[DRAWN]}
    found = ope.evaluate_feedback({**feedback, "position": None}, POLICY[:, :, None], alpha=0.05)
    estimate = ARRAYS.estimates["snips"]
    assert estimate is not None
    assert found["snips"]["mean"] == estimate.value
    assert found["snips"]["95.0% CI (upper)"] == estimate.high
    # The policy at the position that was shown is the one that counts.
    position = rng.integers(2, size=N)
    both = np.stack([POLICY, POLICY[:, ::-1]], axis=2)
    both[position == 1] = both[position == 1][:, :, ::-1]
    assert ope.evaluate_feedback({**feedback, "position": position}, both) == found
    for broken, field in (
        ({**feedback, "pscore": None}, "bandit_feedback.pscore"),
        (feedback, "bandit_feedback.position"),
        ({**feedback, "position": position + 1}, "bandit_feedback.position"),
    ):
        with pytest.raises(FieldError) as told:
            ope.evaluate_feedback(broken, both)
        assert told.value.field == field


def test_the_package_is_imported_without_frames() -> None:
    code = "import sys; import decision.ope.estimate; print(sorted({'pandas', 'pyarrow'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
