"""A bar with a rate, on a terminal, for work that takes longer than three seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

AFTER_S = 3.0


@dataclass(slots=True)
class _Count:
    what: str
    first: float
    since: float
    done: float = 0.0
    total: float | None = None
    task: TaskID | None = None

    def goes_on(self, what: str, done: float, total: float | None) -> bool:
        """Return whether the news is of the same count: the same work, or a larger share of a whole of many works."""
        return what == self.what or (total == 1.0 and self.total == 1.0 and done >= self.done)


class Bar:
    """A `pipelines.progress.Progress` that draws what it is told.

    Nothing is drawn, and no library imported for it, before `after` seconds have passed since the first news. Nothing
    stays on the screen once it is closed.

    Args:
        console: a terminal.
        after: seconds.
    """

    def __init__(self, console: Console, *, after: float = AFTER_S) -> None:
        self._console, self._after = console, after
        self._lock = threading.Lock()
        self._count: _Count | None = None
        self._timer: threading.Timer | None = None
        self._drawn: Progress | None = None
        self._closed = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            if self._drawn is not None:
                self._drawn.stop()

    def __call__(self, what: str, done: float, total: float | None = None) -> None:
        """Take the news that `done` of `total` are done; see `pipelines.progress.Progress`."""
        with self._lock:
            if self._closed:
                return
            if self._count is None or not self._count.goes_on(what, done, total):
                self._begin(_Count(what, first=done, since=time.monotonic()))
            assert self._count is not None  # noqa: S101 - begun above
            self._count.what, self._count.done, self._count.total = what, done, total
            self._show()
            if self._timer is None:
                self._timer = threading.Timer(self._after, self._draw)
                self._timer.daemon = True
                self._timer.start()

    def _begin(self, count: _Count) -> None:
        if self._drawn is not None and self._count is not None and self._count.task is not None:
            self._drawn.remove_task(self._count.task)
        self._count = count

    def _draw(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
        )
        with self._lock:
            if not self._closed:
                self._drawn = Progress(*columns, console=self._console, transient=True)
                self._show()
                self._drawn.start()

    def _show(self) -> None:
        count = self._count
        if self._drawn is None or count is None:
            return
        told: dict[str, Any] = {
            "description": count.what,
            "completed": count.done,
            "total": count.total,
            "said": said(count.done, count.total, count.done - count.first, time.monotonic() - count.since),
        }
        if count.task is None:
            count.task = self._drawn.add_task(**told)
        else:
            self._drawn.update(count.task, **told)


def said(done: float, total: float | None, gained: float, seconds: float) -> str:
    """Return what stands beside a bar: ``1,200 of 5,000, 400/s, 0:10 left``.

    Args:
        done: how much is done; a share in percent where `total` is 1.
        total: how much there is, if known.
        gained: how much of it was done in `seconds`.
        seconds: since the count began.
    """
    share = total == 1.0
    amount = f"{done:.0%}" if share else f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}"
    if gained <= 0 or seconds <= 0:
        return amount
    rate = gained / seconds
    words = [amount] if share else [amount, f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"]
    if total is not None and total >= done:
        minutes, left = divmod(round((total - done) / rate), 60)
        words.append(f"{minutes}:{left:02d} left")
    return ", ".join(words)
