"""Is the world still among the simulators that a policy with memory was made for? If not, the one before it decides.

A policy trained in simulators is vouched for while one of them resembles the world. The simulators are learned from
what users did before the policy in charge was made, and asked how surprising their responses are since
(`simulators.learned.monitor`); when that is beyond what users held apart from learning would ever show, the champion's
place goes back to the version before, a bandit or the baseline, with a written verdict.

The same is asked of every group of users by itself, and of every user: a city where something broke, or one who reports
what is not so, drowns in the mean. Those are told of, and move nothing. Nor does the dynamics gap, which says of every
simulator on which actions users answer otherwise than before (`simulators.learned.knowledge`).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from decision.artifact import unpack
from decision.errors import FieldError
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent
from pipelines.promotion.rollback import rollback
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.trajectories.catalogue import Catalogue, catalogue_of
from pipelines.trajectories.windows import Trajectories, gathered, windows

if TYPE_CHECKING:
    from decision.oracles.session import SessionSettings
    from simulators.learned import trajectories as learned
    from simulators.learned.responses import Response

FEWEST_BEFORE, FEWEST_SINCE = 40, 20
"""Users without whom the simulators are not learned, and without whom nothing is judged."""
MAX_USERS = 2_000
MAX_GROUPS, MAX_TOLD = 100, 20
ODD = 0.99
"""Share of the users held apart whose surprise lies below the limit of a single user."""


class GroupWatched(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch found of one group.

    Attributes:
        group: the group.
        users: its users since.
        surprise: as in `Watched`.
        limit: the alarm's, for so many users.
        alarmed: its users' responses are unlikely under every simulator.
    """

    group: str
    users: int
    surprise: float
    limit: float
    alarmed: bool


class ActionGap(msgspec.Struct, frozen=True, kw_only=True):
    """How far a simulator is off on one action.

    Attributes:
        action: its id.
        decisions: that showed it since.
        gap: between what the simulator says and what was answered since, see `simulators.learned.knowledge.gap_of`.
        before: the same of users before, held apart from learning; None where they were hardly shown it.
    """

    action: str
    decisions: int
    gap: float
    before: float | None


