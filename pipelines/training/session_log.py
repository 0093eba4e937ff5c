"""The trajectories of a loop that a policy with memory is trained on, from the lake."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from decision.batch import Ints
from decision.errors import SupportError
from decision.split import uniforms_of
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings
from pipelines.training.sample import holdout_salt
from pipelines.trajectories import windows as logged
from pipelines.trajectories.catalogue import catalogue_of as actions_of
from simulators.learned.trajectories import Trajectories, catalogue_of, scale_of

_DAY = 86_400_000_000
_LARGEST = 20_000_000
"""Numbers by decision and action that are held; of a larger log only what was shown is known, and its propensity."""


def log_of(lake: Lake, loop: LoopSettings, version: int, *, apart_from: Trajectories | None = None) -> Trajectories:
    """Return the loop's trajectories as of a version of the interactions table, without those of users held out.

    Of more users than ``session.users`` a sample is kept, by a hash of the user: the same in every training.

    Args:
        lake: the tables.
        loop: the loop.
        version: of the interactions table.
        apart_from: the trajectories that are learned from; then those of the users held out are returned, with the
            actions and the scale of these. None for those that are learned from.

    Raises:
        SupportError: nobody has a settled decision.
    """
    rules = loop.session
    catalogue = actions_of(lake, loop.name, version=version)
    parts: list[logged.Trajectories] = []
    held = 0
    for part in logged.windows(
        lake, loop, length=rules.horizon, group=rules.group, catalogue=catalogue, version=version
    ):
        learned = uniforms_of(part.users.tolist(), holdout_salt(loop.name)) >= loop.training.holdout
        parts.append(part.take(np.flatnonzero(learned == (apart_from is None))))
        held += len(parts[-1])
        if held > 2 * rules.users:
            parts = [_sample(logged.gathered(parts), rules.users)]
            held = len(parts[0])
    found = _sample(logged.gathered(parts), rules.users)
    if not len(found):
        raise SupportError(f"loop {loop.name} has no user who is {'not ' if apart_from is None else ''}held out")
    mask = found.mask
    longest = int(mask.sum(axis=1).max())
    small = mask[:, :longest].size * len(catalogue) <= _LARGEST
    pmf = found.dense_pmf()[:, :longest] if small and np.isfinite(found.pmf).all() else None
    actions = found.actions[:, :longest]
    raw = found.catalogue.features.astype(np.float32)
    names, groups = np.unique(found.groups.astype(str), return_inverse=True)
    like = apart_from
    return Trajectories(
        actions,
        found.rewards[:, :longest].astype(np.float32),
        np.where(mask, found.propensities, 1.0)[:, :longest].astype(np.float32),
        catalogue_of(found.catalogue.ids, raw, found.actions[mask]) if like is None else like.catalogue,
        scale_of(found.rewards[mask]) if like is None else like.scale,
        lengths=mask.sum(axis=1),
        versions=found.versions[:, :longest],
        names=tuple(found.version_names),
        days=found.ts_us[np.arange(len(found)), (mask.sum(axis=1) - 1) // 2] // _DAY,
        pmf=pmf,
        offered=found.dense_offered()[:, :longest] if small else None,
        groups=groups if rules.group else None,
        group_names=tuple(names.tolist()) if rules.group else (),
        grouped_by=rules.group.removeprefix("context."),
    )


def _sample(found: logged.Trajectories, most: int) -> logged.Trajectories:
    if len(found) <= most:
        return found
    marks = np.array([int.from_bytes(sha256(str(user).encode()).digest()[:8], "big") >> 1 for user in found.users])
    rows: Ints = np.sort(np.argsort(marks, kind="stable")[:most])
    return found.take(rows)
