"""Training of a generation: the window's rows, an oracle, the loop's exploration rule, and a version registered.

The same rows, settings, code and seed give the same model bytes; the manifest says which they were. What is remembered
of earlier generations is a rule on rows (`decision.generations`), not a habit of the learner, unless the loop asks for
a warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.artifact import Manifest, Trusted, model_of, unpack
from decision.batch import Interactions, Ints
from decision.errors import FieldError, SupportError
from decision.exploration.rule import Exploration
from decision.exploration.schedule import scheduled
from decision.exploration.sigma import MOST_ROWS, predicted_of_drawn
from decision.fairness.penalty import FairFit, UpheldPairs, fit_with_pairs
from decision.generations import Tally, training_weights
from decision.options import SESSION, Range
from decision.oracles.action_ids import with_ids
from decision.oracles.factory import KEPT, new_oracle
from decision.oracles.kept import KeptOracle, kept_after
from decision.policy import CappedPolicy, OraclePolicy, blinded
from decision.protocols import FitsChunks, Oracle
from decision.reward import Rewards
from decision.validation import prepared
from pipelines.engines.engine import Engine
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.registry.registry import Registry
from pipelines.reports.card import card, summary
from pipelines.settings import LoopSettings, Variant
from pipelines.training.aligned import aligned_with, is_mixed
from pipelines.training.profiled import profiled
from pipelines.training.trained import POLICY, Trained, code_version, libraries
from pipelines.training.trial import Probe, alarms_of, packed, unfit_is_refused
from pipelines.training.variants import Configuration, compare, configuration, learned, untried
from pipelines.training.window import window

ENDS = "last_ts"
"""Tag of a version: time of the newest decision it was trained with."""


@step("trained")
def train(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    seed: int,
    now: datetime,
    table_version: int | None = None,
    key: str = "",
    pairs: UpheldPairs | None = None,
    progress: Progress = silent,
    engine: Engine | None = None,
) -> Trained:
    """Learn a policy from the loop's window and register it; nobody is promoted.

    Args:
        lake: the tables.
        registry: where the version goes.
        loop: the loop; its policy and training settings decide what is learned.
        seed: of every random choice.
        now: time of the training, UTC, for the manifest.
        table_version: version of the interactions table to read; None for the present one.
        key: a training repeated under the same key returns the version of the first.
        pairs: pairs of people that a panel wants treated alike; their gaps cost.
        progress: told of the rows read and of the passes over them.
        engine: who looks through the parts of the log for the sample; None for this process, one after the other.

    Raises:
        SupportError: there are fewer rows than the loop's minimum, they cannot be fitted, or what was fitted cannot be
            served; the message says why.
        RegistryError: the registry cannot be reached.
    """
    if loop.policy.oracle == SESSION:
        from pipelines.training.sessions import train_session  # imports torch

        return train_session(
            lake,
            registry,
            loop,
            seed=seed,
            now=now,
            table_version=table_version,
            key=key,
            progress=progress,
            engine=engine,
        )
    versions = [version for version in registry.versions(loop.name) if version.tags.get("kind") == POLICY]
    ends = [version.tags[ENDS] for version in versions if ENDS in version.tags]
    rows = window(lake, loop, table_version, trainings=ends, progress=progress, engine=engine)
    if rows.data.rows < loop.training.minimum or not rows.rows:
        raise SupportError(f"loop {loop.name} has {rows.data.rows} interactions, {loop.training.minimum} are needed")
    before = [version.version for version in versions if version.tags.get(ENDS) in rows.data.trainings]
    with unfit_is_refused(loop.name):
        rows, aligned = aligned_with(rows, loop, seed, progress)
    held: tuple[Interactions, Ints] | None = None
    own = configuration(loop, Variant(), seed, rows.reward)
    if loop.training.variants or not isinstance(new_oracle(own.oracle), FitsChunks):
        held = rows.learned()
    compared = untried(loop)
    if held is not None:
        compared = compare(*held, loop, seed, _earlier(registry, loop, before, rows.reward), rows.reward)
    chosen = next(entry for entry in compared if entry.chosen)
    made = configuration(loop, msgspec.convert(chosen.variant, prepared(Variant)), seed, rows.reward)

    probe = Probe()

    def learn(supplied: Sequence[str] = ()) -> _Part:
        known = _earlier(registry, loop, before, rows.reward, supplied)

        def fit(also: Interactions | None = None) -> tuple[str, Oracle, Tally]:
            read = probe.watching(rows.chunks() if held is None else [held])
            with unfit_is_refused(loop.name):
                return learned(((blinded_log(log, supplied), age) for log, age in read), made, known, also, progress)

        kind, oracle, tally = fit()
        unseen, ages = rows.unseen(MOST_ROWS)
        policy = scheduled_policy(loop, made, oracle, tally, (blinded_log(unseen, supplied), ages))
        if pairs is None or not len(pairs):
            return _Part(kind, policy, tally, None)
        first, second = (blinded(batch, supplied) for batch in (pairs.first, pairs.second))
        if made.action_ids:
            first, second = with_ids(first), with_ids(second)
        asked = replace(pairs, first=first, second=second)
        fair = fit_with_pairs(oracle, lambda also: fit(also)[1], asked, policy.exploration, cost=loop.fairness.cost)
        return _Part(kind, OraclePolicy(fair.oracle, policy.exploration, action_ids=made.action_ids), tally, fair)

    kind, policy, tally, fair = learn()
    mean_reward = tally.mean_reward - sum(one.factor * one.mean for one in aligned)
    trusted: Trusted | None = None
    if supplied := loop.features.supplied_by_caller:
        near, cap = learn(supplied), loop.policy.cap
        trusted = Trusted(supplied=supplied, cap=cap, oracle=near.kind, exploration=near.policy.exploration)
        policy = CappedPolicy(policy, near.policy, supplied=supplied, cap=cap)
    alarms = alarms_of(policy.oracle, rows.unread)
    parent = registry.aliases(loop.name).get("champion", "")
    keeping = keeping_from(registry, loop.name, parent, policy, kind, loop.training.margin) if parent else None
    if keeping is not None:
        kind, policy = KEPT, keeping
    manifest = Manifest(
        loop=loop.name,
        oracle=kind,
        exploration=policy.exploration,
        trusted=trusted,
        reward=msgspec.to_builtins(loop.reward),
        training={
            **msgspec.to_builtins(loop.training),
            **msgspec.to_builtins(loop.policy),
            **msgspec.to_builtins(made.rules),
            "oracle": made.oracle.kind,
            "mean_reward": mean_reward,
            **({"auxiliary": msgspec.to_builtins(aligned)} if aligned else {}),
            **({"alarms": alarms} if alarms else {}),
            "variants": msgspec.to_builtins(compared) if len(compared) > 1 else [],
            **({} if fair is None else {"fairness_pairs": int(fair.gaps.size), "fairness_cost": fair.cost}),
        },
        data=msgspec.to_builtins(rows.data),
        seed=seed,
        code_version=code_version(),
        libraries=libraries(),
        created_at=now.astimezone(UTC).isoformat(),
        parent=parent,
    )
    metrics = {
        "train.rows": float(tally.counted),
        "train.generations": float(rows.ages(np.zeros(1, np.int64))[0] + 1),
        "train.effective_rows": tally.effective_rows,
        "train.uniform_rows": tally.uniform_rows,
        "train.sigma": policy.exploration.sigma,
        "train.floor": policy.exploration.floor,
        "train.mean_reward": mean_reward,
        "train.alarms": float(len(alarms)),
        "train.unread_rows": float(len(rows.unread)),
        "train.holdout_rows": float(rows.data.holdout),
        **{f"train.{name}": number for name, number in msgspec.to_builtins(tally.balance()).items()},
        **({} if fair is None else fair.metrics()),
        **{f"train.auxiliary_{i}_weight": one.weight for i, one in enumerate(aligned)},
        **{f"train.variant_{i}_loss": c.loss for i, c in enumerate(compared) if c.loss is not None},
    }
    version = registry.register(
        loop.name,
        packed(policy, manifest, probe, profiled(rows)),
        metrics=metrics,
        params=_params(manifest),
        tags={"kind": POLICY, "code_version": manifest.code_version, "parent": parent, ENDS: rows.data.last_ts},
        words=(summary(manifest), card(manifest)),
        key=key,
    )
    return Trained(
        version=version, rows=tally.counted, metrics=metrics, data=rows.data, compared=compared, alarms=alarms
    )


class _Part(NamedTuple):
    """What one fit leaves: the policy, the kind of its model, the rows counted, and what pairs changed."""

    kind: str
    policy: OraclePolicy
    tally: Tally
    fair: FairFit | None


def blinded_log(log: Interactions, supplied: Sequence[str]) -> Interactions:
    """Return the interactions without the context features in `supplied`."""
    return replace(log, batch=blinded(log.batch, supplied))


def keeping_from(
    registry: Registry, loop: str, champion: str, policy: OraclePolicy, kind: str, margin: float
) -> OraclePolicy | None:
    """Return `policy` with ties for what the champion does; None where nothing is kept.

    Nothing is kept of a champion that reads features otherwise, that remembers its users, that does not follow its
    model alone, or that cannot be read.

    Args:
        registry: where the champion's files are.
        loop: the loop.
        champion: its version.
        policy: as it was trained.
        kind: of its oracle.
        margin: what may be forgone, in deviations of rewards about the model.
    """
    if not margin:
        return None
    try:
        former, manifest = unpack(registry.files(loop, champion))
    except (FieldError, ImportError):
        return None
    alike = (former.features_version, former.action_ids) == (policy.features_version, policy.action_ids)
    if not alike or manifest.oracle == SESSION or isinstance(former, CappedPolicy):
        return None
    oracle = kept_after((manifest.oracle, former.oracle), (kind, policy.oracle), margin * policy.exploration.unit)
    return OraclePolicy(oracle, policy.exploration, action_ids=policy.action_ids)


def _earlier(
    registry: Registry, loop: LoopSettings, versions: list[str], reward: Range, supplied: Sequence[str] = ()
) -> list[tuple[str, dict[str, bytes]]]:
    """Return kind and files of as many earlier models as the loop's settings ask for, newest last; see `resumable`."""
    wanted = [loop.training, *loop.training.variants]
    warm = any(entry.warm_start for entry in wanted)
    count = max(1 if entry.warm_start else (entry.average or 1) - 1 for entry in wanted)
    found: list[tuple[str, dict[str, bytes]]] = []
    for version in versions[len(versions) - min(count + 1, len(versions)) :] if count else []:
        model = resumable(registry.files(loop.name, version), reward if warm else None, supplied)
        if model is not None:
            found.append(model)
    return found


