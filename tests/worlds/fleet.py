"""A fleet on this machine: processes with homes of their own on shared parts, and callers that go to any replica."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.files import SOURCES
from pipelines.operations.processes import environment
from pipelines.settings import Settings
from tests.worlds.accounts import Told
from tests.worlds.synthetic import BAD, GOOD, KINDS

_END_S = 300.0
_PATIENCE_S = 4.0
_PAUSE_S = 0.05
LESS = 0.25
"""What an action that does not pay is worth: no default, so that every report is seen in a reward."""


class Member:
    """One process and all that it starts, known by its home folder.

    Args:
        settings: its installation.
        command: its command line.
        output: folder for what it prints.
        kept: a killed one finds its home folder again.

    Attributes:
        name: that of its home folder.
        ended: how often it ended by itself, by status.
        process: the one that was started; None while it does not run.
    """

    def __init__(self, settings: Settings, command: Sequence[str], output: Path, *, kept: bool = True) -> None:
        self.settings, self.name = settings, settings.root.name
        self.ended = Counter[int]()
        self._command, self._kept = command, kept
        self.said, self._log = output / f"{self.name}.out", output / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it does not run yet."""
        self.settings.root.mkdir(parents=True, exist_ok=True)
        with self.said.open("ab") as said, self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=log,
                env=environment(self.settings),
                cwd=SOURCES,
                start_new_session=True,
            )

    def runs(self) -> bool:
        """Return whether it does; that it ended is counted, once."""
        if self.process is None:
            return False
        status = self.process.poll()
        if status is not None:
            self.ended[status] += 1
            self.process = None
        return status is None

    def kill(self) -> None:
        """End all its processes at once, as a crash of the machine does; a folder that is not kept goes with them."""
        while found := processes_of(self.settings.root):  # one that was being started meanwhile, too
            _signal(found, signal.SIGKILL)
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait()
            self.process = None
        if not self._kept:
            shutil.rmtree(self.settings.root, ignore_errors=True)

    def hurt(self, rng: random.Random) -> str:
        """Kill one of the processes that it has started, and return that one's command line, "" where there is none."""
        first = None if self.process is None else self.process.pid
        others = [pid for pid in sorted(processes_of(self.settings.root)) if pid != first]
        if not others:
            return ""
        chosen = rng.choice(others)
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{chosen}/cmdline").read_bytes().decode(errors="replace").split("\0")
            _signal([chosen], signal.SIGKILL)
            return " ".join(words[1:5])
        return ""

    def pause(self) -> list[int]:
        """Stop all its processes where they are, and return them; `go_on` takes them."""
        found = processes_of(self.settings.root)
        _signal(found, signal.SIGSTOP)
        return found

    @staticmethod
    def go_on(processes: Sequence[int]) -> None:
        """Let processes that were stopped go on."""
        _signal(processes, signal.SIGCONT)

    def end(self) -> int | None:
        """Ask it to end and return its status when it has; None when it had to be killed, or had ended before."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process = process
            self.kill()
            return None

    def wait(self) -> int:
        """Wait until it has ended by itself and return its status."""
        process, self.process = self.process, None
        assert process is not None
        return process.wait()


class Caller(threading.Thread):
    """Asks replicas for decisions and reports outcomes, each until it is acknowledged by one of them.

    A repetition has the id of the question, whichever replica it goes to. Now and then another replica is asked what
    is answered already, and the caller acts on what that one says.

    Args:
        name: begins its event ids.
        loop: the loop.
        ports: of the replicas.
        seed: of what it asks and whom.
        rest_s: pause between two decisions, in seconds.

    Attributes:
        statuses: answers by HTTP status, and attempts without one under 0.
        unexpected: answers that no caller should get, by what they say.
    """

    def __init__(self, name: str, loop: str, ports: Sequence[int], seed: int, *, rest_s: float = 0.05) -> None:
        super().__init__(daemon=True, name=name)
        self.told = Told({}, {}, set(), set())
        self.statuses: Counter[int] = Counter()
        self.unexpected: Counter[str] = Counter()
        self._path, self._ports, self._rest_s = f"/v1/loops/{loop}", list(ports), rest_s
        self._rng = random.Random(f"{seed}-{name}")
        self._over = threading.Event()
        self._lines: dict[int, http.client.HTTPConnection] = {}

    def run(self) -> None:
        number = 0
        while not self._over.wait(self._rest_s):
            number += 1
            self._once(f"{self.name}-{number}")
        for line in self._lines.values():
            line.close()

    def end(self) -> None:
        """Ask nothing more; return when all that was asked is acknowledged."""
        self._over.set()
        self.join()

    def _once(self, event_id: str) -> None:
        kind = self._rng.choice(KINDS)
        actions = [{"id": colour, "features": {"colour": colour}} for colour in KINDS]
        question = {"event_id": event_id, "context": {"kind": kind}, "actions": actions}
        self._decided(event_id, self._until(200, "decide", question))
        if self._rng.random() < 0.1 and (answer := self._post(self._any(), "decide", question))[0] == 200:
            self._decided(event_id, answer[1])
        if self._rng.random() < 0.1:
            return  # nothing is heard of it again
        action = self.told.answers[event_id][-1]
        value = 1.0 if self._rng.random() < (GOOD if action == kind else BAD) else LESS
        self.told.reports[event_id] = (action, value)
        report = {"event_id": event_id, "value": value, "action_id": action, "idempotency_key": event_id}
        self._until(202, "outcomes", report)
        self.told.accepted.add(event_id)

    def _decided(self, event_id: str, answer: bytes) -> None:
        read = json.loads(answer)
        self.told.answers.setdefault(event_id, []).append(read["action_id"])
        self.told.versions.add(read["policy_version"])

    def _until(self, wanted: int, what: str, body: dict[str, object]) -> bytes:
        while True:
            status, answer = self._post(self._any(), what, body)
            if status == wanted:
                return answer
            time.sleep(_PAUSE_S)

    def _any(self) -> int:
        return self._rng.choice(self._ports)

    def _post(self, port: int, what: str, body: dict[str, object]) -> tuple[int, bytes]:
        line = self._lines.pop(port, None) or http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        try:
            line.request("POST", f"{self._path}/{what}", json.dumps(body))
            response = line.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException):
            line.close()
            status, answer = 0, b""
        else:
            self._lines[port] = line
        self.statuses[status] += 1
        if status not in (0, 200, 202, 503):
            self.unexpected[f"{what}: {status} {answer.decode(errors='replace')[:300]}"] += 1
        return status, answer


def all_told(callers: Sequence[Caller]) -> Told:
    """Return what all of them know."""
    told = Told({}, {}, set(), set())
    for caller in callers:
        told.answers.update(caller.told.answers)
        told.reports.update(caller.told.reports)
        told.accepted.update(caller.told.accepted)
        told.versions.update(caller.told.versions)
    return told


def processes_of(home: Path) -> list[int]:
    """Return the processes whose installation is in `home`, whatever sessions and groups they made for themselves."""
    wanted, found = f"DECISION_HOME={home}".encode(), list[int]()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            if pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
