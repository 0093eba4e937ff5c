"""How far long work has come: a step tells it to a callback, and knows nothing of who draws it.

A step takes ``progress: Progress = silent`` and calls it once per batch, part or round, not per row. On the command
line `pipelines.commands.outcome.progress` is such a callback; it draws a bar on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Takes news of work."""

    def __call__(self, what: str, done: float, total: float | None = None, /) -> None:
        """Take the news that `done` of `total` are done.

        Args:
            what: what goes on and in which unit, such as ``decisions joined``; another text begins a new count, but
                not where a share goes on.
            done: how much of it is done, from 0.
            total: how much there is, None where nobody knows; 1 makes `done` a share.
        """
        ...


def silent(what: str, done: float, total: float | None = None) -> None:
    """Take the news and say nothing."""


def counted(
    items: Iterable[T],
    progress: Progress,
    what: str,
    *,
    total: float | None = None,
    size: Callable[[T], int] = lambda item: 1,
    every: int = 1,
) -> Iterator[T]:
    """Yield `items`, and tell `progress` how many went by.

    An item counts once the next one is asked for, that is when the work on it is done.

    Args:
        items: what is worked on.
        progress: told at the start, after each item and at the end.
        what: as in `Progress`.
        total: the sum of all sizes, None where nobody knows.
        size: how much an item counts, ``len`` for batches.
        every: tell only once so much is done since it was told last, where items are many and small.
    """
    done = told = 0
    progress(what, done, total)
    for item in items:
        yield item
        done += size(item)
        if done - told >= every:
            told = done
            progress(what, done, total)
    if done > told:
        progress(what, done, total)


def parted(progress: Progress, what: str, total: int) -> Callable[[], None]:
    """Return what is to be called after each of `total` parts, and tell `progress` of the start and of each part."""
    done = 0
    progress(what, done, total)

    def part_done() -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    return part_done