def resumable(
    files: dict[str, bytes], reward: Range | None = None, supplied: Sequence[str] = ()
) -> tuple[str, dict[str, bytes]] | None:
    """Return kind and files of the model of a version that a training may go on with; None where there is none.

    A model that learned from auxiliary outcomes too is none: it expects other sums than rewards. Of a version that
    keeps what former ones did, it is the newest model, which learned from the rows of its own training.

    Args:
        files: of the version.
        reward: range that the model has to be made for; None for any.
        supplied: features that it has to be trained without, just these.
    """
    try:
        policy, manifest = unpack(files)
    except (FieldError, ImportError):  # a model of a former kind is no reason not to train
        return None
    known, near = manifest.exploration, manifest.trusted
    if reward is not None and not known.low <= reward.low < reward.high <= known.high:
        return None
    if is_mixed(manifest.training):
        return None
    if supplied:
        fits = near is not None and set(near.supplied) == set(supplied)
        return (near.oracle, model_of(files, trusted=True)) if near is not None and fits else None
    if isinstance(policy.oracle, KeptOracle):
        kind, newest = policy.oracle.members_by_kind[-1]
        return kind, newest.save()
    return manifest.oracle, model_of(files)


def scheduled_policy(
    loop: LoopSettings, made: Configuration, oracle: Oracle, tally: Tally, unseen: tuple[Interactions, Ints]
) -> OraclePolicy:
    """Return the policy of a model that `made` learned from the rows of `tally`.

    Args:
        loop: the loop.
        made: what the model was learned with.
        oracle: the model.
        tally: of the rows that it learned from.
        unseen: rows that it has not seen, with 0 for weight where they cannot be read, and their ages: they say how
            much noise it leaves.
    """
    low, high = made.oracle.low, made.oracle.high
    rule, settings = exploration_of(loop, tally.effective_rows, Range(low=low, high=high)), loop.policy
    policy, (log, age) = OraclePolicy(oracle, rule, action_ids=made.action_ids), unseen
    rule = scheduled(
        rule,
        rows=tally.effective_rows,
        uniform_rows=tally.uniform_rows,
        sigma=tally.spread.sigma(
            np.clip(log.reward, low, high),
            predicted_of_drawn(policy.scores, log),
            log.weights * training_weights(log, age, made.rules),
        ),
        least=settings.floor_minimum,
        wanted=settings.floor_rows,
    )
    return OraclePolicy(oracle, rule, action_ids=made.action_ids)


