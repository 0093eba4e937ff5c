"""A pass over the holdout by whoever does its slices: each is read, asked about and added up where it is read.

What is asked travels as names, files of models and which rows are held out; a worker loads the models itself, and each
of its threads its own, since a model that predicts may not be asked by two at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from decision.artifact import manifest_of, unpack
from decision.batch import Floats, Interactions
from decision.exploration.mix import with_floor
from decision.options import SESSION
from decision.policy import OraclePolicy, baseline_policy
from decision.protocols import Policy
from pipelines.engines.engine import Engine
from pipelines.evaluation.holdout import MAX_VERSIONS, Latest, Pmf, Question, Sums, sums_of
from pipelines.evaluation.trajectories import remembered
from pipelines.interactions.arrays import asked_of, read_apart
from pipelines.lake.lake import Lake
from pipelines.registry.tracking import RegistryError
from pipelines.settings import LoopSettings
from pipelines.training.aligned import is_mixed
from pipelines.training.window import Window
from pipelines.trajectories.memories import memory_of

Files = dict[str, bytes]


@dataclass(slots=True)
class Judged:
    """What came of some slices; `together` puts two into one, in any order.

    Attributes:
        sums: of all comparisons; None where no row can be read.
        latest: the newest slices.
        unread: of each slice that has rows which cannot be read, why one of them.
    """

    sums: Sums | None
    latest: Latest
    unread: dict[int, str]


@dataclass(frozen=True)
class Asked:
    """What is asked of the holdout, as it is sent to whoever judges a slice of it.

    Attributes:
        rows: the window that the holdout belongs to.
        lake: where the histories are that memories are made of.
        files: of each version that is asked.
        version: the one that is judged.
        references: the versions it is compared with, by name in words; None is the baseline by its kind.
        baseline: the name of the baseline among them and its version, None where it is a kind.
        drawn: decisions that each policy version drew; empty to take weights as logged.
        newest: rows that the health is told from, at least.
    """

    rows: Window
    lake: str
    loop: LoopSettings
    files: Mapping[str, Files]
    version: str
    references: Mapping[str, str | None]
    baseline: tuple[str, str | None]
    drawn: Mapping[str, int]
    newest: int
    _loaded: threading.local = field(default_factory=threading.local, compare=False, repr=False)

    def __reduce__(self) -> Any:
        return Asked, (
            *(self.rows, self.lake, self.loop, self.files, self.version),
            *(self.references, self.baseline, self.drawn, self.newest),
        )

    @property
    def question(self) -> Question:
        """What is asked, with the models of this thread."""
        if not hasattr(self._loaded, "question"):
            self._loaded.question = self._question()
        return self._loaded.question

    def _question(self) -> Question:
        asking = Asking(Lake(self.lake), self.loop, self.files)
        policy, loop = asking.policy(self.version), self.loop
        name, alias = self.baseline
        references = {
            reference: asking.baseline(version) if reference == name else asking.remembering(version or self.version)
            for reference, version in self.references.items()
        }
        memory = memory_of(policy)
        usual = None if memory is None else memory.usual
        training = manifest_of(self.files[self.version]).training
        if is_mixed(training):
            usual = float(training["mean_reward"])
        return Question(
            policy=policy,
            seen=lambda table, log: asking.seen(policy, table, log),
            references=references,
            baseline=(name, asking.baseline(alias)),
            drawn={version: (count, asking.drawing(version)) for version, count in self.drawn.items()},
            share=loop.gate.share,
            reward=self.rows.reward,
            usual=usual,
            by_user=loop.name if memory is not None or loop.policy.oracle == SESSION else None,
        )


def judged(asked: Asked, engine: Engine) -> Judged | None:
    """Return what comes of the whole holdout."""
    return engine.total(_judged_in, _together, asked, asked.rows.slices)


def drawn_by(rows: Window, engine: Engine) -> dict[str, int]:
    """Return how many decisions of the holdout each policy version drew; empty unless there are several, and few."""
    count = engine.total(_drawn_in, _counted, rows, rows.slices) or Counter[str]()
    return dict(sorted(count.items())) if 1 < len(count) <= MAX_VERSIONS else {}


def _drawn_in(rows: Window, number: int) -> Counter[str]:
    return Counter(rows.judged_in(number, ("policy_version",))["policy_version"].to_pylist())


def _counted(one: Counter[str], other: Counter[str]) -> Counter[str]:
    return one + other


def _judged_in(asked: Asked, number: int) -> Judged:
    """Return what comes of a slice."""
    held = asked.rows.judged_in(number)
    log, errors = read_apart(held)
    unread: dict[int, str] = {}
    if errors:
        unread = {number: str(next(iter(errors.values())))}
        kept = np.setdiff1d(np.arange(len(held)), list(errors))
        held, log = held.take(pa.array(kept)), log.take(kept)
    latest = Latest(asked.newest)
    return Judged(sums_of(held, log, asked.question, latest, number) if len(held) else None, latest, unread)


def _together(one: Judged, other: Judged) -> Judged:
    sums = one.sums + other.sums if one.sums is not None and other.sums is not None else one.sums or other.sums
    return Judged(sums, one.latest + other.latest, one.unread | other.unread)


class Asking:
    """Policies by version, each loaded once, with the memories they would have had."""

    def __init__(self, lake: Lake, loop: LoopSettings, files: Mapping[str, Files]) -> None:
        self._lake, self._loop, self._files = lake, loop, files
        self._loaded: dict[str, OraclePolicy] = {}

    def policy(self, version: str) -> OraclePolicy:
        """Return a version's policy.

        Raises:
            RegistryError: its files were not given.
        """
        if version not in self._loaded:
            if version not in self._files:
                raise RegistryError(f"version {version} of loop {self._loop.name} cannot be had")
            self._loaded[version] = unpack(self._files[version])[0]
        return self._loaded[version]

    def remembering(self, version: str) -> Pmf:
        """Return the probabilities of a version, with the memory it would have had."""
        policy = self.policy(version)
        return lambda table, log: policy.pmf(self.seen(policy, table, log).batch)

    def baseline(self, version: str | None) -> Pmf:
        """Return the probabilities of the baseline, a version or by the loop's kind."""
        if version is None:
            return lambda table, log: self._reference().pmf(log.batch)
        return self.drawing(version)

    def drawing(self, version: str) -> Pmf:
        """Return the probabilities that a version drew by, loaded when they are asked for."""
        if version.startswith("baseline:"):
            return lambda table, log: self._first_nights(log)

        def pmf(table: pa.Table, log: Interactions) -> Floats:
            policy = self.policy(version)
            return policy.pmf(asked_of(policy, table, log).batch)

        return pmf

    def seen(self, policy: OraclePolicy, table: pa.Table, log: Interactions) -> Interactions:
        """Return the rows with the memory that `policy` would have had."""
        memory = memory_of(policy)
        log = asked_of(policy, table, log)
        return log if memory is None else remembered(self._lake, self._loop, table, memory, log)

    def _reference(self) -> Policy:
        return baseline_policy(self._loop.reference, steepness=self._loop.steepness)

    def _first_nights(self, log: Interactions) -> Floats:
        """Return the probabilities of the baseline while it was in charge: it explored."""
        pmf, explore = self._reference().pmf(log.batch), self._loop.explored
        return with_floor(pmf, log.batch.offsets, explore) if explore else pmf
