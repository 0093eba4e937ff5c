"""Off-policy evaluation: what a policy that never ran would have earned, and how sure that is.

Every estimator is a handful of sums: rows enter once, shards add up, and an estimate carries its interval, effective
sample size and the reasons for which it should not be trusted. `evaluate` does it all for a frame at hand, and
`evaluate_feedback` for what the Open Bandit Pipeline logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decision.ope.frames import evaluate, evaluate_feedback

__all__ = ["evaluate", "evaluate_feedback"]


def __getattr__(name: str) -> Any:
    # The service imports single estimators and does not wait for the others.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from decision.ope import frames

    return getattr(frames, name)
