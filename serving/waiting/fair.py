"""A queue that no loop can fill for the others, taken from in turns.

How much a loop may have in it follows from what is free: no more than that. One loop fills half of the queue, two fill
two thirds, and k of them leave one part in k + 1 free for the next (Choudhury and Hahne 1998, "Dynamic queue length
thresholds for shared-memory packet switches", equation 1 with alpha = 1). What waits is taken in turns of equal cost,
so that large entries pay for those that they delay (Shreedhar and Varghese 1995, "Efficient fair queueing using deficit
round robin"; here an entry may overdraw its loop's turn, and the next turns pay it back).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["TURN_GROUPS", "FairQueue", "QueueFull"]

TURN_GROUPS = 32
"""Most groups of a turn, where each is smaller than `_GROUP_COST`."""
_GROUP_COST = 16 << 10
"""Bytes that cost a commit as much as a group of its own does."""
_TURN = TURN_GROUPS * _GROUP_COST

Entry = TypeVar("Entry")


class QueueFull(Exception):
    """Too much waits; nothing was taken, try again shortly.

    Attributes:
        loop: which has its share already; "" where the queue has no room for anybody.
    """

    def __init__(self, text: str, loop: str = "") -> None:
        super().__init__(text)
        self.loop = loop


@dataclass(slots=True, eq=False)
class _Line(Generic[Entry]):
    """What one loop has in the queue; `groups` and `size` count what was taken and is not done, too."""

    loop: str
    groups: int = 0
    size: int = 0
    credit: int = 0
    entries: deque[tuple[Entry, int, int]] = field(default_factory=deque)


class FairQueue(Generic[Entry]):
    """Entries of many loops. Not safe to share between threads: whoever owns it holds a lock.

    Args:
        most_groups: of all entries together.
        most_bytes: of all entries together.

    Attributes:
        groups: of entries that are not done yet.
        size: bytes of those.
        waiting: groups of entries that were not taken yet.
    """

    def __init__(self, *, most_groups: int, most_bytes: int) -> None:
        self.groups = self.size = self.waiting = 0
        self._most_groups, self._most_bytes = most_groups, most_bytes
        self._lines: dict[str, _Line[Entry]] = {}
        self._standing: deque[_Line[Entry]] = deque()  # lines with entries, the next to be served first
        self._taken: list[tuple[_Line[Entry], int, int]] = []

    def __bool__(self) -> bool:
        """Return whether there is anything to take."""
        return bool(self._standing)

    def add(self, loop: str, entry: Entry, groups: int, size: int) -> None:
        """Put an entry behind those of its loop.

        Args:
            loop: whose it is.
            entry: it.
            groups: in it.
            size: its bytes.

        Raises:
            QueueFull: there is no room, or the loop has its share and more of others may come. A loop that has nothing
                in the queue is refused only where there is no room.
        """
        line = self._lines.get(loop)
        free_groups, free_bytes = self._most_groups - self.groups - groups, self._most_bytes - self.size - size
        if free_groups < 0 or free_bytes < 0:
            raise QueueFull(f"{self.groups} events and {self.size} bytes wait", "" if line is None else loop)
        if line is None:
            line = self._lines[loop] = _Line(loop)
        elif line.groups + groups > free_groups or line.size + size > free_bytes:
            raise QueueFull(f"{line.groups} events and {line.size} bytes of the loop {loop!r} wait", loop)
        if not line.entries:
            self._standing.append(line)
        line.entries.append((entry, groups, size))
        line.groups += groups
        line.size += size
        self.groups += groups
        self.size += size
        self.waiting += groups

    def take(self, groups: int, size: int) -> list[Entry]:
        """Return entries of the loops in turn, in order within each, until there are so many groups or bytes.

        What was taken goes on counting until `done`.
        """
        batch: list[Entry] = []
        while self._standing and groups > 0 and size > 0:
            line, alone = self._standing[0], len(self._standing) == 1
            line.credit = min(line.credit, 0) + _TURN
            own_groups = own_size = 0
            while line.entries and (alone or line.credit > 0) and own_groups < groups and own_size < size:
                entry, its_groups, its_size = line.entries.popleft()
                batch.append(entry)
                own_groups += its_groups
                own_size += its_size
                line.credit -= its_size + its_groups * _GROUP_COST
            self._taken.append((line, own_groups, own_size))
            groups -= own_groups
            size -= own_size
            self.waiting -= own_groups
            if line.entries:
                self._standing.rotate(-1)
            else:
                self._standing.popleft()
            if alone or not line.entries:  # it delays nobody, and owes nothing
                line.credit = 0
        return batch

    def done(self) -> None:
        """Count what was taken no longer."""
        for line, groups, size in self._taken:
            line.groups -= groups
            line.size -= size
            self.groups -= groups
            self.size -= size
            if not line.groups and not line.entries:
                self._lines.pop(line.loop, None)
        self._taken.clear()
