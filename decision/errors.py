"""Errors of the decision core, all of them the caller's to mend.

DecisionError
├── FieldError      a value that does not fit: names the field, what fits and what came
└── SupportError    the data cannot answer the question asked
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

_SHOWN = 80
_NEAR = 0.6
"""Similarity from which a name is offered in place of one that does not exist (difflib's ratio, in [0, 1])."""


class DecisionError(ValueError):
    """Root of the errors that the core raises."""


class Words(str):
    """What came, told in words: a `FieldError` prints it without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class FieldError(DecisionError):
    """A field whose value does not fit.

    It prints as ``gate.alpha: must be a number above 0 and below 0.5, is 0.7``.

    Attributes:
        field: path of the field, for example ``actions[2].id``.
        wanted: what would have been accepted, in words that complete "must be ...".
        got: what came instead, shortened.
        source: where the value stands, for example a file or a variable; printed first.

    Args:
        field: see above.
        wanted: see above.
        got: the value that came; None when nothing did, `Words` to describe it, or the error that reading it raised.
        says: the whole sentence, where "must be ..., is ..." would not read well.
        hint: what was probably meant.
        source: see above.
    """

    def __init__(
        self, field: str, *, wanted: str, got: object, says: str = "", hint: str = "", source: str = ""
    ) -> None:
        self.field = field
        self.wanted = wanted
        shown = "nothing" if got is None else str(got) if isinstance(got, Exception) else repr(got)
        self.got = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
        if not says:
            came = "is missing" if got is None else f"is {self.got}"
            says = f"must be {wanted}: {shown}" if isinstance(got, Exception) else f"must be {wanted}, {came}"
        self.source = source
        self._says, self._hint = says, hint
        super().__init__(self._sentence())

    @classmethod
    def missing(cls, field: str) -> FieldError:
        """Return the error of a field that has to be given: ``actions: required``."""
        return cls(field, wanted="given", got=None, says="required")

    @classmethod
    def unknown(
        cls, field: str, known: Sequence[str], *, nearest: str | None = None, noun: str = "field"
    ) -> FieldError:
        """Return the error of a field that does not exist: ``context.foo: unknown field; did you mean ...?``.

        Args:
            field: its path.
            known: names of the fields that exist beside it.
            nearest: path of the field that was probably meant; by default the most similar of `known`, if any is.
            noun: what it is called.
        """
        path, dot, name = field.rpartition(".")
        if not name:
            field += "''"  # an error names its field, also one that has no name
        if nearest is None:
            near = nearest_of(name, known)
            nearest = near and f"{path}{dot}{near}"
        says = f"unknown {noun}"
        if nearest:
            says += f"; did you mean {nearest!r}?"
        if known:
            says += f"{'' if nearest else ';'} known: {', '.join(known)}"
        return cls(field, wanted=f"one of {', '.join(known)}" if known else "absent", got=Words("unknown"), says=says)

    @classmethod
    def choice(cls, field: str, allowed: Sequence[str], got: object) -> FieldError:
        """Return the error of a value that is none of `allowed`, which names the most similar of them."""
        near = nearest_of(got, allowed) if isinstance(got, str) else None
        return cls(field, wanted=either(allowed), got=got, hint="" if near is None else repr(near))

    def under(self, path: str) -> FieldError:
        """Return the same error of a field inside `path`, ``"actions[2]"`` or ``"line 7: "``."""
        joint = "" if not path or path.endswith((".", " ")) or self.field.startswith("[") else "."
        return self._restated(field=f"{path}{joint}{self.field}" if self.field else path, source=self.source)

    def from_source(self, source: str) -> FieldError:
        """Return the same error with the name of what the value stands in before it."""
        return self._restated(field=self.field, source=source)

    def _restated(self, *, field: str, source: str) -> FieldError:
        return _restored(field, self.wanted, self.got, self._says, self._hint, source)

    def _sentence(self) -> str:
        hint = f"; did you mean {self._hint}?" if self._hint else ""
        source = f"{self.source}: " if self.source else ""
        return f"{source}{self.field}: {self._says}{hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes hand their errors over pickled; the constructor's keywords are not in `args`.
        return _restored, (self.field, self.wanted, self.got, self._says, self._hint, self.source)


def nearest_of(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `name` is probably a slip for, or None."""
    found = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=_NEAR)
    return found[0] if found else None


def either(values: Sequence[str]) -> str:
    """Return the values in quotation marks, as in ``'a', 'b' or 'c'``."""
    quoted = [repr(value) for value in values]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _restored(field: str, wanted: str, shown: str, says: str, hint: str, source: str) -> FieldError:
    return FieldError(field, wanted=wanted, got=Words(shown), says=says, hint=hint, source=source)


class SupportError(DecisionError):
    """The log holds no support for the question; the message says which part is missing."""
