"""Errors of the panels.

DecisionError
├── ForbiddenError   someone may not do this
└── NoTaskError      there is no such task for them
"""

from __future__ import annotations

from decision.errors import DecisionError


class ForbiddenError(DecisionError):
    """Someone may not do this."""


class NoTaskError(DecisionError):
    """There is no such task, or none that this person may see."""
