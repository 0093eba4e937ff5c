"""What State raises."""

from __future__ import annotations


class StateError(RuntimeError):
    """The database cannot be reached, or does not do what it is told; whether a change was made is not known."""


class StaleError(StateError):
    """A key is not at the version that was expected; read it and decide again."""

    def __init__(self, key: str, expected: int | None) -> None:
        super().__init__(f"{key}: expected {'nothing there' if expected is None else f'version {expected}'}")
        self.key, self.expected = key, expected


class FencedError(StateError):
    """The lease that was to fence a change has another holder by now."""


class DamagedRowError(StateError):
    """What stands under a key is not what is kept there: somebody changed it by hand, or the disk did."""

    def __init__(self, key: str, found: str) -> None:
        super().__init__(
            f"the row {key!r} of State is damaged: {found}; restore State, or put back what `state_changes` has of it"
        )
        self.key = key
