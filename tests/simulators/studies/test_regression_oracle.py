from __future__ import annotations

import numpy as np
import pytest

from decision.exploration.rule import Exploration
from decision.options import DataRules
from pipelines.settings import LoopSettings
from pipelines.studies.regression_oracle import figures, sheets, summary
from simulators.studies.regression_oracle import DEFAULT, Gate, Task, Trace, figures_of, gate_of, run


def test_default_of_the_study_is_what_a_loop_ships_with() -> None:
    loop = LoopSettings(name="x")
    assert DEFAULT.kind == loop.policy.oracle
    assert DEFAULT.rules == DataRules(**{name: getattr(loop.training, name) for name in DataRules.__struct_fields__})
    shipped = Exploration(
        kind=loop.policy.exploration,
        gamma=loop.policy.gamma,
        epsilon=loop.policy.epsilon,
        inverse_temperature=loop.policy.inverse_temperature,
        falcon_scale=loop.policy.falcon_scale,
        floor=loop.policy.floor,
    )
    assert DEFAULT.exploration == shipped
    assert DEFAULT.oracle(0).settings.ridge == loop.policy.ridge  # type: ignore[attr-defined]
    assert Gate() == (loop.gate.alpha, loop.gate.share, loop.gate.minimum_ess)


@pytest.fixture(scope="module")
def traces() -> dict[Task, Trace]:
    worlds = ((0.0, 6_000), (0.3, 1_000))
    tasks = [Task("methods", name, 0, drift, size, 3) for name in ("plain", "default") for drift, size in worlds]
    tasks += [Task("gate", "default", 0, 0.0, 2_000, 3, gate=Gate()), Task("oracles", "linear", 0, 0.0, 1_000, 3)]
    return {task: run(task) for task in tasks}


def test_retraining_on_the_last_generation_forgets_and_the_default_does_not(traces) -> None:
    """One seed, known values: plain falls by .2 or more after its first generation, the default by less than .05."""
    found = {
        task.name: figures_of(trace) for task, trace in traces.items() if task.group == "methods" and not task.drift
    }
    assert found["plain"]["drawdown"] > 0.2
    assert found["default"]["drawdown"] < 0.05
    assert found["default"]["online"] > found["plain"]["online"] + 0.1


def test_same_task_gives_the_same_run(traces) -> None:
    task = Task("oracles", "linear", 0, 0.0, 1_000, 3)
    assert run(task) == traces[task]


def test_result_has_the_promised_keys_tables_and_plots(traces) -> None:
    result = summary(traces, [0], 6_000)
    for world in ("stationary", "drift"):
        for method in ("plain", "default"):
            row = result[world][method]
            assert {"online", "last3", "drawdown", "sign_flips", "online_ci"} <= set(row)
    assert {"logistic", "linear"} <= set(result["oracles"])
    assert {"bad_served_share", "promoted_within_two_share"} <= set(result["gate"])
    assert all(sheet.rows for sheet in sheets(result))
    assert all("<svg" in figure.svg for figure in figures(result))


def test_figures_of_a_run_are_the_closed_form() -> None:
    trace = Trace([0.0, 0.4, 0.6], [0.8, 0.5, 0.7, 0.6, 0.65], [], [], [], [])
    found = figures_of(trace)
    assert found["online"] == pytest.approx(0.5)
    assert found["last3"] == pytest.approx(0.65)
    assert found["drawdown"] == pytest.approx(0.3)
    assert found["sign_flips"] == 1.0
    assert found["amplitude"] == pytest.approx((0.2 + 0.1 + 0.05) / 3)


def test_gate_counts_bad_generations_and_gains_taken_in_time() -> None:
    served_bad = Trace([], [], [], [0.3, 0.2], [0.0, 0.3], [True, True])
    assert gate_of(served_bad)["bad_served"] == 1.0
    refused = Trace(
        [], [], [], [0.3, 0.2, 0.4, 0.4, 0.4], [0.0, 0.3, 0.3, 0.3, 0.3], [True, False, False, False, False]
    )
    found = gate_of(refused)
    assert (found["bad_served"], found["bad_candidates"]) == (0.0, 1.0)
    assert (found["improvements"], found["promoted_within_two"]) == (3.0, 1.0)  # the last refusal is left open
    late = refused._replace(promoted=[True, False, False, True, False], champion=[0.0, 0.3, 0.3, 0.3, 0.4])
    assert (gate_of(late)["improvements"], gate_of(late)["promoted_within_two"]) == (3.0, 3.0)
    assert np.isfinite(list(found.values())).all()