def no_cap_of_a_file(loop: LoopSettings) -> None:
    """Refuse to make a version of a file for a loop whose versions have a cap: its trusted part is learned from rows.

    Raises:
        FieldError: the loop has features that the caller supplies.
    """
    if supplied := loop.features.supplied_by_caller:
        wanted = "empty for a version that is made of a file: it would have no cap"
        raise FieldError("features.supplied_by_caller", wanted=wanted, got=list(supplied))


def exploration_of(loop: LoopSettings, rows: float, reward: Range | None = None) -> Exploration:
    """Return the loop's exploration rule for a model that learned from `rows` effective rows.

    Args:
        loop: the loop.
        rows: how many.
        reward: range of the rewards; None for what the loop's settings say of it.
    """
    rule, reward = loop.policy, reward or Rewards().range(loop.reward.minimum, loop.reward.maximum)
    return Exploration(
        kind=rule.exploration,
        gamma=rule.gamma,
        epsilon=rule.epsilon,
        inverse_temperature=rule.inverse_temperature,
        steepness=loop.steepness,
        falcon_scale=rule.falcon_scale,
        rows=rows,
        low=reward.low,
        high=reward.high,
        floor=rule.floor,
    )


def _params(manifest: Manifest) -> dict[str, Any]:
    data = {f"data.{name}": value for name, value in manifest.data.items() if name != "days"}
    return {"seed": manifest.seed, "code_version": manifest.code_version, **manifest.training, **data}
