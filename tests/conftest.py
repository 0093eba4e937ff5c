"""What every test gets.

Temporary files stand in memory where the system has room: hundreds of fsyncs would bound the run. What the tests show
does not rest on the disk: `kill -9` leaves written pages to the kernel either way. Hypothesis tries the same examples
on every run, and asks of none how long it took. Byte code is kept: tests start hundreds of interpreters, and each would
compile MLflow anew.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import prometheus_client.values  # noqa: F401 - before Feast, which has counts kept in files of its own
import pytest

from pipelines.logs import set_up
from pipelines.operations import processes
from tests.mlflow_server import own_mlflow
from tests.parts import require
from tests.postgres_server import new_database, own_server
from tests.redis_server import RedisServer, own_redis
from tests.worlds.s3 import S3
from tests.worlds.versitygw import Versitygw, missing

_MEMORY = Path("/dev/shm")
_NEEDED = 2 << 30

if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED:
    os.environ["TMPDIR"] = str(_MEMORY)  # for processes that tests start
    tempfile.tempdir = str(_MEMORY)

for _variable in [name for name in os.environ if name.startswith("DECISION_")]:
    del os.environ[_variable]  # of an installation that somebody works with: no test may reach, and change, that one

# A service binds its port seconds after the test chose it: each of the processes that run tests has ports of its own.
_runners = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _runners > 1:
    processes._PORTS //= _runners
    processes._FIRST_PORT += int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) * processes._PORTS

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a running PostgreSQL."""
    with own_server() as server:
        yield server.uri


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """Address of an empty database on a running PostgreSQL."""
    return new_database(postgres)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Give a Redis that the tests of a module share, and may stop."""
    with own_redis() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server that all tests of the session share: each has loops of its own."""
    with own_mlflow(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let object storage be another implementation; what counts requests needs the first."""
    parser.addoption("--s3", choices=["moto", "versitygw"], default="moto", help="whose S3 server the tests use")
    parser.addoption("--files", choices=["home", "s3"], help="only tests that keep files there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--files")
    if wanted is None:
        return
    left = [item for item in items if ("s3" in getattr(item, "fixturenames", ())) != (wanted == "s3")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def s3_server(pytestconfig: pytest.Config) -> Iterator[S3]:
    """Give an S3 server with one bucket, which all tests of the session share: each has a prefix of its own."""
    if pytestconfig.getoption("--s3") == "versitygw":
        require(not missing(), missing())
        with Versitygw() as gateway:
            yield gateway
        return
    require(importlib.util.find_spec("moto"), "moto not installed")
    with S3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Give the S3 server, with the environment of this process pointing to it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="module", autouse=True)
def pages_are_waited_for() -> Iterator[None]:
    """Let who asks for the first page of a process have it, however long its imports take here."""
    with pytest.MonkeyPatch.context() as patch:
        if (app := sys.modules.get("serving.http.app")) is not None:
            patch.setattr(app, "_OPENED_S", 300.0)
        yield


@pytest.fixture(autouse=True)
def process_undone() -> Iterator[None]:
    """Take back what was set up for the whole process: log lines by a command that ran in it, metrics by Feast.

    The next test hears of its own lines alone, and programs that it starts do not count in a folder of Feast's.
    """
    yield
    for variable in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(variable, None)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler).__module__ == set_up.__module__:
            root.removeHandler(handler)
    for package in ("decision", "simulators", "pipelines", "serving"):
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture
def lines() -> io.StringIO:
    """Give where log lines go in this test, as JSON."""
    stream = io.StringIO()
    set_up("json", logging.INFO, stream)
    return stream
