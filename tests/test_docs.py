"""What the documentation names exists: files, modules, commands and their options, targets, links."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipelines import cli

ROOT = Path(__file__).parents[1]
FOLDERS = ("decision", "simulators", "pipelines", "serving", "tests", "infra", ".ci", ".github")
PAGES = sorted(
    page
    for pattern in ("*.md", "infra/**/*.md", "infra/**/*.ipynb", ".github/**/*.md", "pipelines/**/*.md")
    for page in ROOT.glob(pattern)
)
CODE = sorted(file for folder in FOLDERS[:5] for file in (ROOT / folder).rglob("*.py") if file != Path(__file__))
TOY = {
    "decision/exploration/toy.py",
    "tests/decision/exploration/test_toy.py",
    "decision/ope/estimators/toy.py",
    "tests/decision/ope/estimators/test_toy.py",
}  # made by tests/contracts/test_extension.py
OURS = "|".join(re.escape(folder) for folder in FOLDERS)


each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def text(page: Path) -> str:
    if page.suffix == ".ipynb":
        return "\n\n".join("".join(cell["source"]) for cell in json.loads(page.read_text("utf-8"))["cells"])
    return page.read_text("utf-8")


def code(words: str) -> list[str]:
    """What a page sets as code: the lines of its blocks, and its spans."""
    fenced = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in fenced.findall(words) for line in block.splitlines()]
    rest = fenced.sub("", words)
    lines += [line.strip() for line in re.findall(r"^ {4,}\S.*$", rest, re.MULTILINE)]
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]


def paths(words: str) -> list[str]:
    """What begins like a path of this repository, wildcards included."""
    return [found.rstrip("./") for found in re.findall(rf"(?<![\w./$}}-])(?:{OURS})/[\w./*-]*\w\*?(?:\.\w+)?", words)]


def dotted(words: str) -> list[str]:
    """What looks like a module of ours, or something in one."""
    return re.findall(r"(?<![\w./-])(?:decision|simulators|pipelines|serving|tests)(?:\.[A-Za-z_]\w*)+(?![\w/])", words)


def exists(path: str) -> bool:
    return path in TOY or any(True for _ in ROOT.glob(path))


def resolves(name: str) -> bool:
    """Whether `name` is a module, or a chain of attributes of one."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        value: Any = importlib.import_module(".".join(parts[:size])) if size < len(parts) else None
        for attribute in parts[size:]:
            if attribute in getattr(value, "__annotations__", {}):
                return True
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


def commands() -> dict[str, set[str]]:
    """Every command of the command line with its options and those of every command, which may stand after it too."""
    found: dict[str, set[str]] = {}
    line = typer.main.get_command(cli.app)
    general = {option for parameter in line.params for option in parameter.opts}

    def walk(group: Any, before: str) -> None:
        for name, command in group.commands.items():
            found[before + name] = general | {option for parameter in command.params for option in parameter.opts}
            if hasattr(command, "commands"):
                walk(command, f"{before}{name} ")

    walk(line, "")
    return found


def called(line: str) -> list[str]:
    """The calls of `decision` in a line of code, without comments and what stands beside them in a table."""
    line = re.sub(r"^\$ |(^|\s)#.*$|\s{3,}.*$", "", line)
    calls = [call.strip() for call in re.split(r"&&|\|(?=\s*jq)|;", line)]
    return [call.removeprefix("decision ") for call in calls if re.match(r"decision (?:[a-z]|--)", call)]


def unknown(call: str, known: dict[str, set[str]]) -> str | None:
    """What of a call of `decision` does not exist, or None."""
    words = call.split()
    if words[0].startswith("--"):
        return None if words[0] in ("--help", "--verbose") else words[0]
    name = ""
    groups = {""} | {other.rpartition(" ")[0] + " " for other in known if " " in other}
    while name in groups and words and not words[0].startswith("-"):
        choices = re.split(r" \| ", re.split(r" (?!\|)(?<!\| )", " ".join(words))[0])  # `import dsjson | obp` names two
        missing = [choice for choice in choices if name + choice not in known]
        if missing:
            return name + missing[0]
        name, words = f"{name}{choices[0]} ", words[2 * len(choices) - 1 :]
    options = {re.split(r"[=.,:]", word)[0] for word in words if word.startswith("--")}
    return min(options - known[name.strip()] - {"--help", "--json"}, default=None)


