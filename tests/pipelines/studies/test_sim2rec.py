"""The study of Sim2Rec from its jobs to its page, at a size that says nothing about the methods."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from decision.errors import FieldError
from pipelines.studies import sim2rec as study_sim2rec
from pipelines.studies.report import write
from simulators.environments.lts.env import draw_users
from simulators.studies import interval, learned, retention, sim2rec
from simulators.studies.drivers import programme

TINY = replace(sim2rec.QUICK, iterations=2, updates=1, users=60, sadae_steps=10, shifts=(1.0,))
FEW = learned.Size(40, 2, 0, 1, 50, ("sim2rec", "gap_penalty", "ensemble", "logged", "cloning", "oracle_in_range"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim2rec, "QUICK", TINY)
    monkeypatch.setattr(learned, "QUICK", FEW)


def test_study_has_the_promised_numbers_and_goes_on_where_it_stopped(tiny, tmp_path) -> None:
    told: list[tuple[str, float]] = []
    findings = study_sim2rec.run([0], None, quick=True, progress=lambda *what: told.append(what), kept=tmp_path)
    assert told[-1][1] == 1.0
    for method in ("sim2rec", "dr_osi", "direct", "upper_bound", "oracle", "sim2rec_ppo"):
        row = findings.result["lts"]["3"][method]
        assert {"return", "ratio_upper_bound", "ratio_oracle", "user_steps"} <= set(row)
    assert findings.result["lts"]["3"]["upper_bound"]["ratio_upper_bound"] == pytest.approx(1.0)
    assert set(findings.result["kale_shift"]["1"]) == {"sim2rec", "dr_osi"}
    assert findings.result["learned"]["sim2rec"]["over_cloning_ci"]
    assert {"believed", "held_out", "worst"} <= set(findings.result["learned"]["gap_penalty"])
    assert findings.result["learned"]["logged"]["return"] < findings.result["learned"]["oracle_in_range"]["return"]
    assert findings.result["lts"]["3"]["sim2rec"]["worst"].startswith("mu ")
    for row in (findings.result["lts"]["3"]["sim2rec"], findings.result["learned"]["sim2rec"]):
        assert 0.0 < row["worst_share"] <= 1.05
    assert all(len(row) == len(sheet.columns) for sheet in findings.sheets for row in sheet.rows)
    json.dumps(findings.result)
    written = write(findings, tmp_path)
    assert {"tables.md", "report.html", "result.json"} <= {path.name for path in written}
    again: list[tuple[str, float]] = []
    second = study_sim2rec.run([0], None, quick=True, progress=lambda *what: again.append(what), kept=tmp_path)
    assert again == []
    assert second.result["lts"] == findings.result["lts"]


def test_the_worst_member_is_told_over_seeds_by_its_share_of_its_own_optimum() -> None:
    users = draw_users(np.random.default_rng(0), np.array([6.0, 21.0]), 3)
    planned = np.array([10.0, 10.0, 10.0, 100.0, 100.0, 100.0])
    shares = sim2rec.shares_of(planned - 2.0, planned, users)
    # The poorest group loses as much as the other, of less.
    assert shares == {"mu 6": pytest.approx(0.8), "mu 21": pytest.approx(0.98)}
    assert interval.worst_of([shares, {"mu 6": 1.0, "mu 21": 0.7}]) == ("mu 21", pytest.approx(0.84))
    assert interval.worst_of([{"a": 0.9}, {"a": 0.7, "b": 0.81}]) == ("a", pytest.approx(0.8))


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(FieldError, match="size"):
        study_sim2rec.run([0], 2, quick=True, progress=lambda what, share: None)


def test_training_groups_of_every_job_leave_the_target_out() -> None:
    names = {job.name for job in sim2rec.jobs([0, 1], sim2rec.Size())}
    assert len(names) == len(sim2rec.jobs([0, 1], sim2rec.Size()))
    assert {job.task for job in sim2rec.jobs([0], sim2rec.Size()) if job.method == "upper_bound"} == {"0"}
    assert {job.task for job in sim2rec.jobs([0], sim2rec.Size()) if "-" in job.task} == {"3-1", "3-2"}
    with pytest.raises(FieldError, match="method"):
        sim2rec.run_job(sim2rec.Job("1", "nothing", 0), TINY)


@pytest.mark.parametrize("world", ["driver-programme", "retention"])
def test_other_worlds_have_their_tables(world: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(programme, "QUICK", programme.Size(40, 10, 1, 1, 40))
    monkeypatch.setattr(retention, "QUICK", retention.Size(4, 1, 1, 20))
    findings = study_sim2rec.run([0], None, quick=True, progress=lambda what, share: None, world=world)
    assert all(len(row) == len(sheet.columns) for sheet in findings.sheets for row in sheet.rows)
    assert findings.result["methods"]["there"]["ratio_there"] == pytest.approx(1.0)
    assert ("worst" in findings.result["methods"]["there"]) == (world == "retention")
    json.dumps(findings.result)
    write(findings, tmp_path)


def test_unknown_worlds_and_rates_are_refused() -> None:
    with pytest.raises(FieldError, match="world"):
        study_sim2rec.run([0], None, quick=True, progress=lambda what, share: None, world="payments")
    with pytest.raises(FieldError, match="rate"):
        study_sim2rec.run([0], None, quick=True, progress=lambda what, share: None, rate=0.1)
