"""The short form of `tests.soak.hostile`."""

from __future__ import annotations

from pathlib import Path

from tests.soak.hostile import hostile_night


def test_a_night_after_hostile_requests_ends_and_its_model_answers_them(tmp_path: Path) -> None:
    ended = hostile_night(tmp_path, 400, 3, "vw")
    assert ended.accepted + ended.refused.total() == 400
    assert ended.refused.total() > 0
    assert (ended.run.status, ended.asked) == ("done", min(ended.accepted, 200))
