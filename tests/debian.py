"""Programs that tests start: the system's, or those of a package of Debian, unpacked into a cache without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from pipelines.files import locked
from tests.parts import require


def program(package: str, path: str) -> str:
    """Return a program; skip the test where it is not installed and Debian's cannot be had.

    Args:
        package: Debian's name of what it comes with.
        path: of the program in that package, as ``usr/bin/promtool``.
    """
    found, reason = _found(package, path)
    require(found, reason)
    return found


@cache
def _found(package: str, path: str) -> tuple[str, str]:
    """Return the program, or "" and the reason."""
    name = Path(path).name
    if installed := shutil.which(name):
        return installed, ""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "", f"{name} is not installed, and this is no Debian to fetch it from"
    cache_folder = Path("~/.cache/decision", package).expanduser()
    cache_folder.mkdir(parents=True, exist_ok=True)
    with locked(cache_folder / "lock"):
        kept = cache_folder / "package" / path
        if kept.is_file():
            return str(kept), ""
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            download = ["apt-get", "download", "-qq", package]
            done = _run(download, scratch)
            if done.returncode != 0 and os.geteuid() == 0:  # a fresh machine has no lists yet
                _run(["apt-get", "update", "-qq"], scratch)
                done = _run(download, scratch)
            if done.returncode != 0:
                return "", f"{name} is not installed, and apt-get cannot fetch it: {done.stderr.strip()[-300:]}"
            archive = next(Path(scratch).glob("*.deb"))
            _run(["dpkg-deb", "--extract", str(archive), "unpacked"], scratch)
            Path(scratch, "unpacked").rename(cache_folder / "package")
        return str(kept), ""


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