class SimulatorWatched(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch found of one simulator.

    Attributes:
        simulator: its name.
        gap: the dynamics gap since, over the decisions whose actions have one; None where none has.
        before: the same of users before, held apart from learning.
        actions: up to 20 that were shown most, those with the largest gap first.
    """

    simulator: str
    gap: float | None
    before: float | None
    actions: list[ActionGap]


class OddUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user whose reports no simulator explains.

    Attributes:
        user: the subject's id.
        surprise: mean squared standardised error under the simulator that fits the user best.
    """

    user: str
    surprise: float


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch found.

    Attributes:
        loop: the loop.
        version: the champion; None without one.
        judged: there was something to judge and enough to judge it on.
        reason: in words.
        learned_from: users that the simulators were learned from.
        users: users since.
        surprise: mean squared standardised error under the simulator that fits best; about 1 in its own world.
        limit: the alarm's.
        alarmed: the responses are unlikely under every simulator.
        moved: the champion's place was given back.
        to_version: to which version; None for the baseline.
        groups: the same of the largest 100 groups that have enough users, if the watch was asked for groups.
        odd_limit: surprise that a user is odd above.
        odd: users above it; one in a hundred is so by chance.
        oddest: of them, the most surprising first.
        simulators: the dynamics gap of each, by action.
    """

    loop: str
    version: str | None = None
    judged: bool = False
    reason: str = ""
    learned_from: int = 0
    users: int = 0
    surprise: float | None = None
    limit: float | None = None
    alarmed: bool = False
    moved: bool = False
    to_version: str | None = None
    groups: list[GroupWatched] = []
    odd_limit: float | None = None
    odd: int = 0
    oddest: list[OddUser] = []
    simulators: list[SimulatorWatched] = []


@step("watched")
def watch(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    now: datetime,
    by: str,
    length: int = 20,
    group: str = "",
    seed: int = 0,
    act: bool = True,
    most_users: int = MAX_TOLD,
    progress: Progress = silent,
) -> Watched:
    """Judge the responses since the policy in charge was made, and give its place back on an alarm.

    Args:
        lake: the tables.
        registry: the versions.
        loop: the loop.
        now: time of the verdict, UTC.
        by: who asks, for the record.
        length: decisions of a user that are looked at, 10 or more; users with fewer are passed over.
        group: path of the context field by which groups are told apart, as ``context.city``; "" for none.
        seed: of the simulators.
        act: False only tells.
        most_users: how many users are named whose reports no simulator explains.
        progress: told of the parts of the watch that are done.

    Raises:
        FieldError: `length` is too small.
        RegistryError: the registry cannot be reached.
    """
    if length < 10:
        raise FieldError("length", wanted="10 or more", got=length)
    version = registry.aliases(loop.name).get("champion")
    found = Watched(loop=loop.name, version=version, reason="there is no champion")
    if version is None:
        return found
    policy, manifest = unpack(registry.files(loop.name, version))
    if not isinstance(policy, OraclePolicy) or not isinstance(policy.oracle, SessionOracle):
        return msgspec.structs.replace(found, reason="the policy in charge was not made in simulators")
    made = datetime.fromisoformat(manifest.created_at)
    part_done = parted(progress, "parts of the watch done", 6)
    catalogue, table = catalogue_of(lake, loop.name), lake.version("interactions")
    before = _first(lake, loop, catalogue, table, length, until=made)
    part_done()
    since = _first(lake, loop, catalogue, table, length, since=made, group=group)
    part_done()
    counted = [0 if part is None else len(part) for part in (before, since)]
    found = msgspec.structs.replace(found, learned_from=counted[0], users=counted[1])
    if before is None or since is None or counted[0] < FEWEST_BEFORE or counted[1] < FEWEST_SINCE:
        wanted = f"wanted {FEWEST_BEFORE} users with {length} rewards before and {FEWEST_SINCE} since"
        return msgspec.structs.replace(found, reason=f"{wanted}, got {counted[0]} and {counted[1]}")
    from simulators.learned.ensembles import fit_ensemble
    from simulators.learned.monitor import calibrated, surprise, surprises

    settings = policy.oracle.settings
    known, seen = (_learned(part, settings, before) for part in (before, since))
    order = np.random.default_rng(seed).permutation(len(known))
    apart, rest = order[: len(order) // 3], order[len(order) // 3 :]
    ensemble = fit_ensemble(known.take(rest), seed, members=2)
    part_done()
    models = [*ensemble.members, ensemble.held_out]
    names = [*ensemble.names, "held out"]
    limit = calibrated(models, known.take(apart), seed, users=len(seen)).limit
    part_done()
    least = min(surprise(model, seen) for model in models)
    groups = _by_group(models, known.take(apart), seen, since.groups, seed) if group else []
    usual, here = (np.min([surprises(model, log) for model in models], axis=0) for log in (known.take(apart), seen))
    odd_limit = float(np.nanquantile(usual, ODD))
    odd = np.flatnonzero(here > odd_limit)
    most = odd[np.argsort(-here[odd], kind="stable")][:most_users]
    oddest = [OddUser(user=str(since.users[row]), surprise=float(here[row])) for row in most]
    part_done()
    simulators = [_gap(name, model, known.take(apart), seen) for name, model in zip(names, models, strict=True)]
    part_done()
    found = msgspec.structs.replace(
        found,
        judged=True,
        surprise=least,
        limit=limit,
        alarmed=least > limit,
        groups=groups,
        odd_limit=odd_limit,
        odd=len(odd),
        oddest=oddest,
        simulators=simulators,
    )
    if not found.alarmed:
        strange = ", ".join(one.group for one in groups if one.alarmed)
        but = f", but not those of {strange}" if strange else ""
        return msgspec.structs.replace(found, reason=f"the responses are as some simulator expects{but}")
    reason = f"responses are unlikely under every simulator: surprise {least:.2f} is above {limit:.2f}"
    if not act:
        return msgspec.structs.replace(found, reason=reason)
    written = rollback(registry, loop.name, now=now, by=by, reason=reason)
    return msgspec.structs.replace(found, reason=reason, moved=True, to_version=written.to_version)


def _first(
    lake: Lake,
    loop: LoopSettings,
    catalogue: Catalogue,
    version: int,
    length: int,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    group: str = "",
) -> Trajectories | None:
    """Return each user's first `length` decisions of a time; None where nobody has as many."""
    held: list[Trajectories] = []
    for part in windows(
        lake, loop, length=length, group=group, catalogue=catalogue, version=version, since=since, until=until
    ):
        whole = np.flatnonzero((part.first == 0) & part.mask.all(axis=1))
        held.append(part.take(whole[: MAX_USERS - sum(map(len, held))]))
    held = [part for part in held if len(part)]
    return gathered(held) if held else None


def _learned(found: Trajectories, settings: SessionSettings, before: Trajectories) -> learned.Trajectories:
    """Return windows as the policy sees them: an action that it was never taught is the mean of those that it was."""
    from simulators.learned.trajectories import Scale, Trajectories, catalogue_of

    taught = np.array(settings.features or [[level] for level in settings.levels], np.float32)
    place = {action: number for number, action in enumerate(settings.actions)}
    shown = [taught[place[name]] if name in place else taught.mean(axis=0) for name in found.catalogue.ids]
    return Trajectories(
        found.actions,
        found.rewards.astype(np.float32),
        found.propensities.astype(np.float32),
        catalogue_of(found.catalogue.ids, np.array(shown, np.float32), before.actions),
        Scale(settings.response, settings.usual, settings.spread, settings.least),
    )


def _by_group(
    models: list[Response],
    apart: learned.Trajectories,
    seen: learned.Trajectories,
    groups: np.ndarray[tuple[int], np.dtype[np.object_]],
    seed: int,
) -> list[GroupWatched]:
    from simulators.learned.monitor import calibrated, surprise

    names, count = np.unique(groups.astype(str), return_counts=True)
    found: list[GroupWatched] = []
    for place in np.argsort(-count, kind="stable")[:MAX_GROUPS]:
        if count[place] < FEWEST_SINCE:
            break
        users = int(count[place])
        limit = calibrated(models, apart, seed, users=users).limit
        least = min(surprise(model, seen.take(np.flatnonzero(groups == names[place]))) for model in models)
        name = str(names[place])
        found.append(GroupWatched(group=name, users=users, surprise=least, limit=limit, alarmed=least > limit))
    return found


def _gap(name: str, model: Response, apart: learned.Trajectories, seen: learned.Trajectories) -> SimulatorWatched:
    from simulators.learned.knowledge import known

    now, before = known(model, seen), known(model, apart)
    times = np.bincount(seen.actions[seen.inside], minlength=len(seen.catalogue))
    most = np.argsort(-times, kind="stable")[:MAX_TOLD]
    told = most[np.isfinite(now.gap[most])]
    actions = [
        ActionGap(
            action=seen.catalogue.ids[code],
            decisions=int(times[code]),
            gap=float(now.gap[code]),
            before=_told(float(before.gap[code])),
        )
        for code in told[np.argsort(-now.gap[told], kind="stable")]
    ]
    return SimulatorWatched(
        simulator=name, gap=_told(now.mean_gap(seen)), before=_told(before.mean_gap(apart)), actions=actions
    )


def _told(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
