"""The second witness of a policy with memory: the simulator that its training never saw, with its record of errors.

The log alone tells of a few decisions of each user, and a policy that looks farther may well lose there. The simulator
held out tells of many, but may be wrong. So it is believed beyond those few only if it agrees with the log on them, and
only beyond what it was off by before: what the versions of earlier nights gained, once they decided, less what it had
promised of them; at first, what it says of the logged actions less what these earned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.artifact import Manifest
from pipelines.evaluation.trajectories import Trajectories
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.training.promises import Promise, promises


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulator held out says, in reward per decision.

    Attributes:
        method: how the version was made.
        users: that the simulator judged with.
        believed: mean over the simulators that the version was trained in.
        held_out: what the version earns in the one held out.
        gain: over the logged actions there.
        gain_low: lower end of its 95% interval over users.
        gain_high: upper end.
        error: what the simulator says of the logged actions, less what they earned.
        promises: of the versions of earlier nights, oldest first.
        missed: by how much it was off before, see `missed`.
        near_gain: [h] the gain over users' first 1, 2, ... decisions.
        near_half: [h] half the width of each one's 95% interval.
        worst: simulator trained in where the version earns the least share of the best action held; "" if unknown.
        worst_share: that share; None if unknown.
    """

    method: str
    users: int
    believed: float
    held_out: float
    gain: float
    gain_low: float
    gain_high: float
    error: float
    promises: list[Promise] = []
    missed: float = 0.0
    near_gain: list[float] = []
    near_half: list[float] = []
    worst: str = ""
    worst_share: float | None = None

    @property
    def worse(self) -> bool:
        """The version earns less than the log, beyond what the simulator was off by before."""
        return self.gain_high + self.missed < 0.0

    @property
    def better(self) -> bool:
        """It earns more, beyond that."""
        return self.gain_low - self.missed > 0.0


def witness_of(
    lake: Lake, registry: Registry, loop: str, version: str, manifest: Manifest, table_version: int | None = None
) -> Witness | None:
    """Return the witness of a version; None where no simulator judged it.

    Args:
        lake: the tables, which say what came true.
        registry: the versions.
        loop: name of the loop.
        version: the version.
        manifest: its manifest, which says what was promised of it.
        table_version: version of the interactions table; None for the present one.
    """
    judged: dict[str, Any] = manifest.training.get("judged", {})
    told = judged.get("methods", {}).get(judged.get("chosen"))
    if not isinstance(told, dict):
        return None
    earlier = list(takewhile(lambda entry: entry.version != version, registry.versions(loop)))
    kept = promises(lake, loop, earlier, registry.verdicts(loop), table_version=table_version)
    fields = ("users", "believed", "held_out", "gain", "gain_low", "gain_high", "error")
    return Witness(
        method=judged["chosen"],
        **{name: told[name] for name in fields},
        promises=kept,
        missed=missed(kept, told["error"]),
        near_gain=list(told.get("near_gain", ())),
        near_half=list(told.get("near_half", ())),
        worst=told.get("worst", ""),
        worst_share=told.get("worst_share"),
    )


def missed(kept: Sequence[Promise], error: float) -> float:
    """Return by how much the simulator was off before.

    That is the root mean square of what versions gained less what was promised of them; while none has decided long
    enough, what it says of the logged actions less what these earned, its `error`.
    """
    off = [one.gained - one.gain for one in kept if one.gained is not None and one.gain is not None]
    return float(np.sqrt(np.square(off or [error]).mean()))


class Heard(NamedTuple):
    """What follows from both witnesses.

    Attributes:
        better: they agree, and the simulator says that the version earns more than the log.
        refused: why the version does not go on; [] when nothing speaks against it.
    """

    better: bool
    refused: list[str]


def heard(found: Trajectories, witness: Witness | None, *, minimum_ess: float, margin: float) -> Heard:
    """Return what follows from the log's word on users' first decisions, and the simulator's on these and many more.

    Args:
        found: the first.
        witness: the second; None for a version that no simulator judged.
        minimum_ess: effective trajectories without which the log says nothing, and nothing is promoted.
        margin: reward per decision that may be lost over the first decisions by the log's word.
    """
    value, first = found.value, f"over {found.steps} decisions of {found.users} users"
    if value.ess < minimum_ess:
        return Heard(False, [f"{first}: {value.ess:.0f} effective trajectories are below {minimum_ess:.0f}"])
    fallen = value.high < found.logged - margin
    lost = [f"{first}: worth {value.high:.4f} at most, logged {found.logged:.4f}"] if fallen else []
    if witness is None:
        return Heard(False, lost)
    off = f", which was off by {witness.missed:.4f} before," if witness.missed else ""
    simulator = f"the simulator held out{off} says {witness.gain:+.4f}"
    if found.steps <= len(witness.near_gain):
        near, room = witness.near_gain[found.steps - 1], witness.near_half[found.steps - 1] + witness.missed
        low, high = value.low - found.logged, value.high - found.logged
        if high < near - room or low > near + room:
            said = f"{low:+.4f} to {high:+.4f} by the log, {near - room:+.4f} to {near + room:+.4f} in the simulator"
            return Heard(False, [f"the witnesses disagree {first}: {said}"])
    if witness.worse:
        return Heard(False, [f"{simulator} over the log, {witness.gain_high:+.4f} at most"])
    # Where both say the same of the first decisions, a loss there is what the version pays for what comes later.
    agreed = witness.better and found.steps <= len(witness.near_gain)
    return Heard(agreed, [] if agreed else lost)
