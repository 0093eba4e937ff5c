"""Errors of the panels.

DecisionError
├── ForbiddenError   someone may not do this
└── NoTaskError      there is no such task for them

StoreError is none of them: the panels' database does not do what it is told.
"""

from __future__ import annotations

from decision.errors import DecisionError


class ForbiddenError(DecisionError):
    """Someone may not do this."""


class NoTaskError(DecisionError):
    """There is no such task, or none that this person may see."""


class StoreError(RuntimeError):
    """The panels' database cannot be reached, is held by others or is damaged; the message says what to do."""
