from __future__ import annotations

import numpy as np
import pytest

from decision.batch import Batch
from pipelines.demo.open_bandit import LogStudy, PositionShares, study_open_bandit
from pipelines.settings import load_settings


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LogStudy]:
    settings = load_settings({}, home=str(tmp_path_factory.mktemp("home")))
    return {f"{entry.logging}/{entry.campaign}": entry for entry in study_open_bandit(settings)}


# Reference: the uniform policy on the three Thompson sampling logs, computed from the published files by hand-written
# IPS and SNIPS (effective sample size as a share of 10,000 rows).
REFERENCE = {
    "bts/all": (80.9, 0.0024, 0.0023, 0.034),
    "bts/men": (32.1, 0.0030, 0.0032, 0.066),
    "bts/women": (144.2, 0.0074, 0.0024, 0.000),
}


@pytest.mark.parametrize("log", REFERENCE)
def test_estimates_on_the_published_logs_are_the_reference_values(studies: dict[str, LogStudy], log: str) -> None:
    inverse, ips, snips, ess = REFERENCE[log]
    study = studies[log]
    estimates = study.replay.estimates
    assert study.replay.policy == "uniform"
    assert estimates["ips"] is not None
    assert estimates["snips"] is not None
    assert estimates["ips"].value == pytest.approx(ips, abs=6e-5)
    assert estimates["snips"].value == pytest.approx(snips, abs=6e-5)
    assert study.replay.diagnostics.ess_share == pytest.approx(ess, abs=6e-4)
    assert study.propensities.numbers["mean_inverse"] == pytest.approx(inverse, abs=0.06)


def test_one_log_fails_the_propensity_check_and_five_pass(studies: dict[str, LogStudy]) -> None:
    assert [log for log, study in studies.items() if not study.propensities.ok] == ["bts/women"]
    assert not studies["bts/women"].replay.trusted


def test_trusted_estimates_agree_with_what_the_policy_earned_in_its_own_log(studies: dict[str, LogStudy]) -> None:
    for log, study in studies.items():
        if study.propensities.ok:
            estimate = study.replay.estimates["dr"]
            assert estimate is not None
            assert estimate.low < study.own.high, log
            assert study.own.low < estimate.high, log


def test_position_shares_are_the_frequencies_and_follow_the_position() -> None:
    batch = Batch([{"position=2": 1.0}, {"position=1": 1.0}], [{}] * 5, ["x", "y", "y", "x", "z"], np.array([0, 2, 5]))
    policy = PositionShares({"1": {"x": 0.25, "y": 0.75}, "2": {"x": 1.0}})
    assert policy.pmf(batch).tolist() == [1.0, 0.0, 0.75, 0.25, 0.0]
