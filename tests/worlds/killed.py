"""Work that is killed at one of its calls, as by a power cut, in a process of its own.

Importing takes seconds; a fork takes none. The process that forks has only imported, so that no thread of a library is
left behind in it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

_FORKS = """
import os, signal, sys, traceback

calls, nth = 0, 0

def counted(work):
    def run(*args, **kwargs):
        global calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **kwargs)
    return run

{prepared}

def work():
{work}

for line in sys.stdin:
    child = os.fork()
    if not child:
        nth = int(line)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Killed:
    """Runs work again and again, each time killed at another call; a context manager.

    Args:
        prepared: Python that imports, and wraps by ``counted`` the functions at whose calls it may be killed.
        work: Python, one line after the other.
    """

    def __init__(self, prepared: str, work: str) -> None:
        body = "\n".join(f"    {line}" for line in work.strip().splitlines())
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKS.format(prepared=prepared, work=body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def at(self, nth: int) -> bool:
        """Run the work, killed at the `nth` of the calls that count; return whether it ended before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{nth}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return status == 0
