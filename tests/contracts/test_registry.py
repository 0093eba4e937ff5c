"""The registry keeps its contract on State in a file and on PostgreSQL, and on an MLflow server that has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from tests.contracts.registry import CHECKS, Open
from tests.postgres_server import new_database
from tests.worlds.synthetic import new_settings

SERVED = [pytest.param(name, marks=pytest.mark.connected) for name in ("server", "postgresql and a server")]


@pytest.fixture(scope="module", params=["sqlite", *SERVED])
def opener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Open:
    folder, kept = tmp_path_factory.mktemp("registry"), str(request.param)
    server = None if kept == "sqlite" else str(request.getfixturevalue("mlflow_server"))
    address = server or new_settings(folder).registry_uri
    state = new_database(request.getfixturevalue("postgres")) if "postgresql" in kept else ""

    def open_registry(machine: str = "one") -> Registry:
        home = folder if machine == "one" and server is None else folder / machine
        return Registry(load_settings({}, home=str(home), tracking_uri=address, state=state))

    return open_registry


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_registry(
    check: Callable[[Open, str], None],
    opener: Open,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    loop = check.__name__.removeprefix("check_").replace("_", "-")[:40].strip("-")
    kept = request.node.callspec.params["opener"].partition(" ")[0]  # the server is the same
    check(opener, f"{loop}-{kept}")
    assert capfd.readouterr().out == ""  # what is said there is a command's result
