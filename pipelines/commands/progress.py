"""How far a command is: a bar with a rate in a terminal once it takes longer, a line per part elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.commands.outcome import console

PATIENCE = 3.0
"""Seconds before a bar appears."""


@contextmanager
def rows_bar(
    *, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what takes a part's name, the rows it has done and all its rows, 0 where they are not known.

    Args:
        clock: seconds.
        patience: seconds before the bar appears; what takes less shows none.
    """
    if not console.is_terminal:
        told: list[str] = []

        def line(what: str, done: int, of: int) -> None:
            if told[-1:] != [what]:
                told.append(what)
                console.print(f"  {what} of {of} decisions" if of else f"  {what}", markup=False, highlight=False)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} decisions/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    bar = Progress(*columns, console=console, transient=True)
    began, part = clock(), ""
    task = bar.add_task("", total=None)

    def show(what: str, done: int, of: int) -> None:
        nonlocal part
        if what != part:
            part = what
            bar.reset(task, total=of or None, description=what, completed=done)
        bar.update(task, completed=done)
        if not bar.live.is_started and clock() - began > patience:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
