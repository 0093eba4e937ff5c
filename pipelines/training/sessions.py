"""Training of a policy with memory: trajectories from the lake, every method asked for, two witnesses, one version.

The same table version, settings, code and seed give the same bytes; the manifest says which they were, what each
method's policy was judged to be worth, and what became of those of earlier nights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import torch

from decision.artifact import Manifest, pack
from decision.batch import Floats
from decision.errors import FieldError, SupportError
from decision.exploration.rule import Exploration
from decision.options import SESSION, SessionRules
from decision.policy import OraclePolicy
from pipelines.engines.engine import Engine
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, parted, silent
from pipelines.registry.registry import Registry
from pipelines.reports.card import card, summary
from pipelines.settings import LoopSettings
from pipelines.training.episodes import episode_high
from pipelines.training.profiled import profiled
from pipelines.training.promises import promises
from pipelines.training.session_log import log_of
from pipelines.training.trained import POLICY, Trained, code_version, libraries
from pipelines.training.window import window
from simulators.learned.ensembles import fit_ensemble, residual_of
from simulators.offline.quality import advice, quality_of
from simulators.trainers.contract import Plan, Taught, trainer_of
from simulators.trainers.judge import Judgement, judged, paired

FEWEST = 40
"""Users without whom no simulator is learned, and nothing is judged."""
FIT_STEPS = 120
"""Gradient steps of the recurrent simulator."""


def train_session(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    seed: int,
    now: datetime,
    table_version: int | None = None,
    key: str = "",
    progress: Progress = silent,
    engine: Engine | None = None,
) -> Trained:
    """Teach a policy with memory and register it; nobody is promoted.

    Args:
        lake: the tables.
        registry: where the version goes.
        loop: the loop; its ``session`` settings decide what is learned.
        seed: of every random choice.
        now: time of the training, UTC, for the manifest.
        table_version: version of the interactions table to read; None for the present one.
        key: a training repeated under the same key returns the version of the first.
        progress: told of the parts of the training that are done.
        engine: who looks through the parts of the log for the sample; None for this process, one after the other.

    Raises:
        SupportError: there are too few rows or users, or no method could learn from them, with the reasons.
        RegistryError: the registry cannot be reached.
    """
    rules = loop.session
    methods = list(dict.fromkeys((rules.method, *rules.also)))
    part_done = parted(progress, "parts of the training done", 2 + 2 * len(methods))
    earlier = [version for version in registry.versions(loop.name) if version.tags.get("kind") == POLICY]
    ends = [version.tags["last_ts"] for version in earlier if "last_ts" in version.tags]
    rows = window(lake, loop, table_version, trainings=ends, engine=engine)
    if rows.data.rows < loop.training.minimum:
        raise SupportError(f"loop {loop.name} has {rows.data.rows} interactions, {loop.training.minimum} are needed")
    log = log_of(lake, loop, rows.data.table_version)
    if len(log) < FEWEST:
        raise SupportError(f"loop {loop.name} has the trajectories of {len(log)} users, {FEWEST} are needed")
    part_done()
    with _one_thread():
        simulators = fit_ensemble(log, seed, members=rules.members, steps=max(1, round(FIT_STEPS * rules.effort)))
        quality = quality_of(log, asked=rules.weights, residual=residual_of(simulators, log))
        part_done()
        found: dict[str, tuple[Taught, Judgement, Floats]] = {}
        errors: dict[str, str] = {}
        for method in methods:
            try:
                taught = trainer_of(method)(log, simulators, plan_of(rules), seed)
                part_done()
                found[method] = (taught, *judged(taught, log, simulators, seed))
            except FieldError as error:
                errors[method] = str(error)
                part_done()
            part_done()
    if not found:
        raise SupportError("; ".join(f"{method}: {error}" for method, error in errors.items()))
    chosen = best_of(found)
    taught, judgement, _ = found[chosen]
    told = {
        "chosen": chosen,
        "quality": asdict(quality) | {"advice": advice(quality)},
        "methods": {name: _told(*entry[:2]) for name, entry in found.items()} | errors,
        "compared": {
            name: dict(zip(("gap", "low", "high"), paired(entry[2], found[chosen][2]), strict=True))
            for name, entry in found.items()
            if name != chosen
        },
        "record": msgspec.to_builtins(
            promises(lake, loop.name, earlier, registry.verdicts(loop.name), table_version=rows.data.table_version)
        ),
    }
    exploration = Exploration(
        kind="softmax",
        inverse_temperature=rules.sharpness,
        floor=loop.policy.floor,
        low=rows.reward.low,
        high=rows.reward.high,
    )
    parent = registry.aliases(loop.name).get("champion", "")
    manifest = Manifest(
        loop=loop.name,
        oracle=SESSION,
        exploration=exploration,
        reward=msgspec.to_builtins(loop.reward),
        training={
            "oracle": SESSION,
            "floor": loop.policy.floor,
            **msgspec.to_builtins(rules),
            "method": chosen,
            "methods": methods,
            "judged": told,
        },
        data=msgspec.to_builtins(rows.data)
        | {
            "trajectories": len(log),
            "actions": len(log.catalogue),
            "episode_high": episode_high(lake, loop.name, rows.data.table_version),
        },
        seed=seed,
        code_version=code_version("simulators"),
        libraries=libraries(),
        created_at=now.astimezone(UTC).isoformat(),
        parent=parent,
    )
    metrics = {
        "train.rows": float(log.inside.sum()),
        "train.trajectories": float(len(log)),
        "train.mean_reward": float(log.rewards[log.inside].mean()),
        **_numbers("train.", taught, judgement),
        **{f"train.{name}_gain": entry[1].gain for name, entry in found.items()},
    }
    version = registry.register(
        loop.name,
        pack(OraclePolicy(taught.oracle(log), exploration), manifest, profiled(rows)),
        metrics=metrics,
        params={"seed": seed, "code_version": manifest.code_version, "oracle": SESSION, "method": chosen},
        tags={
            "kind": POLICY,
            "code_version": manifest.code_version,
            "parent": parent,
            "last_ts": rows.data.last_ts,
            "method": chosen,
            "believed": repr(judgement.believed),
            "held_out": repr(judgement.held_out),
            "gain": repr(judgement.gain),
        },
        words=(summary(manifest), card(manifest)),
        key=key,
    )
    return Trained(version=version, rows=int(log.inside.sum()), metrics=metrics, data=rows.data, session=told)


def plan_of(rules: SessionRules) -> Plan:
    """Return the trainers' plan in a loop's settings."""
    return Plan(
        candidates=rules.candidates,
        members=rules.members,
        held=rules.held,
        penalty=rules.penalty,
        penalty_kind=rules.penalty_kind,
        trend=rules.trend,
        weights=rules.weights,
        gated=rules.gated,
        effort=rules.effort,
        form=rules.form,
    )


def best_of(found: Mapping[str, tuple[Taught, Judgement, Floats]]) -> str:
    """Return the method whose policy goes to the gate: the first, unless another is better.

    One is better when the witnesses agree on it and not on the first, or when its paired gain over the first has a 95%
    interval above 0 in the simulator held out and the witnesses agree.
    """
    best, *others = found
    for other in others:
        agreed, over = found[other][1].agreed, paired(found[other][2], found[best][2])
        if agreed and (not found[best][1].agreed or over[1] > 0.0):
            best = other
    return best


def _told(taught: Taught, judgement: Judgement) -> dict[str, Any]:
    return dict(taught.numbers) | asdict(judgement)


def _numbers(prefix: str, taught: Taught, judgement: Judgement) -> dict[str, float]:
    told = _told(taught, judgement)
    numbers = {prefix + name: float(value) for name, value in told.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have torch compute on one thread, whatever the machine: sums in another order are other sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
