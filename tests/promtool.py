"""Prometheus' own checker of rules and of what services expose."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.debian import program


def promtool(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Return what ``promtool`` said; skip the test where there is none.

    Args:
        arguments: of the program.
        given: its standard input.
    """
    command = [program("prometheus", "usr/bin/promtool"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)
