"""The tree keeps its shape: no circle of imports, no crowded folder, tests where the code is."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("decision", "pipelines", "serving", "simulators")
MOST_MODULES = 20


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module's file by its dotted name."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Yield the modules among `known` that a file imports: anywhere, in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found = full if full in known else node.module
                if found in known:
                    yield found


def first_circle(files: dict[str, Path]) -> list[str]:
    """Return the modules of a circle of imports, [] when there is none."""
    graph = {name: set(imported(ast.parse(file.read_text()), set(files))) - {name} for name, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def crowded(files: dict[str, Path]) -> dict[str, int]:
    """Return the folders with more modules than a reader can survey, and how many they hold."""
    counts = Counter(str(file.parent) for file in files.values() if file.name != "__init__.py")
    return {folder: count for folder, count in counts.items() if count > MOST_MODULES}


def test_no_circle_of_imports_exists() -> None:
    assert first_circle(modules()) == []


def test_no_folder_holds_more_modules_than_a_reader_can_survey() -> None:
    assert crowded(modules()) == {}


@pytest.mark.parametrize(
    "text", ["from serving.b import x", "def f():\n    from serving import b", "if 0:\n    import serving.b"]
)
def test_a_circle_is_found_wherever_the_import_stands(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "serving"
    folder.mkdir()
    (folder / "a.py").write_text(text)
    (folder / "b.py").write_text("from serving.a import y")
    assert set(first_circle(modules(tmp_path))) == {"serving.a", "serving.b"}
    for number in range(MOST_MODULES):
        (folder / f"m{number}.py").write_text("")
    assert crowded(modules(tmp_path)) == {str(folder): MOST_MODULES + 2}


def test_every_folder_of_tests_mirrors_a_package() -> None:
    beside = {"bench", "browser", "contracts", "e2e", "faults", "newcomers", "worlds"}
    tests = ROOT / "tests"
    folders = {file.parent.relative_to(tests) for file in tests.rglob("test_*.py")}
    mirrored = [folder for folder in folders if folder.parts and folder.parts[0] not in beside]
    assert [str(folder) for folder in mirrored if not (ROOT / folder).is_dir()] == []


def unprepared(source: str) -> list[int]:
    """Return the lines that decode a named type which nobody made ready for threads."""
    found: list[int] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            by_name = [word.value for word in node.keywords if word.arg == "type"] if node.func.attr == "decode" else []
            second = node.args[1:2] if ast.unparse(node.func) == "msgspec.convert" else []
            found += [
                node.lineno for kind in (*by_name, *second) if isinstance(kind, ast.Name) and kind.id[0].isupper()
            ]
    return found


def test_no_type_is_first_decoded_by_two_threads_at_once() -> None:
    assert {name: lines for name, file in modules().items() if (lines := unprepared(file.read_text()))} == {}
    assert unprepared("msgspec.json.decode(data, type=Run)\nmsgspec.convert(data, Run)") == [1, 2]
    assert unprepared("msgspec.json.decode(data, type=prepared(Run))\ndecoder.decode(data)") == []


def test_an_installation_that_the_shell_points_to_is_out_of_the_tests_reach(tmp_path: Path) -> None:
    says = "import os, tests.conftest; print([name for name in os.environ if name.startswith('DECISION_')])"
    environment = {**os.environ, "DECISION_STATE": "postgresql://shop.example", "DECISION_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", says], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("runner", [0, 1])
def test_processes_that_run_tests_at_once_choose_no_port_twice(runner: int) -> None:
    says = (
        "import tests.conftest; from pipelines.operations.processes import *; print([free_port() for _ in range(50)])"
    )
    beside = os.environ | {"PYTEST_XDIST_WORKER": f"gw{runner}", "PYTEST_XDIST_WORKER_COUNT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", says], cwd=ROOT, env=beside, capture_output=True, text=True, check=True
    )
    ports = json.loads(done.stdout)
    assert {(port - 10_000) // 5_000 for port in ports} == {runner}