@each_page
def test_every_path_named_in_a_page_exists(page: Path) -> None:
    assert [path for path in paths(text(page)) if not exists(path)] == []


@each_page
def test_every_file_named_without_its_folder_exists(page: Path) -> None:
    names = {name for words in code(text(page)) for name in re.findall(r"(?<![\w./*-])\w+\.py\b", words)}
    assert names - {file.name for file in CODE} == set()


@each_page
def test_every_module_named_in_a_page_exists(page: Path) -> None:
    names = {name for words in code(text(page)) for name in dotted(words)}
    names |= {".".join(found) for found in re.findall(r"^from ([\w.]+) import (\w+)", text(page), re.MULTILINE)}
    ours = {name for name in names if name.split(".")[0] in FOLDERS and not exists(name.replace(".", "/", 1))}
    assert sorted(name for name in ours if not resolves(name)) == []


@each_page
def test_every_command_named_in_a_page_exists_with_its_options(page: Path) -> None:
    known = commands()
    calls = [call for words in code(text(page)) for call in called(words)]
    assert {call: wrong for call in calls if (wrong := unknown(call, known))} == {}


@each_page
def test_every_target_named_in_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    runs = {name: {file.stem for file in (ROOT / "tests" / name).glob("*.py")} for name in ("bench", "soak")}
    for words in code(text(page)):
        for target, name in re.findall(r"^make ([a-z-]+)(?: NAME=([\w|]+))?", words):
            assert target in targets, words
            assert set(name.split("|")) - {"", "NAME"} <= runs.get(target, set()), words


@each_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_every_path_named_in_comments_and_docstrings_exists() -> None:
    named = {(path, str(file.relative_to(ROOT))) for file in CODE for path in paths(text(file))}
    assert sorted(where for where in named if not exists(where[0])) == []


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "infra/docs/README.md").read_text("utf-8")
    listed = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert {page.name for page in (ROOT / "infra/docs").glob("*.md")} - {"README.md"} <= listed
    records = (ROOT / "infra/docs/adr/README.md").read_text("utf-8")
    assert {page.name for page in (ROOT / "infra/docs/adr").glob("0*.md")} == set(re.findall(r"\]\(([^)]+)\)", records))


def test_the_finders_find_what_does_not_exist() -> None:
    assert paths("see `decision/nothing.py`, decision/ope/*.py and x/decision/y.py.") == [
        "decision/nothing.py",
        "decision/ope/*.py",
    ]
    assert not exists("decision/nothing.py")
    assert exists("decision/ope/*.py")
    assert dotted("`pipelines.lake.nothing` of pipelines/lake.py") == ["pipelines.lake.nothing"]
    assert not resolves("pipelines.lake.nothing")
    assert not resolves("decision.draw.nothing")
    assert resolves("decision.draw")
    known = {
        "audit": set(),
        "audit mine": {"--home"},
        "audit people": set(),
        "audit people add": {"--role"},
        "guard": {"--cap"},
    }
    calls = called("decision audit mine x && decision guard x --nothing     # --cap 1")
    assert [unknown(call, known) for call in calls] == [None, "--nothing"]
    wrong = ["audit nothing", "nothing", "audit mine | nothing", "audit people add A --rule x"]
    assert [unknown(call, known) for call in wrong] == ["audit nothing", "nothing", "audit nothing", "--rule"]
    right = ["guard x --cap 1", "audit mine | people", "audit people add A --role x"]
    assert [unknown(call, known) for call in right] == [None, None, None]
