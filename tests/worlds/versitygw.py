"""A second S3 server on this machine: versitygw, on files; built from its source where Go is, which takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

import pytest

from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from tests.worlds.s3 import BUCKET, S3

VERSION = "v1.8.0"
_CACHE = Path("~/.cache/decision/versitygw").expanduser() / VERSION


def missing() -> str:
    """Return why there is no such server here, "" where there is one or it can be built."""
    if _found() is None and shutil.which("go") is None:
        return "neither versitygw nor Go, which builds it, is installed"
    return ""


def program() -> Path:
    """Return the server's program, built on first use."""
    if (found := _found()) is not None:
        return found
    _CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as scratch:
        command = ["go", "install", f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"]
        subprocess.run(command, env={**os.environ, "GOPATH": scratch, "GOFLAGS": "-modcacherw"}, check=True)
        (Path(scratch) / "bin").rename(_CACHE)
    return _CACHE / "versitygw"


def _found() -> Path | None:
    if (_CACHE / "versitygw").is_file():
        return _CACHE / "versitygw"
    named = shutil.which("versitygw")
    return None if named is None else Path(named)


class Versitygw(S3):
    """The server with one bucket, from entering to leaving; it does not count what it is asked."""

    def __enter__(self) -> Versitygw:
        self._folder = Path(tempfile.mkdtemp(prefix="versitygw-"))
        for name in ("buckets", "about"):  # not every file system has attributes for what is known about an object
            (self._folder / name).mkdir()
        (self._folder / "buckets" / BUCKET).mkdir()
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._output = (self._folder / "output.txt").open("wb")
        self._process = subprocess.Popen(
            [
                *(program(), "--access", "test", "--secret", "test", "--port", f"127.0.0.1:{port}", "--quiet"),
                *("posix", "--sidecar", self._folder / "about", self._folder / "buckets"),
            ],
            stdout=self._output,
            stderr=self._output,
        )
        wait_until(self._answers, "versitygw")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def asked(self) -> list[str]:
        """Skip the test that wants to know."""
        pytest.skip("versitygw does not count its requests")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "output.txt").read_text()
        try:
            urllib.request.urlopen(self.address).close()
        except urllib.error.HTTPError:  # it wants a signature, and so it is there
            return True
        except OSError:
            return False
        return True
