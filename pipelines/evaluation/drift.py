"""A night beside what the version in charge was trained on, and alarms where that is another world.

The version brings a small profile of its training data along, so no history is read. Features, offers and rewards are
looked at; rewards weighted by their propensities, so that a new policy is no drift.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from decision.artifact import manifest_of
from decision.batch import Floats
from decision.drift import PROFILE_FILE
from decision.drift.compare import Drift, Moved, drift
from decision.drift.profile import Profile, as_drawn, count, decoded, layout_of, profile_of
from decision.drift.sources import Source, sources
from decision.errors import FieldError
from pipelines.evaluation.standing import Alarm
from pipelines.interactions.observed import LEAST_BLOCK, MOST_ROWS, evenly, observed_of
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import LoopSettings
from pipelines.training.settled import is_own

_NAMED = 20


class Trained(NamedTuple):
    """What the version in charge was trained on.

    Attributes:
        version: the version; "" where none is in charge.
        profile: of its training data.
        why: why there is no profile.
    """

    version: str = ""
    profile: Profile | None = None
    why: str = "no version is in charge"


NOTHING = Trained()


class Drifted(msgspec.Struct, frozen=True, kw_only=True):
    """A night beside training data.

    Attributes:
        version: whose training data.
        found: how the night differs; None where it could not be compared.
        skipped: why not.
    """

    version: str = ""
    found: Drift | None = None
    skipped: str = ""


def trained_on(registry: Registry, loop: LoopSettings) -> Trained:
    """Return what the loop's champion was trained on; a registry that is away keeps no night from its other alarms."""
    version = ""
    try:
        version = registry.aliases(loop.name).get("champion", "")
        if not version:
            return NOTHING
        files = registry.files(loop.name, version)
        if PROFILE_FILE not in files:
            return Trained(version, None, f"version {version} has no profile of its training data")
        profile = decoded(files[PROFILE_FILE])
        if manifest_of(files).data.get("reward_version", loop.reward.version) != loop.reward.version:
            profile = msgspec.structs.replace(profile, rewards=None)
        return Trained(version, profile, "")
    except (RegistryError, FieldError) as error:
        return Trained(version, None, f"the profile of the version in charge cannot be read: {error}")


def drift_since(trained: Trained, late: pa.Table, loop: LoopSettings, *, error: float) -> Drifted:
    """Return how a night differs from what a version was trained on.

    Args:
        trained: the version.
        late: [n] decisions of the night, with the columns of `observed_of` and ``pass_probability``.
        loop: the loop; rewards under another definition than its own are left out.
        error: chance that features, and that rewards, are called moved where nothing changed; each.
    """
    if trained.profile is None:
        return Drifted(version=trained.version, skipped=trained.why)
    late = _some(late)
    reward = late["reward"].to_numpy().astype(np.float64)
    own = pa.array(np.where(is_own(late, loop), reward, np.nan))
    observed = observed_of([(late.set_column(late.column_names.index("reward"), "reward", own), _stands_for(late))])
    if observed is None or len(observed) < LEAST_BLOCK:
        return Drifted(version=trained.version, skipped="the night has too few decisions with features")
    return Drifted(version=trained.version, found=drift(trained.profile, observed, error=error))


def drift_alarms(drifted: Drifted) -> list[Alarm]:
    """Return the alarms of a night beside training data."""
    found, beside = drifted.found, f"in the training data of version {drifted.version}"
    if found is None:
        return []
    alarms = [
        Alarm(kind="feature_drift", subject=moved.name, text=_moved(f"feature {moved.name!r}", moved, beside))
        for moved in found.features
        if moved.alarmed
    ][:_NAMED]
    alarms += [
        Alarm(
            kind="action_feature_drift",
            subject=moved.name,
            text=_moved(f"the actions' feature {moved.name!r}", moved, beside),
        )
        for moved in found.actions
        if moved.alarmed
    ][:_NAMED]
    if found.offers is not None and found.offers.alarmed:
        alarms.append(Alarm(kind="action_drift", text=_moved("the offer of actions", found.offers, beside)))
    changed = [entry for entry in found.rewards if entry.alarmed]
    whole = next((entry for entry in changed if not entry.of), None)
    told = {source.of for source in found.sources if source.how == "rate"}
    for entry in [entry for entry in changed if whole is None or entry is whole or entry.of in told][:_NAMED]:
        where = told_of(found.sources) if entry is whole else f" with {entry.of}"
        text = f"blindly drawn, actions earn {entry.mean:.4g} a decision{'' if entry is whole else where}"
        text = f"{text}, {entry.mean_before:.4g} {beside}{where if entry is whole else ''}"
        alarms.append(Alarm(kind="reward_drift", subject=entry.of, text=text))
    return alarms


def origin(before: pa.Table, late: pa.Table) -> str:
    """Return where a fall of the mean reward between two tables comes from, as the end of a sentence."""
    first, second = (observed_of([(table, _stands_for(table))]) for table in (_some(before), _some(late)))
    if first is None or second is None:
        return ""
    profile = profile_of(first, blind=False)
    return told_of(sources(profile, count(as_drawn(second), layout_of(profile))))


def told_of(found: list[Source]) -> str:
    """Return what a change of rewards comes from, as the end of a sentence."""
    if not found:
        return "; in all segments alike, as far as is known"
    words = [
        f"with the mix of {source.of!r}, {source.part:.0%} of it"
        if source.how == "mix"
        else f"from {source.of} ({source.share:.0%} of the decisions, {source.mean_before:.4g} to {source.mean:.4g})"
        for source in found
    ]
    return f"; it comes {'; '.join(words)}"


def _moved(what: str, moved: Moved, beside: str) -> str:
    text = (
        f"{what} moved (stability index {moved.psi:.2f}): {moved.cell} in {moved.share:.2%}, {moved.share_before:.2%} "
    )
    new = f"; new are {', '.join(repr(value) for value in moved.new)}" if moved.new else ""
    gone = f"; gone are {', '.join(repr(value) for value in list(moved.gone)[:3])}" if moved.gone else ""
    return f"{text}{beside}{new}{gone}"


def _some(table: pa.Table) -> pa.Table:
    if len(table) <= MOST_ROWS:
        return table
    return table.filter(pa.array(evenly(table["offset"].to_numpy(), MOST_ROWS / len(table))))


def _stands_for(table: pa.Table) -> Floats:
    return 1.0 / table["pass_probability"].fill_null(1.0).to_numpy()
