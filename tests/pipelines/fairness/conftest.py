"""Each test of the store runs on SQLite and, where it is installed, on a real PostgreSQL with a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.fairness.store import Governance
from pipelines.state.state import State
from tests.worlds.panels import Panel


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Governance]:
    """An empty store."""
    state = f"sqlite:///{tmp_path / 'state.db'}"
    url = f"sqlite:///{tmp_path / 'governance.db'}"
    if request.param == "postgresql":
        url = state = request.getfixturevalue("postgres_database")
    with Governance(url, tmp_path / "anchors.jsonl", State(state)) as made:
        yield made


@pytest.fixture
def panel(store: Governance) -> Panel:
    """Five auditors on it."""
    return Panel(store)
