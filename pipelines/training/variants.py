"""Configurations of a training side by side: each learns from the past and is judged on the newest generation.

That is the order in which a policy is used, so a memory that is too long for a world that drifts loses here, and one
that is too short loses where nothing changes. The gate's own holdout is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from decision.batch import Floats, Interactions, Ints
from decision.errors import FieldError, SupportError
from decision.fairness.penalty import concatenate
from decision.generations import Tally, training_weights
from decision.options import DataRules, Range
from decision.oracles.action_ids import drawn_with_ids, with_ids
from decision.oracles.ensemble import EnsembleOracle
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kind import OracleSettings
from decision.protocols import FitsChunks, FitsWhole, Oracle
from pipelines.progress import Progress, silent
from pipelines.scratch import scratch
from pipelines.settings import LoopSettings, Variant

SHARE = 0.25
"""Of the only generation there is, the newest share that variants are judged on."""
_CLIP = 10.0
_SURE = 1e-6


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What one training is made with.

    Attributes:
        oracle: the cold reward model.
        rules: which rows it learns from.
        action_ids: it reads the actions' ids as features.
    """

    oracle: OracleSettings
    rules: DataRules
    action_ids: bool = False


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration and how it predicted.

    Attributes:
        variant: what it does differently from the loop's settings.
        loss: log-loss on the newest generation, weighted towards uniform draws; None when it could not be trained.
        error: why not, "" when it could.
        chosen: it is the one that was trained on everything.
    """

    variant: dict[str, Any]
    loss: float | None
    error: str = ""
    chosen: bool = False


def configuration(loop: LoopSettings, variant: Variant, seed: int, reward: Range) -> Configuration:
    """Return the loop's configuration with what `variant` does differently, for rewards in the range `reward`."""
    given = {name: value for name in variant.__struct_fields__ if (value := getattr(variant, name)) is not None}
    policy, training = loop.policy, loop.training
    oracle = OracleSettings(
        kind=given.get("oracle", policy.oracle),
        interactions=given.get("interactions", policy.interactions),
        ridge=given.get("ridge", policy.ridge),
        learning_rate=given.get("learning_rate", policy.learning_rate),
        bits=policy.bits,
        passes=given.get("passes", training.passes),
        bag=given.get("bag", policy.bag),
        seed=seed,
        low=reward.low,
        high=reward.high,
    )
    rules = {name: given.get(name, getattr(training, name)) for name in DataRules.__struct_fields__}
    return Configuration(oracle=oracle, rules=DataRules(**rules), action_ids=policy.action_ids)


def learned(
    chunks: Iterable[tuple[Interactions, Ints]],
    made: Configuration,
    earlier: Sequence[tuple[str, dict[str, bytes]]],
    also: Interactions | None = None,
    progress: Progress = silent,
) -> tuple[str, Oracle, Tally]:
    """Return the kind and the oracle that `made` learns from the rows, and what was counted of the rows.

    Args:
        chunks: the rows with their generations ([n], see `decision.generations`), gone through once; an oracle that
            does not fit chunks holds all of them.
        made: the configuration.
        earlier: kind and files of the models of earlier generations, newest last; for averages and warm starts.
        also: rows that no rule touches, with their own weights and ids among their features, where these are read; the
            costs of upheld pairs.
        progress: told of the passes over the rows, where the oracle tells them.

    Raises:
        SupportError: the rules leave no row.
        FieldError: the settings do not fit the rows.
    """
    kind = made.oracle.kind
    if made.rules.warm_start and earlier and earlier[-1][0] == kind:
        oracle = load_oracle(*earlier[-1])
    else:  # nothing to resume: all rows count that would count without a warm start
        oracle = new_oracle(made.oracle)
        made = msgspec.structs.replace(made, rules=msgspec.structs.replace(made.rules, warm_start=False))
    tally = Tally(low=made.oracle.low, high=made.oracle.high)
    kept = _kept(chunks, made, tally)
    if made.action_ids and not isinstance(oracle, FitsWhole):
        kept = map(drawn_with_ids, kept)
    more = [] if also is None else [also]
    if isinstance(oracle, FitsChunks):
        with scratch() as place:
            said = "passes over the decisions"
            oracle.fit_chunks(chain(kept, more), place=place, watch=lambda passes: progress(said, passes))
    else:
        whole = [*kept, *more]
        progress("models fitted", 0, 1)
        oracle.fit(whole[0] if len(whole) == 1 else concatenate(whole))
        progress("models fitted", 1, 1)
    if made.oracle.bag > 1:
        if made.rules.average > 1:
            raise FieldError("average", wanted="1 beside a bag", got=made.rules.average)
        return "ensemble", oracle, tally
    members = [(kind, oracle)]
    for known, files in reversed(earlier[len(earlier) - made.rules.average + 1 :] if made.rules.average > 1 else []):
        members.insert(0, newest_member(known, files))
    return (kind, oracle, tally) if len(members) == 1 else ("ensemble", EnsembleOracle(members), tally)


