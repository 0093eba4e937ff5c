"""`decision verify`: the books counted in full, and what it says of books that do not balance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from pipelines.operations.installation import Installation
from pipelines.settings import load_settings
from tests.pipelines import test_cli

run = test_cli.run
settled = test_cli.settled


@pytest.mark.parametrize("rows", [-1, 10**6])
def test_books_that_balance_are_the_same_by_rows_and_by_statistics(
    run: Any, settled: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.interactions.counters.ROW_BY_ROW", rows)
    found = run("verify", "news", "--json").result["loops"]["news"]
    assert found["balanced"]
    assert found["differ"] == []
    assert found["decided"] == found["joined"] + found["expired"] + found["pending"] + sum(found["dropped"].values())


def test_a_lost_row_is_told_by_exit_status(run: Any, settled: Path) -> None:
    with Installation(load_settings({}, home=str(settled))) as parts:
        event = parts.lake.interactions("news", latest=1)["event_id"][0].as_py()
        parts.lake.delete("interactions", pc.field("event_id") == event)
    done = run("verify", "--json")
    assert done.status == 1
    assert not done.result["loops"]["news"]["balanced"]


def test_a_loop_that_does_not_exist_is_named(run: Any, settled: Path) -> None:
    done = run("verify", "newz")
    assert done.status == 2
    assert "newz" in done.err
