"""Errors of the decision core, all of them the caller's to mend.

DecisionError
├── FieldError      a value that does not fit: names the field, what was wanted and what came
└── SupportError    the data cannot answer the question asked
"""

from __future__ import annotations

from typing import Any


class DecisionError(ValueError):
    """Root of the errors that the core raises."""


class FieldError(DecisionError):
    """A field whose value does not fit.

    Attributes:
        field: path of the field, for example ``actions[2].id``.
        wanted: what would have been accepted, in words.
        got: what came instead, shortened.
    """

    def __init__(self, field: str, *, wanted: str, got: object) -> None:
        shown = repr(got)
        self.field = field
        self.wanted = wanted
        self.got = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field}: wanted {wanted}, got {self.got}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes hand their errors over pickled; the constructor's keywords are not in `args`.
        return _restored, (self.field, self.wanted, self.got)


def _restored(field: str, wanted: str, shown: str) -> FieldError:
    error = FieldError(field, wanted=wanted, got=None)
    error.got = shown
    error.args = (f"{field}: wanted {wanted}, got {shown}",)
    return error


class SupportError(DecisionError):
    """The log holds no support for the question; the message says which part is missing."""
