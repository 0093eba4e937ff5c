"""Feast itself: its repository file, where its online values stand, and what it needs to keep to itself.

An installation's addresses decide: values in a SQLite file of the home folder, or in the Redis that its machines share;
the registry of views in a file beside it, or in the database of State.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.settings import Settings

PROJECT, SUBJECT, KEY_VERSION = "decision", "subject_id", 3
_REPOSITORY = """\
# Written by the decision service; read by Feast's own command line too.
project: decision
provider: local
{registry}
online_store:
{online}
offline_store:
  type: duckdb
entity_key_serialization_version: 3
"""


def repository_of(settings: Settings) -> str:
    """Return what ``feature_store.yaml`` says for an installation; passwords of its addresses stand in it."""
    registry = "registry: registry.db"
    if settings.online and settings.state.startswith("postgres"):
        registry = f"registry:\n  registry_type: sql\n  path: {json.dumps(settings.state)}"
    online = {"type": "sqlite", "path": "online_store.db"} if not settings.online else _redis(settings.online)
    lines = "\n".join(f"  {name}: {json.dumps(value)}" for name, value in online.items())
    return _REPOSITORY.format(registry=registry, online=lines)


def own_config(feast: Any, settings: Settings, root: Path) -> Any:
    """Return the configuration of a store on shared online values whose registry is the folder `root`'s alone."""
    return feast.RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(root / "own.db"),
        online_store=_redis(settings.online),
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=KEY_VERSION,
    )


def _redis(url: str) -> dict[str, str | bool]:
    # a row replaces the one before whatever its time, as in SQLite
    return {"type": "redis", "connection_string": _connection(url), "skip_dedup": True}


def _connection(url: str) -> str:
    """Return ``redis://user:password@host:port/db`` as Feast writes it."""
    parts = urlsplit(url)
    options = {"db": parts.path.strip("/") or "0", "username": parts.username, "password": parts.password}
    given = [f"{name}={unquote(value)}" for name, value in options.items() if value]
    tls = ["ssl=true"] if parts.scheme == "rediss" else []
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *given, *tls])


def encoded_key(subject_id: str) -> bytes:
    """Return a subject's key as Feast stores it; Feast must have been imported."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[SUBJECT], entity_values=[Value(string_val=subject_id)])
    return serialize_entity_key(key, entity_key_serialization_version=KEY_VERSION)


def import_feast() -> Any:
    """Return Feast, imported without torch and without typeguard's checks of its own functions.

    Feast imports torch wherever it is installed, only to offer results as tensors: seconds and 0.6 GB that neither the
    service nor the pipelines use. Its modules have typeguard write checks into their functions and compile them anew:
    two thirds of the rest, in every process that opens features. What is passed to Feast is checked here before.
    """
    if "feast" not in sys.modules:
        import typeguard

        checked, without_torch = typeguard.typechecked, "torch" not in sys.modules
        typeguard.typechecked = _unchanged
        if without_torch:
            sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - makes the import fail, as documented
        try:
            import feast
        finally:
            typeguard.typechecked = checked
            if without_torch:
                del sys.modules["torch"]
    import feast

    return feast


def _unchanged(target: Any = None, **_: Any) -> Any:
    """Stand for `typeguard.typechecked`, as a decorator or called for one."""
    return _unchanged if target is None else target


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's deprecation notices and progress talk out of our logs."""
    os.environ.setdefault("FEAST_USAGE", "False")
    logging.getLogger("feast").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close_store(feast: Any) -> None:
    """Close a store's connections to its online values and its registry; Feast itself can only delete these."""
    store: Any = getattr(feast._get_provider(), "online_store", None)
    for name in ("write_engine", "read_engine"):  # of a registry in a database
        engine = getattr(feast.registry, name, None)
        if engine is not None:
            engine.dispose()
    for name in ("_conn", "_client"):  # of SQLite, of Redis
        connection = getattr(store, name, None)
        if connection is not None:
            connection.close()
            setattr(store, name, None)
