"""Where a guard stands in State.

loop/NAME/guard                  the state
loop/NAME/snapshot               what is published of it
guard/NAME/attempt/NUMBER        the state in which each attempt began
guard/NAME/fold/ATTEMPT/STEP     the positions after each fold
guard/NAME/move/STEP             what happened
"""

from __future__ import annotations


def guard_key(loop: str) -> str:
    """Return the key of a guard's state."""
    return f"loop/{loop}/guard"


def snapshot_key(loop: str) -> str:
    """Return the key of what a guard publishes."""
    return f"loop/{loop}/snapshot"


def attempts_of(loop: str) -> str:
    """Return how the keys of a loop's attempts begin."""
    return f"guard/{loop}/attempt/"


def attempt_key(loop: str, number: int) -> str:
    """Return the key of the state in which an attempt began."""
    return f"{attempts_of(loop)}{number:09d}"


def all_folds_of(loop: str) -> str:
    """Return how the keys of all of a loop's folds begin, by attempt."""
    return f"guard/{loop}/fold/"


def folds_of(loop: str, attempt: int) -> str:
    """Return how the keys of an attempt's folds begin."""
    return f"{all_folds_of(loop)}{attempt:09d}/"


def fold_key(loop: str, attempt: int, epoch: int, at: int) -> str:
    """Return the key of the `at`-th fold of the step that made `epoch`."""
    return f"{folds_of(loop, attempt)}{epoch:012d}-{at:06d}"


def moves_of(loop: str) -> str:
    """Return how the keys of a loop's moves begin."""
    return f"guard/{loop}/move/"


def move_key(loop: str, epoch: int, at: int) -> str:
    """Return the key of the `at`-th move of the step that made `epoch`."""
    return f"{moves_of(loop)}{epoch:012d}-{at:06d}"
