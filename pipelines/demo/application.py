"""The demo's application as seen from outside: a process that takes orders and tells how it stands."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipelines.demo.traffic import Habits, Status
from pipelines.files import SOURCES
from pipelines.operations.processes import ServiceError, tail
from pipelines.operations.waiting import wait_until


class ApplicationProcess:
    """A running application; `running` starts one.

    Args:
        process: the process.
        errors: file with its error output.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.status = Status()
        self._process = process
        self._errors = errors
        self._bursts = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def burst(self, count: int, progress: Callable[[Status], None] | None = None) -> None:
        """Have it make `count` decisions as fast as they are answered, and wait for the last."""
        self._bursts += 1
        self._order(f"burst {count}")
        self.wait(lambda status: status.bursts >= self._bursts, progress=progress)

    def trickle(self, per_second: float) -> None:
        """Have it make `per_second` decisions a second from now on."""
        self._order(f"trickle {per_second}")

    def stop(self) -> None:
        """Have it stop asking, and wait until it has reported everything."""
        self._order("stop")
        self.wait(lambda status: status.stopped)
        self._process.wait()

    def wait(
        self,
        until: Callable[[Status], bool],
        *,
        moves: Callable[[Status], object] = lambda status: status,
        progress: Callable[[Status], None] | None = None,
    ) -> Status:
        """Wait while it gets on until its status is as wanted, and return it.

        Args:
            until: whether it is.
            moves: what of the status shows that what is waited for gets on.
            progress: told of the status now and then.

        Raises:
            ServiceError: it ended.
            StandstillError: nothing moves any more.
        """

        def reached() -> bool:
            if progress is not None:
                progress(self.status)
            if until(self.status):
                return True
            ended = self._process.poll() is not None and not self._thread.is_alive()
            if ended and not until(self.status):
                raise ServiceError(f"the application ended:\n{tail(self._errors)}")
            return False

        wait_until(reached, "the application", progress=lambda: moves(self.status))
        return self.status

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        decoder = msgspec.json.Decoder(Status)
        for line in self._process.stdout:
            self.status = decoder.decode(line)


@contextmanager
def running(url: str, *, world: str, seed: int, journal: Path, habits: Habits) -> Iterator[ApplicationProcess]:
    """Start an application; it ends with the block, at once if it was not stopped before.

    Args:
        url: address of the loop.
        world: what it asks about.
        seed: of everything it does at random.
        journal: where it writes its acknowledgements; its errors go beside it.
        habits: how it reports.
    """
    errors = journal.with_suffix(".log")
    command = [
        *(sys.executable, "-m", "pipelines.demo.traffic", "--url", url, "--world", world, "--seed", str(seed)),
        *("--journal", str(journal), "--habits", msgspec.json.encode(habits).decode()),
    ]
    with errors.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - a command line of ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, cwd=SOURCES
        )
    try:
        yield ApplicationProcess(process, errors)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
