"""Prometheus' own checker of rules: the system's, or Debian's package unpacked into a cache, which needs no root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from pipelines.files import locked
from tests.parts import require


def promtool(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Return what ``promtool`` said; skip the test where it is not installed and Debian's cannot be had.

    Args:
        arguments: of the program.
        given: its standard input.
    """
    program, reason = _found()
    require(program, reason)
    return subprocess.run([program, *arguments], input=given, capture_output=True, text=True, check=False)


@cache
def _found() -> tuple[str, str]:
    """Return the program, or "" and the reason."""
    if installed := shutil.which("promtool"):
        return installed, ""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "", "promtool is not installed, and this is no Debian to fetch it from"
    cache_folder = Path("~/.cache/decision/prometheus").expanduser()
    cache_folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_folder / "lock"):
        program = cache_folder / "package/usr/bin/promtool"
        if program.is_file():
            return str(program), ""
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            download = ["apt-get", "download", "-qq", "prometheus"]
            done = _run(download, scratch)
            if done.returncode != 0 and os.geteuid() == 0:  # a fresh machine has no lists yet
                _run(["apt-get", "update", "-qq"], scratch)
                done = _run(download, scratch)
            if done.returncode != 0:
                return "", f"promtool is not installed, and apt-get cannot fetch it: {done.stderr.strip()[-300:]}"
            package = next(Path(scratch).glob("*.deb"))
            _run(["dpkg-deb", "--extract", str(package), "unpacked"], scratch)
            Path(scratch, "unpacked").rename(cache_folder / "package")
        return str(program), ""


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
