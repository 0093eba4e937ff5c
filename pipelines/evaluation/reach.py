"""How far each feature of the context, written by whom a decision is about, pushes each action of a loop.

What is written is what others wrote: numbers between the 1% and the 99% of the log, the most frequent categories, and
nothing. Each decision's caller picks what serves him best (`decision.exploration.reach`). Features that were looked up
are nobody's to write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from decision.artifact import unpack
from decision.batch import Batch, Features
from decision.errors import FieldError, SupportError
from decision.exploration.cap import is_supplied
from decision.exploration.reach import moves_of, reach_of
from decision.features import PREFIX
from decision.oracles.session import SessionOracle
from decision.policy import CappedPolicy, OraclePolicy
from pipelines.interactions.arrays import to_batch
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, counted, silent
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings

MOST_FEATURES, MOST_ACTIONS = 100, 64
"""Those that most decisions have, and those that are offered most often."""
MOST_MOVES = 81
"""Ways to write several features together that are tried; of more, a sample."""
_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
_CATEGORIES = 10


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done to one action.

    Attributes:
        action: its id.
        decisions: those that offer it.
        own: its mean probability as the contexts are.
        least: mean of the smallest that can be had.
        most: mean of the largest.
        largest: largest raise in one decision.
        uncapped: the mean of the largest without the version's cap; None where it has none.
    """

    action: str
    decisions: int
    own: float
    least: float
    most: float
    largest: float
    uncapped: float | None = None


class FeatureReach(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done by writing some features.

    Attributes:
        features: their names.
        supplied: the loop declares all of them as supplied by the caller.
        tried: ways to write them.
        actions: the action that is raised most first.
    """

    features: list[str]
    supplied: bool
    tried: int
    actions: list[Pushed]


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What callers can do to a loop's decisions.

    Attributes:
        loop: the loop.
        version: whose probabilities they are.
        cap: the version's; None without one.
        decisions: how many contexts were looked at.
        features: each alone, what raises an action most first.
        together: those that the loop declares, written together; None where it declares none that the log has.
        left_out: features that fewer decisions have than the ones looked at.
    """

    loop: str
    version: str
    cap: float | None
    decisions: int
    features: list[FeatureReach]
    together: FeatureReach | None
    left_out: int


def reached(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    seed: int = 1,
    version: str | None = None,
    decisions: int = 300,
    progress: Progress = silent,
) -> Reached:
    """Return how far the features of a loop's latest decisions push its actions; nothing is written.

    Args:
        lake: where decisions are.
        registry: the versions.
        loop: the loop; what it declares as supplied by the caller is tried together.
        seed: of the sample of ways to write several features.
        version: whose probabilities; None for the champion.
        decisions: latest decisions whose contexts are looked at.
        progress: told of the features that are done.

    Raises:
        SupportError: there is no decision, or no champion and none was named.
        FieldError: the version does not exist, or is one with memory, which reads no features of the context.
    """
    version = version or registry.aliases(loop.name).get("champion")
    if version is None:
        raise SupportError(f"loop {loop.name} has no champion yet; name a version, or look again once one is promoted")
    policy, _ = unpack(registry.files(loop.name, version))
    if isinstance(policy.oracle, SessionOracle):
        raise FieldError("version", wanted="one that reads features of the context", got=version)
    rows = lake.decisions(loop.name, latest=decisions)
    if not rows.num_rows:
        raise SupportError(f"loop {loop.name} has no decision in the lake; `decision ingest` brings those of the log")
    batch = to_batch(rows, version=policy.features_version)
    contexts = [*batch.contexts]
    batch = Batch(contexts, [*batch.actions], [*batch.action_ids], batch.offsets)
    held = Counter(name for context in contexts for name in {_base(each) for each in context})
    names = [name for name, _ in held.most_common(MOST_FEATURES) if not name.startswith(PREFIX)]
    supplied = loop.features.supplied_by_caller
    rng = np.random.default_rng(seed)
    told = counted(names, progress, "features tried", total=len(names))
    alone = [_reach(policy, batch, {name: ways_of(contexts, name)}, supplied, rng) for name in told]
    declared = {name: ways for name in supplied if len(ways := ways_of(contexts, name)) > 1}
    return Reached(
        loop=loop.name,
        version=version,
        cap=policy.cap if isinstance(policy, CappedPolicy) else None,
        decisions=len(batch),
        features=sorted(alone, key=lambda one: -_raise(one.actions[0])),
        together=_reach(policy, batch, declared, supplied, rng) if declared else None,
        left_out=max(0, len(held) - MOST_FEATURES),
    )


def ways_of(contexts: Sequence[Features], name: str) -> list[Features]:
    """Return what a caller may write under `name`, each as features: what others wrote, and nothing if some did so."""
    written = [{each: value for each, value in row.items() if is_supplied(each, (name,))} for row in contexts]
    numbers = [row[name] for row in written if list(row) == [name]]
    ways: list[Features] = []
    if numbers:
        ways = [{name: float(value)} for value in dict.fromkeys(np.quantile(numbers, _QUANTILES).tolist())]
    others = Counter(tuple(row.items()) for row in written if list(row) != [name])
    return ways + [dict(row) for row, _ in others.most_common(_CATEGORIES)]


def _base(name: str) -> str:
    """Return the name under which whoever wrote a feature wrote it."""
    for end in "=[#":
        name = name.partition(end)[0]
    return name


def _reach(
    policy: OraclePolicy,
    batch: Batch,
    choices: dict[str, list[Features]],
    supplied: Sequence[str],
    rng: np.random.Generator,
) -> FeatureReach:
    moves = moves_of(choices, most=MOST_MOVES, rng=rng)
    uncapped = reach_of(policy.full.pmf, batch, moves).most if isinstance(policy, CappedPolicy) else None
    found = reach_of(policy.pmf, batch, moves)
    ids = np.array(batch.action_ids)
    actions: list[Pushed] = []
    for action, count in Counter(batch.action_ids).most_common(MOST_ACTIONS):
        at = np.flatnonzero(ids == action)
        actions.append(
            Pushed(
                action=action,
                decisions=count,
                own=float(found.own[at].mean()),
                least=float(found.least[at].mean()),
                most=float(found.most[at].mean()),
                largest=float((found.most - found.own)[at].max()),
                uncapped=None if uncapped is None else float(uncapped[at].mean()),
            )
        )
    return FeatureReach(
        features=list(choices),
        supplied=all(is_supplied(name, supplied) for name in choices),
        tried=len(moves),
        actions=sorted(actions, key=lambda one: -_raise(one)),
    )


def _raise(one: Pushed) -> float:
    return one.most - one.own
