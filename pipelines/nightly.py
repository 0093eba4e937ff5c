"""A night of one loop, from ingestion to tidying up: the steps in `STEPS`, in order and resumable.

The manifest is written after every step, so a run that was cut short continues after the last finished one when it is
started again under the same id. A step that was cut short itself is done again: every step is safe to repeat, and the
version that a repeated training would register is found again under the run's key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from decision.errors import FieldError, SupportError
from pipelines.engines.engine import Engine
from pipelines.evaluation.agreement import keep_agreement
from pipelines.evaluation.alarms import NIGHTS, Alarmed, alarms
from pipelines.evaluation.drift import trained_on
from pipelines.evaluation.evaluate import Evaluated, evaluate
from pipelines.evaluation.standing import TO_DO, Figures, raise_alarms
from pipelines.fairness.gate import PanelGate
from pipelines.fairness.standing import training_pairs
from pipelines.fairness.step import audit
from pipelines.guard.step import guard
from pipelines.ingestion.behind import caught_up, ends_of
from pipelines.ingestion.ingest import Ingested, ingest
from pipelines.ingestion.ownership import strike_absent
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.lake.moment import NoMomentError
from pipelines.lake.noted import TABLES, check_noted, note
from pipelines.log.protocol import EventLog
from pipelines.logs import numbers, tell
from pipelines.progress import Progress, counted, silent
from pipelines.promotion.promote import promote
from pipelines.promotion.watch import watch
from pipelines.registry.registry import Registry
from pipelines.remedies import told as words_of
from pipelines.reports.night import keep_night
from pipelines.retention.tidy import tidy
from pipelines.runs import Run, Step, open_night, runs
from pipelines.settings import LoopSettings, Settings, list_loops
from pipelines.state.failures import StateError
from pipelines.state.state import State
from pipelines.training.train import train

STEPS = (
    "ingest",
    "features",
    "join",
    "alarms",
    "watch",
    "guard",
    "train",
    "evaluate",
    "promote",
    "audit",
    "compact",
    "tidy",
)
_log = logging.getLogger(__name__)
T = TypeVar("T")
Told = Callable[[str, str], None]
"""Called with a step's name and ``started``, ``done`` or ``kept`` (finished by an earlier attempt)."""


def nightly(
    settings: Settings,
    log: EventLog,
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    now: datetime,
    run_id: str | None = None,
    seed: int = 1,
    told: Told | None = None,
    progress: Progress = silent,
    engine: Engine | None = None,
) -> Run:
    """Run the steps of a night that are not finished yet, and keep its report in words.

    Args:
        settings: the installation.
        log: the event log to ingest from.
        lake: the tables.
        registry: the versions.
        loop: the loop.
        now: the present, UTC; a resumed run keeps its own.
        run_id: the run to start or to continue; None continues the loop's last run if it is unfinished and young,
            else starts one named after `now`.
        seed: seed of the training; a resumed run keeps its own.
        told: told of every step.
        progress: told how far a long one has come.
        engine: who does the passes over the log of guard, training, evaluation and gate; None for this process.

    Returns:
        The finished run. A refusal by the gate is a result, see `Run.verdict`.

    Raises:
        FieldError: `run_id` is none, or another run of the loop is going on.
        FencedError: this machine was not heard of for so long that another one took the night over.
    """
    with open_night(settings, loop.name, run_id, now, seed) as opened:
        run = opened.run
        about = {"loop": loop.name, "run": run.run_id}
        night = _Night(settings, log, lake, registry, loop, run, {*list_loops(settings), loop.name}, progress, engine)
        for name in STEPS:
            if run.result(name) is not None:
                _tell(told, name, "kept")
                continue
            _tell(told, name, "started")
            tell(_log, "step started", about | {"step": name}, logging.DEBUG)
            try:
                result = msgspec.json.decode(msgspec.json.encode(getattr(night, name)()))  # as a rerun will read it
            except Exception as error:
                told_of = lake.damage(TABLES, error)
                run.status, run.error = "failed", f"{name}: {words_of(told_of, settings)}"
                with suppress(StateError, OSError):  # what the step met may keep this from being written, too
                    opened.save()
                tell(_log, "step failed", about | {"step": name, "error": run.error})
                keep_night(settings, run, TO_DO)
                if told_of is error:
                    raise
                raise told_of from error
            run.steps.append(Step(name=name, finished_at=datetime.now(UTC).isoformat(), result=result))
            run.status, run.error = "done" if name == STEPS[-1] else "running", ""
            opened.save()
            _tell(told, name, "done")
            tell(_log, "step done", {"step": name} | about | numbers(result) | about)
        keep_night(settings, run, TO_DO)
        tell(_log, "night done", about | {"verdict": run.verdict})
    return run


