"""Arrays that come part by part and are gone over many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray


class Parts(Protocol):
    """Where parts, each a list of arrays, are kept; the first ones may be held as they are."""

    def append(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Add a part, and return whether it is held in memory."""
        ...

    def __len__(self) -> int:
        """Return how many parts there are."""
        ...

    def __iter__(self) -> Iterator[list[NDArray[Any]]]:
        """Yield the parts in the order they came in."""
        ...

    def read(self) -> Iterator[list[NDArray[Any]]]:
        """Yield the parts that are not held, which come after those that are."""
        ...


class Held:
    """Parts in memory."""

    def __init__(self) -> None:
        self._parts: list[list[NDArray[Any]]] = []

    def append(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Add a part; it is held."""
        self._parts.append(list(arrays))
        return True

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[list[NDArray[Any]]]:
        """Yield the parts in the order they came in."""
        return iter(self._parts)

    def read(self) -> Iterator[list[NDArray[Any]]]:
        """Yield nothing: all parts are held."""
        return iter(())
