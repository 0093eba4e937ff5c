"""One pass over the holdout: the sums of every comparison, slice by slice, so that all of its rows count.

Each slice is a table of rows that no generation learned from. What is kept of it are sums, which add up to the same
bits however the holdout is cut, and the newest rows for the health of the version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.ope.diagnostics.predicted_lift import PredictedLift, predicted_lift_of
from decision.ope.estimators.balanced import balanced
from decision.ope.estimators.dr import dr_sums
from decision.ope.estimators.lift import SWITCH_AT, Lift, lift_of, switched_lift_of
from decision.ope.estimators.snips import SnipsSums
from decision.ope.sums.clusters import clusters_of
from decision.ope.sums.means import MeanSums
from decision.ope.weights import weights_of
from decision.options import Range
from decision.policy import OraclePolicy
from pipelines.registry.tracking import RegistryError

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_VERSIONS = 20
_SAME = 1e-6

Pmf = Callable[[pa.Table, Interactions], Floats]
"""(rows, the same as arrays) -> [m] probabilities of a policy, with the memory it would have had."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Sums of a version against one reference; `+` merges slices.

    Attributes:
        lift: paired, over the reference.
        kept: over the reference diluted by the baseline; None where it is the baseline itself.
        switched: over the reference by Switch-DR.
        predicted: what the version's reward model predicts of `kept`, or `lift` without one, and of `switched`.
    """

    lift: Lift
    kept: Lift | None
    switched: Lift
    predicted: tuple[PredictedLift, PredictedLift]

    def __add__(self, other: Compared) -> Compared:
        kept = None if self.kept is None or other.kept is None else self.kept + other.kept
        predicted = (self.predicted[0] + other.predicted[0], self.predicted[1] + other.predicted[1])
        return Compared(self.lift + other.lift, kept, self.switched + other.switched, predicted)

    def settle(self) -> Compared:
        """Return the same in plain numbers; nothing may be added to it."""
        kept = None if self.kept is None else self.kept.settle()
        return replace(self, lift=self.lift.settle(), kept=kept, switched=self.switched.settle())

    def score(self, sigma: float) -> float | None:
        """Return the larger predicted lift in standard errors; None where `sigma`, of the rewards, is not known."""
        return max(one.score(sigma) for one in self.predicted) if sigma > 0.0 else None


@dataclass(frozen=True, slots=True)
class Worth:
    """Sums of one policy's value; `+` merges slices."""

    dr: MeanSums
    snips: SnipsSums

    def __add__(self, other: Worth) -> Worth:
        return Worth(self.dr + other.dr, self.snips + other.snips)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of some rows; `+` merges slices.

    Attributes:
        rows: decisions.
        worth: values by name of the policy.
        plain: comparisons by name of the reference, with the weights that rows were logged with.
        mixed: the same with balanced weights; None where the log does not allow them.
    """

    rows: int
    worth: dict[str, Worth]
    plain: dict[str, Compared]
    mixed: dict[str, Compared] | None

    def __add__(self, other: Sums) -> Sums:
        mixed = None
        if self.mixed is not None and other.mixed is not None:
            mixed = {name: one + other.mixed[name] for name, one in self.mixed.items()}
        return Sums(
            self.rows + other.rows,
            {name: one + other.worth[name] for name, one in self.worth.items()},
            {name: one + other.plain[name] for name, one in self.plain.items()},
            mixed,
        )

    @property
    def compared(self) -> dict[str, Compared]:
        """Comparisons by name of the reference, settled."""
        return {name: one.settle() for name, one in (self.plain if self.mixed is None else self.mixed).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the holdout.

    Attributes:
        policy: of the version.
        seen: (rows, the same as arrays) -> these with the memory that the policy would have had.
        references: policies it is compared with, by name.
        baseline: the baseline's name, and its probabilities.
        drawn: decisions that each policy version drew, and what it would draw; empty to take weights as logged.
        share: of its decisions that a diluted reference gives back to the baseline.
        reward: the rewards that are possible.
        usual: the reward that the policy expects of every action, where its scores are no rewards; None where they are.
        by_user: salt of a hash of users, where decisions of one depend on one another, as they do on a memory; None
            where decisions are independent.
    """

    policy: OraclePolicy
    seen: Callable[[pa.Table, Interactions], Interactions]
    references: Mapping[str, Pmf]
    baseline: tuple[str, Pmf]
    drawn: Mapping[str, tuple[int, Pmf]]
    share: float
    reward: Range
    usual: float | None = None
    by_user: str | None = None