def features(settings: Settings, loop: LoopSettings, lake: Lake, progress: Progress = silent) -> Any:
    """Bring the loop's streaming features up to the lake, and put online what uploads had for a later time."""
    if not loop.features.enabled:
        return {"skipped": "the loop has no features"}
    from pipelines.features.push import push_new  # imports Feast: only loops that use it pay the seconds
    from pipelines.features.store import Features

    store = Features(settings, loop)
    try:
        store.materialize(datetime.now(UTC))
        return push_new(lake, loop, store, progress)
    finally:
        store.close()


class _Night:
    """The steps over what they share; each returns its result, small enough for the manifest."""

    def __init__(
        self,
        settings: Settings,
        log: EventLog,
        lake: Lake,
        registry: Registry,
        loop: LoopSettings,
        run: Run,
        loops: set[str],
        progress: Progress,
        engine: Engine | None,
    ) -> None:
        self.settings = settings
        self.log, self.lake, self.registry, self.loop, self.run, self.loops = log, lake, registry, loop, run, loops
        self.progress, self.engine = progress, engine
        self.evaluated: Evaluated | None = None

    def ingest(self) -> Any:
        """Wait for the followers, where there are some that get on; bring in the log's messages else."""
        with State(self.settings.state_url) as state:
            check_noted(state, self.lake, TABLES)
        patience_s = 30.0 + 4 * self.settings.commits_every_s
        following = _followers(self.settings)
        if following and caught_up(ends_of(self.log), self.lake, patience_s=patience_s):
            return {**msgspec.to_builtins(Ingested()), "followers": following}
        return ingest(self.log, self.lake, loops=self.loops, progress=self.progress)

    def features(self) -> Any:
        return features(self.settings, self.loop, self.lake, self.progress)

    def join(self) -> Any:
        joined = join(self.lake, self.loop, self.run.started_at, progress=self.progress)
        # Pinned here: a repeated training reads the same rows, whatever was joined since.
        return {"table_version": self.lake.version("interactions"), "joined": joined}

    def alarms(self) -> Any:
        """Look for alarms, against the nights before that did."""
        nights: list[dict[str, int]] = []
        for earlier in runs(self.settings, self.loop.name):
            found = earlier.result("alarms")
            if earlier.run_id != self.run.run_id and found is not None and "positions" in found:
                nights.append(found["positions"])
        trained, seed = trained_on(self.registry, self.loop), self.run.seed
        night = self._as_pinned(
            lambda version: alarms(
                self.lake, self.loop, nights[-NIGHTS - 1 :], seed=seed, table_version=version, trained=trained
            )
        )
        figures = self._figures(night)
        kept = raise_alarms(
            self.settings, self.loop.name, self.run.run_id, night.alarms, figures, now=self.run.started_at
        )
        return {**msgspec.to_builtins(night), "standing": [alarm.key for alarm in kept.alarms]}

    def _figures(self, night: Alarmed) -> Figures:
        """Return what replicas show of the night as metrics."""
        decisions: dict[str, int] = {}
        strays: dict[str, int | None] = {}
        with suppress(NoMomentError):
            found = counters(self.lake, self.loop, self.run.started_at)
            dropped = sum(found.dropped.values())
            decisions = {
                "joined": found.joined,
                "pending": found.pending,
                "expired": found.expired,
                "dropped": dropped,
            }
            strays = {"late": found.late_outcomes, "orphan": found.orphan_outcomes}
        return Figures(
            at=self.run.started_at.timestamp(),
            value=night.rewards.total / night.rewards.n if night.rewards.n else None,
            join_rate=night.join_rate,
            decisions=decisions,
            strays=strays,
        )

    def guard(self) -> Any:
        now = self.run.started_at
        state = guard(self.settings, self.loop, self.lake, self.registry, now, self.progress, engine=self.engine)
        shown = ("status", "reason", "baseline_version", "candidate_version", "guard_version", "weight")
        return {name: getattr(state, name) for name in shown}

    def train(self) -> Any:
        try:
            return self._as_pinned(self._train)
        except SupportError as error:
            return {"skipped": str(error)}

    def evaluate(self) -> Any:
        trained = self.run.result("train") or {}
        if "skipped" in trained:
            return trained
        try:
            self.evaluated = self._as_pinned(lambda version: self._evaluate(trained["version"], version))
        except SupportError as error:
            return {"skipped": str(error)}
        if self.evaluated.agreement is not None:
            keep_agreement(self.settings, self.loop.name, self.evaluated.agreement)
        return self.evaluated

    def promote(self) -> Any:
        evaluated = self.run.result("evaluate") or {}
        if "skipped" in evaluated:
            return evaluated
        return self._as_pinned(lambda version: self._promote(evaluated["version"], version))

    def watch(self) -> Any:
        by = f"nightly {self.run.run_id}"
        now, seed = self.run.started_at, self.run.seed
        return watch(self.lake, self.registry, self.loop, now=now, by=by, seed=seed, progress=self.progress)

    def audit(self) -> Any:
        now, seed = self.run.started_at, self.run.seed
        return audit(self.settings, self.lake, self.registry, self.loop, now, seed=seed, progress=self.progress)

    def compact(self) -> Any:
        return {
            table: self.lake.compact(table) for table in counted(TABLES, self.progress, "tables compacted", total=3)
        }

    def tidy(self) -> Any:
        """Remove what is too old by now, and note how the night leaves the lake.

        A run that goes on a day later does not count from its own beginning.
        """
        now = datetime.now(UTC)
        done = tidy(self.settings, self.log, self.lake, now=now, loop=self.loop.name, progress=self.progress)
        with State(self.settings.state_url) as state:
            note(state, self.lake, TABLES, now)
        return done

    def _train(self, table_version: int) -> Any:
        return train(
            self.lake,
            self.registry,
            self.loop,
            seed=self.run.seed,
            now=self.run.started_at,
            table_version=table_version,
            key=f"{self.run.loop}:{self.run.run_id}",
            pairs=training_pairs(self.settings, self.lake, self.loop),
            progress=self.progress,
            engine=self.engine,
        )

    def _evaluate(self, version: str, table_version: int) -> Evaluated:
        return evaluate(
            self.lake,
            self.registry,
            self.loop,
            version,
            table_version=table_version,
            progress=self.progress,
            engine=self.engine,
        )

    def _promote(self, version: str, table_version: int) -> Any:
        return promote(
            self.lake,
            self.registry,
            self.loop,
            version=version,
            now=self.run.started_at,
            by=f"nightly {self.run.run_id}",
            evaluated=self.evaluated,
            table_version=table_version,
            replace_candidate=False,
            panels=PanelGate(self.settings, self.lake, self.registry, self.loop, self.progress),
            engine=self.engine,
        )

    def _as_pinned(self, step: Callable[[int], T]) -> T:
        """Return what `step` makes of the interactions as the night's join left them.

        Where an erasure takes that version's files away, the night goes on with the table as it is then.
        """
        joined = self.run.result("join") or {}
        while True:
            pinned = joined["table_version"]
            try:
                return step(pinned)
            except FieldError as error:
                latest = self.lake.version("interactions")
                if error.field != "version" or pinned == latest:
                    raise
                tell(_log, "the rows of the night were rewritten by an erasure", {"loop": self.loop.name})
                joined["table_version"] = latest


def _followers(settings: Settings) -> int:
    file = settings.state_file
    if file is not None and not file.is_file():
        return 0
    try:
        with State(settings.state_url) as state:
            return len(strike_absent(state))
    except StateError as error:
        _log.warning("it is not known whether somebody follows the log: %s", error)
        return 0


def _tell(told: Told | None, step: str, state: str) -> None:
    if told is not None:
        told(step, state)
