"""The short form of `tests.soak.clients`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.clients import run


@pytest.mark.connected
def test_a_client_whose_service_is_killed_has_one_answer_an_id_and_loses_no_outcome(tmp_path: Path) -> None:
    found = run(tmp_path, decisions=300, kills=1, seed=4)
    assert found["outcomes"] == 300
    assert 0 < found["fallbacks"] < 300
