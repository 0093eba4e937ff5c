"""Every estimator keeps its contract: those of the registry, and those of lifts, slates and trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from decision.batch import Floats, Interactions
from decision.ope import estimators
from decision.ope.estimators.dr import dr
from decision.ope.estimators.lift import lift_of, switched_lift_of
from decision.ope.estimators.registry import ESTIMATORS, Mean, OwnSums, Tuned, estimator_of
from decision.ope.rows import Rows
from decision.ope.sequential import marginalised, slates, trajectories
from decision.ope.sequential.slates import (
    cascade_dr_terms,
    cascade_terms,
    independent_terms,
    pseudo_inverse_terms,
    whole_terms,
)
from decision.ope.sequential.trajectories import (
    WeightedSums,
    pdis_terms,
    trajectory_dr_terms,
    trajectory_sums,
    weighted_pdis,
)
from decision.ope.sums.means import MeanSums
from decision.ragged import group_sum
from tests.contracts import estimator as contract
from tests.contracts import trajectory
from tests.contracts.estimator import Estimator
from tests.contracts.trajectory import Trajectory

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS_ALONE = ("ips", "clipped", "cab", "mips")
"""No model corrects them and nothing divides by the mean weight: a constant reward is weighted like any other."""


def registered(name: str) -> Estimator:
    """Return an estimator of the registry: each action is a group, and there is but one reward model."""
    one = estimator_of(name)

    def rows(log: Interactions, pmf: Floats, expected: Floats) -> Rows:
        return Rows.of(log, pmf, expected, robust=expected, code=np.arange(len(pmf)))

    def sums(log: Interactions, pmf: Floats, expected: Floats) -> Any:
        given = rows(log, pmf, expected)
        if isinstance(one, OwnSums):
            return one.sums(given, 0.0, 50.0 if (log.reward > 1).any() else 1.0)
        weights = given.weight
        if isinstance(one, Tuned):
            return MeanSums.of(one.terms(given, 10.0), weights)
        weights = weights if one.weights is None else one.weights(given)
        return MeanSums.of(one.terms(given, weights), weights)

    estimate = one.estimate if isinstance(one, OwnSums) else lambda s, *, level: s.estimate(level)
    return Estimator(sums, estimate, None if name in WEIGHTS_ALONE else 1.0)


def _steps(terms: Callable[[Rows, Any], Floats], constant: float | None = None) -> Estimator:
    """Return an estimator of slates or trajectories on decisions: each is a slate, or a trajectory, of its own."""

    def sums(log: Interactions, pmf: Floats, expected: Floats) -> MeanSums:
        rows = Rows.of(log, pmf, expected)
        alone = np.arange(len(rows) + 1)
        return trajectory_sums(terms(rows, alone), rows.weight, alone)

    return Estimator(sums, lambda s, *, level: s.estimate(level), constant)


def _weighted_pdis(log: Interactions, pmf: Floats, expected: Floats) -> WeightedSums:
    rows = Rows.of(log, pmf, expected)
    group = np.array([int(context["row"]) % 64 for context in log.batch.contexts], dtype=np.int64)
    return WeightedSums.of(rows.weight, rows.reward, np.arange(len(rows) + 1), group, steps=1, groups=64)


SEQUENTIAL = {
    "whole_terms": _steps(lambda rows, alone: whole_terms(rows.weight, rows.reward, alone)),
    "cascade_terms": _steps(lambda rows, alone: cascade_terms(rows.weight, rows.reward, alone)),
    "independent_terms": _steps(lambda rows, alone: independent_terms(rows.weight, rows.reward, alone)),
    "pseudo_inverse_terms": _steps(lambda rows, alone: pseudo_inverse_terms(rows.weight, rows.reward, alone)),
    "cascade_dr_terms": _steps(
        lambda rows, alone: cascade_dr_terms(rows.weight, rows.reward, rows.fitted, rows.direct, alone), 1.0
    ),
    "pdis_terms": _steps(lambda rows, alone: pdis_terms(rows.weight, rows.reward, alone)),
    "trajectory_dr_terms": _steps(
        lambda rows, alone: trajectory_dr_terms(rows.weight, rows.reward, rows.fitted, rows.direct, alone), 1.0
    ),
    "weighted_pdis": Estimator(_weighted_pdis, weighted_pdis),
}
LIFTS = {
    "lift": Estimator(lambda log, pmf, q: lift_of(log, pmf, log.pmf, q).sums, dr, 0.0),
    "switched_lift": Estimator(lambda log, pmf, q: switched_lift_of(log, pmf, log.pmf, q).sums, dr, 0.0),
}
"""They estimate a difference of two policies."""


def promised(name: str) -> list[Callable[[Estimator], None]]:
    """Return the checks that an estimator of the registry passes: all, or those of one that is wrong by design."""
    one = estimator_of(name)
    wrong = one.biased and not isinstance(one, Tuned)  # weights are too light here for cuts to matter
    checks = contract.ADDITIVE if wrong else contract.CHECKS
    # The direct method knows no error but that of the contexts, and the contract's are all alike.
    constant = contract.check_interval_tightens_with_data_and_widens_with_level if name == "dm" else None
    return [check for check in checks if check is not constant]


@pytest.mark.parametrize(
    ("name", "check"),
    [pytest.param(name, check, id=f"{name}-{check.__name__}") for name in ESTIMATORS for check in promised(name)],
)
def test_registered_estimators(name: str, check: Callable[[Estimator], None]) -> None:
    check(registered(name))


@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_estimators_of_slates_and_trajectories_on_single_decisions(
    name: str, check: Callable[[Estimator], None]
) -> None:
    check(SEQUENTIAL[name])


@pytest.mark.parametrize("name", LIFTS)
@pytest.mark.parametrize("check", contract.ADDITIVE, ids=lambda check: check.__name__)
def test_lifts(name: str, check: Callable[[Estimator], None]) -> None:
    check(LIFTS[name])


TRAJECTORIES: Mapping[str, Trajectory] = {
    "whole_terms": trajectory.mean(lambda log, w: whole_terms(w, log.reward, log.offsets)),
    "cascade_terms": trajectory.mean(lambda log, w: cascade_terms(w, log.reward, log.offsets)),
    "independent_terms": trajectory.mean(lambda log, w: independent_terms(w, log.reward, log.offsets)),
    "pseudo_inverse_terms": trajectory.mean(
        lambda log, w: pseudo_inverse_terms(w, group_sum(log.reward, log.offsets), log.offsets)
    ),
    "cascade_dr_terms": trajectory.mean(
        lambda log, w: cascade_dr_terms(w, log.reward, log.expected, log.expected, log.offsets)
    ),
    "pdis_terms": trajectory.mean(lambda log, w: pdis_terms(w, log.reward, log.offsets)),
    "trajectory_dr_terms": trajectory.mean(
        lambda log, w: trajectory_dr_terms(w, log.reward, log.expected, log.expected, log.offsets)
    ),
    "weighted_pdis": Trajectory(
        lambda log, policy: WeightedSums.of(
            log.weights(policy), log.reward, log.offsets, log.group, steps=trajectory.STEPS, groups=32
        ),
        lambda sums, policy: weighted_pdis(sums).value,
    ),
    "marginalised": Trajectory(
        trajectory.transitions, lambda sums, policy: marginalised.marginalised(sums, policy / trajectory.LOGGING)
    ),
    "fitted_q": Trajectory(
        trajectory.transitions, lambda sums, policy: marginalised.fitted_q(sums, policy)[0], by_table=True
    ),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("check", trajectory.CHECKS, ids=lambda check: check.__name__)
def test_estimators_of_trajectories(name: str, check: Callable[[Trajectory], None]) -> None:
    check(TRAJECTORIES[name])


def _public(module: ModuleType, ending: str) -> set[str]:
    named = {name for name in vars(module) if name.endswith(ending) and not name.startswith("_")}
    return {name for name in named if vars(module)[name].__module__ == module.__name__}


def test_no_estimator_is_without_its_contract() -> None:
    """What stands in the folders is registered or in a table above: a new one cannot be forgotten."""
    files = {path.stem for path in Path(estimators.__file__).parent.glob("*.py")}
    held = {module.rpartition(".")[2] for module in ESTIMATORS.values()}
    assert files - held == {"__init__", "registry", "lift", "balanced"}  # of the last: what it makes is a log
    terms = set().union(*(_public(module, "_terms") for module in (slates, trajectories, marginalised)))
    assert terms | {"weighted_pdis"} == set(SEQUENTIAL)
    assert set(SEQUENTIAL) | {"marginalised", "fitted_q"} == set(TRAJECTORIES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_its_line_in_the_docs(name: str) -> None:
    text = (ROOT / "infra" / "docs" / "evaluation.md").read_text().partition("## Estimators")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows), f"evaluation.md has no row for {name}"


def test_every_estimator_is_of_one_of_the_kinds_that_an_evaluation_knows() -> None:
    assert {type(estimator_of(name)) for name in ESTIMATORS} == {Mean, Tuned, OwnSums}
