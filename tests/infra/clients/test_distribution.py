"""The client is a distribution of its own: small, typed, one package, and shaped as the service describes itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

import decision_client
from decision_client import wire
from tests.serving.http.test_app import Caller, open_at

CLIENT = Path(__file__).parents[3] / "infra/clients/python"
OURS = ("decision", "pipelines", "serving", "simulators")
HEAVY = ("httpx", "httpcore", "anyio", "asyncio", "ssl", "rich", "click", "numpy", "concurrent.futures")


def imported(code: str) -> set[str]:
    """Return the modules that a program of its own has loaded at its end, beyond those that Python starts with."""
    show = "import sys, json; before = set(sys.modules)\n{}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    places = [str(CLIENT), sysconfig.get_path("purelib")]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {places!r}\n" + show.format(code)]
    return set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_importing_it_loads_neither_the_service_nor_what_only_a_call_needs() -> None:
    loaded = imported("import decision_client")
    packages = {name.partition(".")[0] for name in loaded}
    assert packages & set(OURS) == set()
    assert loaded & set(HEAVY) == set()
    outside = packages - sys.stdlib_module_names
    assert outside <= {"decision_client", "msgspec", "typing_extensions"}
    assert len(loaded) < 220


def test_a_client_of_threads_loads_httpx_and_nothing_of_the_service() -> None:
    loaded = imported("import decision_client; decision_client.Client('http://127.0.0.1:9').close()")
    assert "httpx" in loaded
    assert {name.partition(".")[0] for name in loaded} & set(OURS) == set()


def test_the_wheel_holds_one_typed_package_and_needs_httpx_and_msgspec_alone(tmp_path: Path) -> None:
    source = tmp_path / "python"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == "decision_client-0.1.0-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"decision_client", "decision_client-0.1.0.dist-info"}
    assert "decision_client/py.typed" in names
    modules = {file.name for file in (CLIENT / "decision_client").glob("*.py")}
    assert {name.partition("/")[2] for name in names if name.endswith(".py")} == modules
    needs = tomllib.loads((CLIENT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert sorted(need.partition(">")[0] for need in needs) == ["httpx", "msgspec"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    caller = Caller(open_at(tmp_path_factory.mktemp("home")))
    schemas = json.loads(caller("GET", "/openapi.json").content)["components"]["schemas"]
    caller.app.close()
    return schemas


SHAPES = ("Action", "Slot", "DecideRequest", "OutcomeRequest", "Ranked", "SlotAnswer", "DecideResponse", "Problem")


@pytest.mark.parametrize("name", SHAPES)
def test_its_shapes_are_those_that_the_service_describes(described: dict[str, Any], name: str) -> None:
    ours = msgspec.json.schema_components([getattr(wire, name)])[1][name]["properties"]
    theirs = described[name]["properties"]
    added = {"DecideResponse": {"fallback"}}.get(name, set())
    assert ours.keys() - added == theirs.keys()
    for field in theirs:
        assert form(ours[field]) == form(theirs[field]), field


def form(schema: dict[str, Any]) -> Any:
    """What of a schema says which JSON fits, but for limits, defaults and words."""
    if "anyOf" in schema:
        return sorted((form(each) for each in schema["anyOf"]), key=str)
    kept = {key: schema[key] for key in ("type",) if key in schema}
    if "$ref" in schema:
        kept["to"] = schema["$ref"].rpartition("/")[2]
    if "items" in schema:
        kept["items"] = form(schema["items"])
    return kept


def test_everything_that_it_exports_exists_and_is_documented() -> None:
    for name in decision_client.__all__:
        assert getattr(decision_client, name).__doc__, name
