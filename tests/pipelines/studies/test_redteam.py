from __future__ import annotations

import pytest

from decision.errors import FieldError
from pipelines.studies import redteam as study
from pipelines.studies.report import markdown
from simulators.studies import lies, redteam


def test_the_study_has_the_keys_that_readers_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every policy the attacked share is at least the honest one, and every cap keeps its bound."""
    monkeypatch.setattr(redteam, "CALLERS", 16)
    monkeypatch.setattr(study, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(lies, "USERS", 30)
    found = study.run([5], 300, quick=True, progress=lambda what, share: None)
    for owned in ("k1", "k3"):
        row = found.result["cap"][owned]
        assert {"target_clean", "target_attacked", "value", "lost"} <= set(row)
        policies = row["policies"]
        assert row["value"] == policies["cap_4"]["value"]
        for numbers in policies.values():
            assert numbers["two"] >= numbers["clean"]
        assert policies["without"]["any"] == policies["without"]["clean"]
        for cap in redteam.CAPS:
            assert policies[f"cap_{cap:g}"]["any"] <= (cap + 1.0) * policies["without"]["clean"]
        assert policies["plain"]["lost"] == 0.0
    assert set(found.result["lies"]) == {"none", "taught"}
    assert {"share_moved", "return_lost", "share_moved_ci"} <= set(found.result["lies"]["taught"])
    assert "| cap 4 |" in markdown(found)
    assert found.figures[0].svg.startswith("<svg")


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert redteam.measured(3, 1, 300, 5) == redteam.measured(3, 1, 300, 5)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(FieldError, match="size: must be 200 rows or more"):
        study.run([1], 10, quick=True, progress=lambda what, share: None)
