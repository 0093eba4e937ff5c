"""Is the world still among the simulators that a policy with memory was made for? If not, the one before it decides.

A policy trained in simulators is vouched for while one of them resembles the world. The simulators are learned from
what users did before the policy in charge was made, and asked how surprising their responses are since
(`simulators.learned.monitor`); when that is beyond what users held apart from learning would ever show, the champion's
place goes back to the version before, a bandit or the baseline, with a written verdict.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.artifact import unpack
from decision.errors import FieldError
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent
from pipelines.promotion.rollback import rollback
from pipelines.registry.registry import Registry

if TYPE_CHECKING:
    from decision.oracles.session import SessionSettings
    from simulators.learned.trajectories import Trajectories

FEWEST_BEFORE, FEWEST_SINCE = 40, 20
"""Users without whom the simulators are not learned, and without whom nothing is judged."""
MAX_USERS = 2_000
_COLUMNS = ["ts", "subject_id", "episode_id", "step", "slot", "action_ids", "action_index", "propensity", "reward"]


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


@step("watched")
def watch(
    lake: Lake,
    registry: Registry,
    loop: str,
    *,
    now: datetime,
    by: str,
    length: int = 20,
    seed: int = 0,
    act: bool = True,
    progress: Progress = silent,
) -> Watched:
    """Judge the responses since the policy in charge was made, and give its place back on an alarm.

    Args:
        lake: the tables.
        registry: the versions.
        loop: name of the loop.
        now: time of the verdict, UTC.
        by: who asks, for the record.
        length: rewarded decisions of a user that are looked at, 10 or more; users with fewer are passed over.
        seed: of the simulators.
        act: False only tells.
        progress: told of the parts of the watch that are done.

    Raises:
        FieldError: `length` is too small.
        RegistryError: the registry cannot be reached.
    """
    if length < 10:
        raise FieldError("length", wanted="10 or more", got=length)
    version = registry.aliases(loop).get("champion")
    found = Watched(loop=loop, version=version, reason="there is no champion")
    if version is None:
        return found
    policy, manifest = unpack(registry.files(loop, version))
    if not isinstance(policy, OraclePolicy) or not isinstance(policy.oracle, SessionOracle):
        return msgspec.structs.replace(found, reason="the policy in charge was not made in simulators")
    settings = policy.oracle.settings
    made = datetime.fromisoformat(manifest.created_at)
    part_done = parted(progress, "parts of the watch done", 5)
    before = _trajectories(lake, loop, made, settings, length, after=False)
    part_done()
    since = _trajectories(lake, loop, made, settings, length, after=True)
    part_done()
    counted = [0 if part is None else len(part) for part in (before, since)]
    found = msgspec.structs.replace(found, learned_from=counted[0], users=counted[1])
    if before is None or since is None or counted[0] < FEWEST_BEFORE or counted[1] < FEWEST_SINCE:
        wanted = f"wanted {FEWEST_BEFORE} users with {length} rewards before and {FEWEST_SINCE} since"
        return msgspec.structs.replace(found, reason=f"{wanted}, got {counted[0]} and {counted[1]}")
    from simulators.learned.ensembles import fit_ensemble
    from simulators.learned.monitor import calibrated, surprise

    order = np.random.default_rng(seed).permutation(len(before))
    apart, rest = order[: len(order) // 3], order[len(order) // 3 :]
    ensemble = fit_ensemble(before.take(rest), seed, members=2)
    part_done()
    models = [*ensemble.members, ensemble.held_out]
    limit = calibrated(models, before.take(apart), seed, users=len(since)).limit
    part_done()
    least = min(surprise(model, since) for model in models)
    part_done()
    found = msgspec.structs.replace(found, judged=True, surprise=least, limit=limit, alarmed=least > limit)
    if not found.alarmed:
        return msgspec.structs.replace(found, reason="the responses are as some simulator expects")
    reason = f"responses are unlikely under every simulator: surprise {least:.2f} is above {limit:.2f}"
    if not act:
        return msgspec.structs.replace(found, reason=reason)
    written = rollback(registry, loop, now=now, by=by, reason=reason)
    return msgspec.structs.replace(found, reason=reason, moved=True, to_version=written.to_version)


def _trajectories(
    lake: Lake, loop: str, made: datetime, settings: SessionSettings, length: int, *, after: bool
) -> Trajectories | None:
    """Return each user's first `length` rewarded decisions before or after `made`; None without any user."""
    from simulators.learned.trajectories import Scale, Trajectories, catalogue_of

    code = {action: number for number, action in enumerate(settings.actions)}
    ts = pa.scalar(made, pa.timestamp("us", "UTC"))
    when = pc.field("ts") >= ts if after else pc.field("ts") < ts
    wanted = (pc.field("loop") == loop) & when & (pc.field("state") == "joined") & pc.field("subject_id").is_valid()
    rows = lake.table("interactions").to_pyarrow_dataset().to_table(_COLUMNS, filter=wanted)
    rows = rows.sort_by([(name, "ascending") for name in ("ts", "episode_id", "step")])
    kept: defaultdict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in rows.to_pylist():
        action = row["action_ids"][row["action_index"]]
        mine = kept[row["subject_id"]]
        if row["slot"] or action not in code or len(mine) == length:
            continue
        mine.append((code[action], row["reward"], row["propensity"]))
    whole = [mine for _, mine in sorted(kept.items()) if len(mine) == length][:MAX_USERS]
    if not whole:
        return None
    numbers = np.array(whole)
    shown = np.array(settings.features or [[level] for level in settings.levels], np.float32)
    actions = numbers[..., 0].astype(np.int64)
    return Trajectories(
        actions,
        numbers[..., 1].astype(np.float32),
        numbers[..., 2].astype(np.float32),
        catalogue_of(settings.actions, shown, np.arange(len(code))),
        Scale(settings.response, settings.usual, settings.spread, settings.least),
    )
