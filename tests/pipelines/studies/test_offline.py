"""The study of policies from a log alone, from its jobs to its page, at a size that says nothing of the methods."""

from __future__ import annotations

import json

import numpy as np
import pytest

from decision.errors import FieldError
from pipelines.studies import offline as study_offline
from pipelines.studies.report import write
from simulators.offline.weights import weights_of
from simulators.studies import offline


def test_study_has_the_promised_numbers_and_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(offline, "QUICK", offline.Size(users=60, deployed=20, effort=0.005))
    told: list[tuple[str, float]] = []
    findings = study_offline.run([7], None, quick=True, progress=lambda *what: told.append(what), kept=tmp_path)
    assert told[-1][1] == 1.0
    for world in ("m1", "m2"):
        rows = findings.result["mixed"][world]
        imitated = {"cloning_uniform", "extraction_uniform", "cloning_pw", "extraction_pw", "cloning_aw", "gated_pw"}
        assert {"good"} | imitated == set(rows)
        assert rows["good"]["share_of_good"] == 1.0
        assert {"return", "share_of_good", "ess"} <= set(rows["cloning_pw"])
        assert rows["cloning_pw"]["ess"] == pytest.approx(40.0, abs=1.0)
        assert rows["cloning_pw"]["on_good"] > rows["cloning_uniform"]["on_good"]
    rows = findings.result["study_log"]
    assert {"over_log", "over_log_ci", "over_cloning"} <= set(rows["extraction"])
    assert "over_log" not in rows["logged"]
    steps = findings.sheets[-1]
    assert [row[:2] for row in steps.rows] == [[world, "7"] for world in offline.WORLDS]
    assert rows["gated"]["told"][0]["users_apart"] == 15  # a quarter
    json.dumps(findings.result)
    assert {"tables.md", "report.html", "result.json"} <= {path.name for path in write(findings, tmp_path)}
    again: list[tuple[str, float]] = []
    second = study_offline.run([7], None, quick=True, progress=lambda *what: again.append(what), kept=tmp_path)
    assert (again, second.result) == ([], findings.result)


@pytest.mark.parametrize("seed", [7, 8, 9])
@pytest.mark.parametrize("world", ["m1", "m2"])
def test_versions_draw_the_weight_to_the_good_one_whatever_users_bring(world: str, seed: int) -> None:
    log = offline.log_of(world, seed, 400)
    good = np.arange(400) >= 360
    by_version = weights_of(log, "pw")
    assert by_version[good].sum() >= 0.95
    assert 1.0 / np.square(by_version).sum() >= 35.0


def test_a_size_or_a_world_that_is_none_is_refused() -> None:
    with pytest.raises(FieldError, match="size"):
        study_offline.run([7], 39, quick=True, progress=lambda what, share: None)
    with pytest.raises(FieldError, match="world"):
        offline.log_of("m3", 7, 40)
