"""Several machines, each with a home of its own, that share State on PostgreSQL and a server of MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import Tracking
from pipelines.settings import Settings, load_settings
from tests.contracts.registry import packed
from tests.contracts.test_registry import _server as mlflow_server

ROUNDS = 20


@pytest.fixture
def homes(tmp_path: Path, postgres_database: str) -> Iterator[list[Settings]]:
    """Two machines."""
    server = mlflow_server(tmp_path)
    address = next(server)
    yield [
        load_settings({}, home=str(tmp_path / name), tracking_uri=address, state=postgres_database)
        for name in ("a", "b")
    ]
    next(server, None)


@pytest.mark.connected
def test_alias_race(homes: list[Settings]) -> None:
    """Both move the champion at once, round after round: one does, and every verdict has a number of its own."""
    registries = [Registry(settings) for settings in homes]
    versions = [registries[0].register("news", packed(a=b"%d" % number)) for number in range(3)]
    stands: str | None = None

    def move(asked: tuple[Registry, str]) -> str | None:
        registry, version = asked
        try:
            registry.set_alias("news", "champion", version, {"verdict": "promoted"}, expected=stands)
        except AliasMovedError:
            return None
        return version

    with ThreadPoolExecutor(2) as pool:
        for _ in range(ROUNDS):
            others = [version for version in versions if version != stands]
            won = [version for version in pool.map(move, zip(registries, others, strict=False)) if version]
            assert len(won) == 1
            stands = won[0]
            assert [registry.aliases("news") for registry in registries] == [{"champion": stands}] * 2
    assert [written.number for written in registries[1].verdicts("news")] == list(range(1, ROUNDS + 1))
    mirror = ServedCharge(Tracking(homes[0]))
    assert mirror.aliases("news") == {"champion": stands}
    assert mirror.verdicts("news") == registries[0].verdicts("news")
