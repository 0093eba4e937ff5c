"""Somebody who follows a page: writes its files, types its commands, runs its Python, asks its service."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

from infra.site.blocks import Block, blocks
from pipelines.operations.waiting import wait_until
from pipelines.settings import load_settings
from serving.http.app import App
from serving.start import open_core
from tests.browser.console_server import serving
from tests.infra.site import warm
from tests.worlds.synthetic import new_settings

ROOT = Path(__file__).parents[3]
FILE = re.compile(r"# (\S+\.\w+)\n")
SERVE = re.compile(r"^((?:\w+=\S+ )*)decision serve\b.*$", re.MULTILINE)
ASSIGNED = re.compile(r"(?:export )?[A-Z][A-Z_]*=\S")
_SERVICE = re.compile(r"(?:localhost|127\.0\.0\.1):8080")
_PATIENCE_S = 600
_CALM = {"NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

Step = Callable[["Reader", Block], None]


@contextmanager
def shell(folder: Path) -> Iterator[Path]:
    """Give a folder of programs whose `decision` is imported already (`tests/infra/site/warm.py`)."""
    path = folder / "warm"
    start = "import sys; from tests.infra.site.warm import listen; listen(sys.argv[1])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DECISION_")} | _CALM
    process = subprocess.Popen([sys.executable, "-c", start, str(path)], cwd=ROOT, env=environ)
    try:
        tools = folder / "bin"
        tools.mkdir()
        words = {"decision": f'"{sys.executable}" -SE "{warm.__file__}" "{path}"', "python": f'"{sys.executable}"'}
        for name, program in words.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (tools / name).chmod(0o755)
        wait_until(path.exists, "the command line to be imported")
        yield tools
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


class Reader:
    """A folder with an installation in `.decision`, a shell, a Python session, and a service when the page wants one.

    Args:
        folder: where the reader is.
        tools: folder of programs, as `shell` gives it.
        variables: of the environment, beside the tests' own.

    Attributes:
        home: the installation.
        stand_ins: text of the page, and what stands in for it here: addresses, versions, days.
        names: those of the page's Python.
        told: what each block of commands printed.
    """

    def __init__(self, folder: Path, tools: Path, **variables: str) -> None:
        self.folder, self.home = folder, folder / ".decision"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DECISION_")}
        paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.environ = {**kept, **paths, **_CALM, **variables}
        self.stand_ins: dict[str, str] = {}
        self.names: dict[str, Any] = {}
        self.told: list[str] = []
        self._running = ExitStack()
        self.address = ""
        self.move(folder)

    def move(self, folder: Path) -> None:
        """Go on in another folder; it has a new installation if it has none."""
        self.end()
        self.folder, self.home = folder, folder / ".decision"
        if self.home.is_dir():
            self.settings = load_settings({}, home=str(self.home))
            return
        self.home.mkdir(parents=True, mode=0o700)
        self.settings = new_settings(self.home)

    def follow(
        self, page: Path, *, before: Mapping[str, Step] | None = None, instead: Mapping[str, Step] | None = None
    ) -> None:
        """Do what the page says, block by block; those that are marked as not run are passed over.

        Args:
            page: the file.
            before: what has happened by the time that the block which begins so is read.
            instead: how the block which begins so is done.
        """
        before, instead = before or {}, instead or {}
        left = {*before, *instead}
        for block in blocks(page.read_text("utf-8")):
            if block.mark:
                continue
            own = next((begins for begins in instead if block.text.startswith(begins)), None)
            prepared = next((begins for begins in before if block.text.startswith(begins)), None)
            left -= {own, prepared}
            try:
                if prepared is not None:
                    before[prepared](self, block)
                if own is not None:
                    instead[own](self, block)
                else:
                    self._do(block)
            except Exception as error:
                error.add_note(f"{page.name}:{block.first + 1}")
                raise
        assert left == set(), "no block begins so"

    def here(self, text: str) -> str:
        """Return text of the page with what stands in for it here."""
        if _SERVICE.search(text):
            self.serve()
            text = _SERVICE.sub(self.address, text)
        for shown, real in self.stand_ins.items():
            text = text.replace(shown, real)
        return text

    def serve(self, **variables: str) -> str:
        """Have a service running, begun now if there is none; return its address."""
        if not self.address:
            settings = load_settings({**self.environ, **variables}, home=str(self.home))
            app = App(lambda: open_core(settings))
            self._running.callback(app.close)
            self.address = self._running.enter_context(serving(app)).removeprefix("http://")
        return f"http://{self.address}"

    def end(self) -> None:
        """End the service."""
        self._running.close()
        self.address = ""

    def run(self, script: str, shown: str = "script") -> str:
        """Run lines of shell; return what they printed."""
        script = re.sub(r"\bcurl (?:-s )?", "curl -sS --fail-with-body ", script)
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{shown}{done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        self.told.append(done.stdout)
        return done.stdout + done.stderr

    def _do(self, block: Block) -> None:
        file = FILE.match(block.text)
        if file:
            path = self.folder / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.here(block.text))
        elif re.search(r"^\$ ", block.text, re.MULTILINE):
            self._repeat(block)
        elif block.language == "sh":
            self._type(block)
        elif block.language == "python":
            with chdir(self.folder):
                exec(compile(self.here(block.text), "page", "exec"), self.names)
        elif block.language == "json":
            self._compare(json.loads(block.text))
        else:  # settings and policies are loaded by `test_blocks.py`
            assert block.language in ("toml", "yaml"), f"nobody knows how to read {block.language}"

    def _type(self, block: Block) -> None:
        rest = block.text
        while rest:
            served = SERVE.search(rest)
            now, rest = (rest[: served.start()], rest[served.end() :]) if served else (rest, "")
            if now.strip():
                self.run(self.here(now), now)
            if served:
                self.end()
                given = (word.split("=", 1) for word in self.here(served[1]).split())
                self.serve(**dict(given))

    def _repeat(self, block: Block) -> None:
        """Run each command of a transcript, and hold what it prints against what the page shows."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, *shown = part.strip().splitlines()
            printed = {_looks(line) for line in self.run(self.here(command), command).splitlines()}
            for line in shown:
                if line != "...":
                    assert any(_looks(line) <= other for other in printed), (line, self.told[-1])

    def _compare(self, shown: Any) -> None:
        """Hold the answer that the page shows against the last one; its shortened words stand for the real ones on."""
        answered = json.loads(self.told[-1])
        assert shape(shown) == shape(answered), (shown, answered)
        for key, value in shown.items():
            if isinstance(value, str) and value.endswith("..."):
                self.stand_ins[value] = answered[key]


def shape(value: Any) -> Any:
    """Return what an answer is made of: keys and types; of a list, those of its first element."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value[:1]] if isinstance(value, list) else type(value).__name__


def _looks(line: str) -> frozenset[str]:
    """The words of a line that are the same everywhere: no times, numbers, paths or addresses."""
    return frozenset(word for word in shlex.split(line.replace("'", "")) if not re.search(r"[\d/]|\.\.\.", word))
