"""A bar appears on a terminal after a while, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.commands.bar import Bar, said
from pipelines.operations.waiting import wait_until
from pipelines.progress import counted

ROOT = Path(__file__).resolve().parents[3]
WORK = """
import sys, threading, pipelines.commands.bar as bar, pipelines.commands.outcome as outcome
bar.Bar.__init__.__kwdefaults__["after"] = {after}

def work(json=False):
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    done = 0
    while not done or not told.wait(0.01):
        done += 1
        outcome.progress("rows [read]", done, 10**9)
    return outcome.Outcome({{"rows": done > 0}}, lambda out: out.print("shown"))

outcome.command(work)(json={json})
"""


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the tests may run in the background, where interrupts are ignored


class Terminal:
    """A process whose standard error is a terminal."""

    def __init__(self, *command: str) -> None:
        leader, follower = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=follower,
            env=environment,
            text=True,
            preexec_fn=_interruptible,
        )
        os.close(follower)
        self._leader, self._text = leader, ""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What the terminal got, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._text)

    def until(self, words: str) -> None:
        """Wait while the terminal gets anything until it has got `words`."""

        def reached() -> bool:
            assert self.process.poll() is None, self.text
            return words in self.text

        wait_until(reached, words, progress=lambda: len(self._text))

    def end(self, line: str = "\n") -> str:
        """Send a line, wait for the end, and return standard output."""
        out, _ = self.process.communicate(line)
        self._thread.join()
        return out

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def _listen(self) -> None:
        try:
            while read := os.read(self._leader, 65536):
                self._text += read.decode(errors="replace")
        except OSError:  # the other side is closed
            pass


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()


def test_a_bar_with_its_rate_appears_on_a_terminal_and_is_gone_at_the_end(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(sys.executable, "-c", WORK.format(after=0.0, json=False)))
    terminal.until("of 1,000,000,000")
    terminal.until("/s")
    assert "rows [read]" in terminal.text
    assert terminal.end() == "shown\n"
    assert terminal.text.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, the line cleared


def test_work_that_ends_sooner_draws_nothing(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(sys.executable, "-c", WORK.format(after=3600.0, json=False)))
    assert terminal.end() == "shown\n"
    assert terminal.text == ""


def test_with_json_a_terminal_gets_no_bar(terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(sys.executable, "-c", WORK.format(after=0.0, json=True)))
    assert terminal.end() == '{"rows":true}\n'
    assert terminal.text.split() == ["shown"]


def test_a_pipe_gets_no_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK.format(after=0.0, json=False)],
        cwd=ROOT, env={**os.environ, "FORCE_COLOR": "1"}, input="\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("shown\n", "")


def test_a_command_that_goes_on_says_so_after_a_while(terminals: list[Terminal], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "-v", "ingest", "--follow", "--home", str(tmp_path)]
    terminals.append(terminal := Terminal(*command))
    terminal.until("messages ingested")
    terminal.process.send_signal(signal.SIGINT)
    assert "ingested: 0 decisions" in terminal.end("")


@pytest.mark.parametrize(
    ("done", "total", "gained", "seconds", "text"),
    [
        (0, None, 0, 0.0, "0"),
        (1200, 5000, 1200, 3.0, "1,200 of 5,000, 400/s, 0:10 left"),
        (1200, None, 1200, 3.0, "1,200, 400/s"),
        (1200, 5000, 200, 2.0, "1,200 of 5,000, 100/s, 0:38 left"),
        (3, 4, 3, 600.0, "3 of 4, 0.005/s, 3:20 left"),
        (0.25, 1.0, 0.25, 30.0, "25%, 1:30 left"),
        (6000, 5000, 6000, 3.0, "6,000 of 5,000, 2,000/s"),
    ],
)
def test_beside_a_bar_stand_amount_rate_and_what_is_left(
    done: float, total: float | None, gained: float, seconds: float, text: str
) -> None:
    assert said(done, total, gained, seconds) == text


def test_a_share_goes_on_whatever_is_worked_on() -> None:
    with Bar(Console(file=io.StringIO(), force_terminal=True, width=120), after=3600.0) as bar:
        bar("lts1, seed 7", 0.25, 1.0)
        bar._draw()
        assert bar._count is not None
        bar._count.since -= 30.0
        bar("lts2, seed 7", 0.5, 1.0)
        assert bar._drawn is not None
        (task,) = bar._drawn.tasks
        assert task.description == "lts2, seed 7"
        assert task.fields["said"] == "50%, 1:00 left"
        bar("rows read", 10, 20)
        (task,) = bar._drawn.tasks
        assert task.fields["said"] == "10 of 20"


def test_many_small_items_are_told_together() -> None:
    told: list[float] = []
    assert list(counted(range(7), lambda what, done, total=None: told.append(done), "rows read", every=3)) == [
        *range(7)
    ]
    assert told == [0, 3, 6, 7]


def test_an_item_counts_once_its_work_is_done() -> None:
    told: list[tuple[str, float, float | None]] = []
    steps = counted([[1, 2], [3]], lambda *news: told.append(news), "rows read", total=3, size=len)
    assert next(steps) == [1, 2]
    assert told == [("rows read", 0, 3)]
    assert list(steps) == [[3]]
    assert told[1:] == [("rows read", 2, 3), ("rows read", 3, 3)]
