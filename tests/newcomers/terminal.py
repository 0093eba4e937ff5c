"""A newcomer's terminal, and the lines of the documentation that they type into it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pexpect

from tests.test_docs import text

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 300
_CALM = {"NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}


def typed(begins: str, *pages: str) -> str:
    """Return the shortest line of code that begins so, without its comment, in the first of `pages` that has one.

    Pages are paths from the root, or patterns of them.
    """
    for page in [page for pattern in pages for page in sorted(ROOT.glob(pattern))]:
        lines = [line.strip() for line in text(page).splitlines() if line.startswith("    ")]
        code = [line.removeprefix("$ ").partition("  #")[0].strip() for line in lines]
        if found := [line for line in code if line.startswith(begins)]:
            return min(found, key=len)
    raise AssertionError(f"no line of code in {pages} begins with {begins!r}")


def file_of(begins: str, page: str) -> str:
    """Return the block of code in `page` whose first line is `begins`, without its margin."""
    lines = text(ROOT / page).splitlines()
    start = lines.index(f"    {begins}")
    stop = next(at for at in range(start, len(lines)) if lines[at] and not lines[at].startswith("    "))
    return "\n".join(line[4:] for line in lines[start:stop]).strip() + "\n"


class Terminal:
    """A shell in a folder, with one installation.

    Args:
        folder: where the newcomer is.
        home: the installation's folder.
        variables: others of the environment.
    """

    def __init__(self, folder: Path, home: Path, **variables: str) -> None:
        self._folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        others = {name: value for name, value in os.environ.items() if not name.startswith("DECISION_")}
        python = {"PYTHONPATH": f"{ROOT}"}
        self._environment = {**others, **_CALM, **python, "PATH": path, "DECISION_HOME": str(home), **variables}

    def start(self, line: str) -> Any:
        """Type a line and return the running command."""
        return pexpect.spawn(
            "/bin/bash",
            ["-c", line],
            cwd=str(self._folder),
            env=self._environment,  # type: ignore[arg-type]
            timeout=_PATIENCE_S,
            encoding="utf-8",
            dimensions=(60, 220),
        )

    def run(self, line: str, status: int = 0) -> str:
        """Type a line, wait for its end and return what it said; its exit status has to be `status`."""
        child = self.start(line)
        child.expect(pexpect.EOF)
        child.close()
        said = child.before.replace("\r\n", "\n")
        assert child.exitstatus == status, (line, child.exitstatus, child.signalstatus, said[-2_000:])
        return said
