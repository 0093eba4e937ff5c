"""A small disk of a test's own, which can be full and cannot be written to: a file system in memory."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.parts import require

_MIB = 1 << 20
_BLOCK = 4096


class Disk:
    """A file system of so many bytes.

    Args:
        path: where it is mounted; a folder that exists.
        size: bytes.
    """

    def __init__(self, path: Path, size: int = 256 * _MIB) -> None:
        self.path = path
        self._ballast = path / "ballast"
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))

    def fill(self, free: int = 0) -> None:
        """Take all of its room but `free` bytes."""
        self.empty()
        with self._ballast.open("wb", buffering=0) as file:
            for size in (_MIB, _BLOCK):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        with suppress(OSError):
            os.truncate(self._ballast, max(0, self._ballast.stat().st_size - free))

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def write_protect(self) -> None:
        """Let nobody open a file for writing; who has one open goes on."""
        _run("mount", "--bind", str(self.path), str(self.path))
        _run("mount", "-o", "remount,bind,ro", str(self.path))

    def unprotect(self) -> None:
        """Let everybody write again."""
        _run("umount", "--lazy", str(self.path))

    def close(self) -> None:
        """Take it away."""
        _run("umount", "--lazy", str(self.path))


@contextmanager
def own_disk(folder: Path) -> Iterator[Disk]:
    """Give a disk that is mounted in `folder`; skip the test where none may be."""
    require(_may_mount(), "the right to mount a file system in memory")
    path = folder / "disk"
    path.mkdir()
    disk = Disk(path)
    try:
        yield disk
    finally:
        disk.close()


@cache
def _may_mount() -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            Disk(Path(folder), _MIB).close()
        except OSError:
            return False
    return True


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr.strip())
