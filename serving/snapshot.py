"""What an answer depends on besides its request: the policies in force, and where features are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from decision.guard.snapshot import GuardSnapshot, largest_weight
from decision.protocols import Policy
from pipelines.settings import LoopSettings


class OnlineFeatures(Protocol):
    """Looks features up by subject; never raises."""

    def online_many(self, subject_ids: Sequence[str], at: datetime) -> list[dict[str, Any]]:
        """Return each subject's features at the time `at`, {} when there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything an answer depends on besides the request; replaced whole, never changed.

    Attributes:
        loop: the loop's settings.
        policy: the champion, or None: then the baseline answers.
        policy_version: its registry version, or the baseline's name.
        baseline: the reference policy.
        baseline_version: its name.
        candidate: the version being rolled out, if any.
        guard: what the guard published about it; None without a guard.
        settings_version: of the loop's settings in State; 0 where they are a file.
        pinned: the candidate's share when the request's episode began; None where nothing is pinned.
    """

    loop: LoopSettings
    policy: Policy | None
    policy_version: str
    baseline: Policy
    baseline_version: str
    candidate: Policy | None = None
    guard: GuardSnapshot | None = None
    settings_version: int = 0
    pinned: float | None = None

    @property
    def candidate_version(self) -> str:
        """Registry version of the candidate; "" when none is served."""
        return "" if self.candidate is None or self.guard is None else self.guard.candidate_version

    @property
    def guard_weight(self) -> float:
        """The candidate's largest share as published; a snapshot past its expiry serves less."""
        return 0.0 if self.candidate is None or self.guard is None else largest_weight(self.guard)

    @property
    def guard_version(self) -> int:
        """Version of the guard snapshot; 0 without one."""
        return 0 if self.guard is None else self.guard.guard_version