@dataclass(slots=True)
class Latest:
    """The newest slices of a pass, as many as hold `rows` rows, with the version's probabilities and scores.

    Attributes:
        rows: how many are wanted.
        kept: the slices by number, oldest first.
        featured: whether an action of any slice has features.
    """

    rows: int
    kept: dict[int, tuple[Interactions, Floats, Floats]] = field(default_factory=dict)
    featured: bool = False

    def add(self, number: int, interactions: Interactions, pmf: Floats, scores: Floats) -> None:
        """Add a slice; what is older than the newest `rows` rows is let go."""
        nothing: Features = {}
        batch = interactions.batch
        self.featured = self.featured or FeatureRows.of(batch.actions).name.size > 0
        bare = Batch([nothing] * len(batch), [nothing] * len(batch.actions), batch.action_ids, batch.offsets)
        self.kept = self._newest({**self.kept, number: (replace(interactions, batch=bare), pmf, scores)})

    def __add__(self, other: Latest) -> Latest:
        return Latest(self.rows, self._newest({**self.kept, **other.kept}), self.featured or other.featured)

    def _newest(
        self, slices: dict[int, tuple[Interactions, Floats, Floats]]
    ) -> dict[int, tuple[Interactions, Floats, Floats]]:
        newest, rows = list[int](), 0
        for number in sorted(slices, reverse=True):
            if rows >= self.rows:
                break
            newest.append(number)
            rows += len(slices[number][0])
        return {number: slices[number] for number in reversed(newest)}

    def joined(self) -> tuple[Interactions, Floats, Floats]:
        """Return them as one, without their features."""
        parts, pmf, scores = (list(column) for column in zip(*self.kept.values(), strict=True))
        nothing: Features = {}
        starts = np.cumsum([0, *[len(part.batch.actions) for part in parts]])
        ends = [part.batch.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        offsets = np.concatenate([np.zeros(1, np.int64), *ends])
        names = [name for part in parts for name in part.batch.action_ids]
        log = Interactions(
            Batch([nothing] * (len(offsets) - 1), [nothing] * len(names), names, offsets),
            np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.propensity for part in parts]),
            np.concatenate([part.reward for part in parts]),
            np.concatenate([part.pmf for part in parts]),
        )
        return log, np.concatenate(pmf), np.concatenate(scores)


def sums_of(table: pa.Table, interactions: Interactions, asked: Question, latest: Latest, number: int = 0) -> Sums:
    """Return the sums of a slice.

    Args:
        table: [n] rows.
        interactions: [n] the same as arrays.
        asked: the question.
        latest: told of the slice.
        number: the slice's place in the order of time.
    """
    batch = asked.seen(table, interactions).batch
    scores = asked.policy.scores(batch)
    pmf = asked.policy.pmf_of(scores, batch)
    if asked.usual is not None:
        scores = np.full(len(scores), asked.usual)
    latest.add(number, interactions, pmf, scores)
    baseline_name, baseline = asked.baseline
    base = baseline(table, interactions)
    others = {name: one(table, interactions) for name, one in asked.references.items()}
    clusters = None if asked.by_user is None else users_of(table, asked.by_user)
    policies = {"": pmf, baseline_name: base, **others}
    worth = {name: _worth(interactions, one, scores, clusters) for name, one in policies.items()}
    mixed = _mixed(table, interactions, asked.drawn)

    def compared(log: Interactions) -> dict[str, Compared]:
        diluted = {name: (1.0 - asked.share) * old + asked.share * base for name, old in others.items()}
        diluted.pop(baseline_name, None)
        return {
            name: compared_of(log, pmf, old, diluted.get(name), scores, asked.reward, clusters)
            for name, old in others.items()
        }

    return Sums(len(interactions), worth, compared(interactions), None if mixed is None else compared(mixed))


def compared_of(
    log: Interactions,
    new: Floats,
    old: Floats,
    diluted: Floats | None,
    scores: Floats,
    reward: Range,
    clusters: Ints | None = None,
) -> Compared:
    """Return the sums of a version against a reference.

    Args:
        log: [n] rows.
        new: [m] probabilities of the version.
        old: [m] those of the reference.
        diluted: [m] those of the reference diluted by the baseline; None where it is the baseline itself.
        scores: [m] what the version's reward model predicts.
        reward: the rewards that are possible.
        clusters: [n] cluster of each row, whose rows depend on one another; None where rows are independent.
    """
    return Compared(
        lift_of(log, new, old, scores, reward, clusters=clusters),
        None if diluted is None else lift_of(log, new, diluted, scores, reward, clusters=clusters),
        switched_lift_of(log, new, old, scores, reward, clusters=clusters),
        (
            predicted_lift_of(log, new, old if diluted is None else diluted, scores),
            predicted_lift_of(log, new, old, scores, largest=SWITCH_AT),
        ),
    )


def _worth(interactions: Interactions, pmf: Floats, scores: Floats, clusters: Ints | None) -> Worth:
    weights = weights_of(interactions, pmf)
    snips = SnipsSums.of(weights, interactions.reward, clusters=clusters)
    return Worth(dr_sums(interactions, pmf, scores, clusters), snips)


def users_of(table: pa.Table, salt: str) -> Ints:
    """Return [n] the cluster of each row's user, by a hash; a row of nobody is alone."""
    return clusters_of(pc.coalesce(table["subject_id"], table["event_id"]).to_pylist(), salt)


def _mixed(table: pa.Table, log: Interactions, drawn: Mapping[str, tuple[int, Pmf]]) -> Interactions | None:
    """Return the log with balanced weights where several versions drew it and each repeats its own probabilities.

    A guard's mixture, a mask or another mode makes them differ: then every row keeps the weight it was logged with.
    """
    if not 1 < len(drawn) <= MAX_VERSIONS:
        return None
    drawn_by = np.array(table["policy_version"].to_pylist())
    pmfs: list[Floats] = []
    for version, (_, policy) in drawn.items():
        try:
            pmf = policy(table, log)
        except (FieldError, RegistryError, ImportError):
            return None
        own = drawn_by == version
        if own.any() and np.abs(pmf[log.chosen] - log.propensity)[own].max() > _SAME:
            return None
        pmfs.append(pmf)
    return balanced(log, pmfs, [count for count, _ in drawn.values()])
