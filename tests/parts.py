"""Real parts that tests start: a missing one skips its tests with the reason, and fails them under CI=true."""

from __future__ import annotations

import os
import secrets

import pytest


def require(condition: object, reason: str) -> None:
    """Skip the calling test with `reason` unless `condition` holds; under ``CI=true`` fail it instead."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"a part is missing under CI: {reason}")
    pytest.skip(reason)


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