def _kept(chunks: Iterable[tuple[Interactions, Ints]], made: Configuration, tally: Tally) -> Iterator[Interactions]:
    """Yield the rows that count with their weights and their rewards cut to the range, and add all to `tally`."""
    for logged, age in chunks:
        interactions = replace(logged, reward=np.clip(logged.reward, made.oracle.low, made.oracle.high))
        weight = training_weights(interactions, age, made.rules)
        tally.add(interactions, weight)
        rows = np.flatnonzero(weight > 0)
        if rows.size:
            kept = interactions if rows.size == weight.size else interactions.take(rows)
            yield replace(kept, weight=(weight * interactions.weights)[rows])
    if not tally.counted:
        raise SupportError("the rules of the training leave no row to learn from")


def newest_member(kind: str, files: dict[str, bytes]) -> tuple[str, Oracle]:
    """Return the model that its own generation contributed to an average, or the model itself."""
    oracle = load_oracle(kind, files)
    return oracle.members_by_kind[-1] if isinstance(oracle, EnsembleOracle) else (kind, oracle)


def untried(loop: LoopSettings) -> list[Compared]:
    """Return every configuration of the loop without a loss, its own chosen."""
    variants = [Variant(), *loop.training.variants]
    return [Compared(variant=msgspec.to_builtins(c), loss=None, chosen=not i) for i, c in enumerate(variants)]


def compare(
    interactions: Interactions,
    age: Ints,
    loop: LoopSettings,
    seed: int,
    earlier: Sequence[tuple[str, dict[str, bytes]]],
    reward: Range,
) -> list[Compared]:
    """Return every configuration of the loop with its loss, one of them chosen; the loop's own comes first.

    Rewards lie in the range `reward`. Without variants nothing is fitted, and without a row of the past the loop's own
    is chosen.
    """
    variants = [Variant(), *loop.training.variants]
    past, newest = _cut(age)
    if len(variants) == 1 or not past.size or not newest.size:
        return untried(loop)
    before, after = interactions.take(past), interactions.take(newest)
    ages = age[past] - age[past].min()
    read = with_ids(after.batch) if loop.policy.action_ids else after.batch
    losses: list[float | None] = []
    errors: list[str] = []
    for variant in variants:
        try:
            _, oracle, _ = learned([(before, ages)], configuration(loop, variant, seed, reward), earlier[:-1])
            losses.append(weighted_log_loss(oracle.predict(read)[after.chosen], after, reward))
            errors.append("")
        except (FieldError, SupportError, ArithmeticError, ImportError) as error:
            losses.append(None)
            errors.append(str(error))
    best = min((i for i, loss in enumerate(losses) if loss is not None), key=lambda i: losses[i] or 0.0, default=0)
    return [
        Compared(variant=msgspec.to_builtins(c), loss=losses[i], error=errors[i], chosen=i == best)
        for i, c in enumerate(variants)
    ]


def weighted_log_loss(scores: Floats, interactions: Interactions, reward: Range) -> float:
    """Return the log-loss of [n] predictions for the chosen actions, of rewards as shares of their range.

    Every row counts min(1 / (p K), 10) times what it stands for.
    """
    low, span = reward.low, reward.high - reward.low
    p = np.clip((scores - low) / span, _SURE, 1.0 - _SURE)
    y = np.clip((interactions.reward - low) / span, 0.0, 1.0)
    weight = np.minimum(1.0 / (interactions.propensity * np.diff(interactions.batch.offsets)), _CLIP)
    weight *= interactions.weights
    return float(weight @ -(y * np.log(p) + (1.0 - y) * np.log1p(-p)) / weight.sum())


def _cut(age: Ints) -> tuple[Ints, Ints]:
    """Return the rows of the past and of the newest generation; the rows are in the order of time."""
    if age.size and int(age.max()) > 0:
        return np.flatnonzero(age > age.min()), np.flatnonzero(age == age.min())
    cut = int(len(age) * (1.0 - SHARE))
    return np.arange(cut), np.arange(cut, len(age))
