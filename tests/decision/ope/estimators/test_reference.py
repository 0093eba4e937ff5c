"""Point estimates of the Open Bandit Pipeline (obp 0.5.7), run once in an environment of its own, on a small log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.ope.estimators.replay_method import MatchingSums, matching
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.results import results
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.rows import Rows
from decision.ope.sequential.slates import cascade_terms, independent_terms, whole_terms

KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "obp_values.json").read_text())
N, K = 60, 4


def the_log() -> tuple[Interactions, Any, Any]:
    logging = np.array(KNOWN["propensity"])
    chosen = np.arange(N) * K + np.array(KNOWN["action"])
    batch = Batch([{}] * N, [{}] * (N * K), list("abcd") * N, np.arange(N + 1) * K)
    log = Interactions(batch, chosen, logging.ravel()[chosen], np.array(KNOWN["reward"]), logging.ravel())
    return log, np.array(KNOWN["policy"]).ravel(), np.array(KNOWN["expected"]).ravel()


@pytest.mark.parametrize("name", sorted(KNOWN["values"]))
def test_the_family_has_the_values_of_obp(name: str) -> None:
    log, pmf, expected = the_log()
    rows = Rows.of(log, pmf, expected)
    wanted = KNOWN["values"][name]
    plan = Plan(low=0.0, high=1.0)
    found = results(evaluation_sums(Shard(rows=rows), plan), plan)
    if name == "replay":  # of the policy's best action
        best = (pmf.reshape(N, K) == pmf.reshape(N, K).max(1, keepdims=True)).astype(float).ravel()
        value = matching(MatchingSums.of(Rows.of(log, best)))
    elif name == "mips":
        grouped = Shard(rows=replace(rows, code=np.tile(KNOWN["embedding"], N)))
        plan = replace(plan, grouped=True)
        value = results(evaluation_sums(grouped, plan), plan).estimates["mips"]
    elif "@" in name:
        estimator, parameter = name.split("@")
        value = found.by_parameter[estimator][float(parameter)]
    else:
        value = found.estimates[name]
    assert value is not None
    assert value.value == pytest.approx(wanted, abs=1e-9)


def test_slates_have_the_values_of_obp() -> None:
    known = KNOWN["slates"]
    offsets = np.arange(len(known["reward"]) // known["slots"] + 1) * known["slots"]
    weights = np.array(known["policy"]) / np.array(known["propensity"])
    reward = np.array(known["reward"])
    for name, terms in (("whole", whole_terms), ("cascade", cascade_terms), ("independent", independent_terms)):
        assert terms(weights, reward, offsets).mean() == pytest.approx(known["values"][name], abs=1e-9)


def test_where_obp_is_wrong_a_constant_reward_has_no_width() -> None:
    """Dividing rows by the mean weight first makes its bootstrap resample ``w r / mean(w)``, whose mean still moves."""
    log, pmf, _ = the_log()
    found = snips(SnipsSums.of(Rows.of(log, pmf).weight, np.full(N, 0.5)))
    assert found is not None
    assert (found.low, found.high) == (0.5, 0.5)
    low, high = KNOWN["intervals"]["snips_constant"]
    assert high - low > 0.3
