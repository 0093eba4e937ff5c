"""A place for arrays that come part by part: the first parts stay in memory, the rest lie in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from decision.parts import Parts

HELD_BYTES = 64 << 20
"""What is held in memory."""


@contextmanager
def scratch(held_bytes: int = HELD_BYTES) -> Iterator[Callable[[], Parts]]:
    """Give what makes places for parts; they end with the block.

    Args:
        held_bytes: what each holds in memory.
    """
    with ExitStack() as places:
        yield lambda: places.enter_context(Spill(held_bytes))


class Spill:
    """Parts, see `decision.parts`; a context manager, whose file has no name and goes with it.

    The file lies in the system's folder for temporary files (``TMPDIR``), which should not be memory itself.
    """

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._room = held_bytes
        self._held: list[list[NDArray[Any]]] = []
        self._file: IO[bytes] | None = None
        self._shapes: list[list[tuple[np.dtype[Any], tuple[int, ...]]]] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._held) + len(self._shapes)

    def append(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Add a part, and return whether it is held in memory."""
        self._room -= sum(array.nbytes for array in arrays)
        if self._room >= 0 and self._file is None:
            self._held.append(list(arrays))
            return True
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="decision-")  # noqa: SIM115 - closed by __exit__
        for array in arrays:
            np.ascontiguousarray(array).tofile(self._file)
        self._shapes.append([(array.dtype, array.shape) for array in arrays])
        return False

    def __iter__(self) -> Iterator[list[NDArray[Any]]]:
        """Yield the parts in the order they came in."""
        yield from self._held
        yield from self.read()

    def read(self) -> Iterator[list[NDArray[Any]]]:
        """Yield the parts that are not held, which come after those that are."""
        if self._file is None:
            return
        self._file.flush()
        place = 0
        for shapes in self._shapes:
            self._file.seek(place)
            part = [np.fromfile(self._file, dtype, int(np.prod(shape))).reshape(shape) for dtype, shape in shapes]
            place += sum(array.nbytes for array in part)
            yield part
