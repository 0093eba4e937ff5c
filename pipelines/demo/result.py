"""What a demonstration found, as the report, the terminal and the JSON line show it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from decision.ope.diagnostics.propensities import PropensityReport
from pipelines.demo.open_bandit import LogStudy
from pipelines.interactions.counters import Counters


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a demonstration does.

    Attributes:
        log: event log, ``local`` or ``kafka``.
        seed: seed of the world, the traffic and the training.
        decisions: decisions of a generation before it is trained.
        generations: generations.
        farewell: decisions under the last champion.
        per_second: decisions a second while a generation is trained and promoted.
        window_s: reward window of the loop, in seconds.
        floor: largest share of decisions drawn uniformly.
        margin: how much worse than the champion the gate lets a version possibly be, in reward per decision.
        holdout: share of the decisions that are kept for evaluation and the gate.
        minimum_ess: effective rows below which the gate stays shut. Of decisions drawn uniformly among ten actions a
            good policy agrees with one in ten, so a first generation of 1,500 has no hundred of them.
        open_bandit: evaluate the Open Bandit logs too.
    """

    log: Literal["local", "kafka"] = "local"
    seed: int = 1
    decisions: int = 1500
    generations: int = 4
    farewell: int = 500
    per_second: float = 40.0
    window_s: float = 2.5
    floor: float = 0.05
    margin: float = 0.03
    holdout: float = 0.3
    minimum_ess: float = 25.0
    open_bandit: bool = True


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One trained version.

    Attributes:
        version: its version.
        learned_from: decisions it learned from.
        value: doubly robust estimate on the holdout of the log.
        low: lower end of its 95% interval.
        high: upper end.
        true_value: exact value of its distribution on the held-out rows of the world.
        greedy_accuracy: share of those rows whose best action by its scores is the right one.
        lift: estimated lift over what was in charge.
        lift_bound: the gate's one-sided lower bound.
        promoted: whether the gate let it.
        reasons: the gate's, in words.
        switch_s: how long after the promotion the first answer came from it; None when refused.
    """

    version: str
    learned_from: int
    value: float
    low: float
    high: float
    true_value: float
    greedy_accuracy: float
    lift: float
    lift_bound: float | None
    promoted: bool
    reasons: list[str]
    switch_s: float | None


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What the application's own journal and the logged seeds say about the loop.

    Attributes:
        lost_decisions: acknowledged over HTTP and not in the lake.
        lost_outcomes: the same of outcomes.
        failed_requests: requests that were not answered with success.
        repeated_requests: requests that were sent again under the same event id.
        changed_answers: those of them that were answered otherwise than the first time.
        differing_answers: decisions whose answer over HTTP is not what the lake holds.
        mixed_versions: decisions whose distribution is not that of the version they name.
        repeated_outcomes: outcomes that were acknowledged twice under one idempotency key.
        propensities: the log's propensities, every draw repeated.
        median_ms: median time of an answer, in milliseconds, on a machine that trains meanwhile.
        p99_ms: 99th percentile of it.
    """

    lost_decisions: int
    lost_outcomes: int
    failed_requests: int
    repeated_requests: int
    changed_answers: int
    differing_answers: int
    mixed_versions: int
    repeated_outcomes: int
    propensities: PropensityReport
    median_ms: float
    p99_ms: float


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a demonstration found.

    Attributes:
        plan: what was done.
        world: the data set.
        uniform: value of choosing at random.
        optimum: value of the best policy.
        generations: in order.
        champion: version in charge at the end; None for the baseline.
        counters: the loop's, at the end.
        proof: nothing lost, nothing wrong.
        regret: reward missed by the served policies against the optimum, over all decisions.
        regret_uniform: reward that the uniform policy would have missed on the same decisions.
        open_bandit: the Open Bandit logs.
        report: path of the report.
        seconds: duration.
    """

    plan: Plan
    world: str
    uniform: float
    optimum: float
    generations: list[Generation]
    champion: str | None
    counters: Counters
    proof: Proof
    regret: float
    regret_uniform: float
    open_bandit: list[LogStudy]
    report: str
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the result line."""
        counters, proof = self.counters, self.proof
        numbers = proof.propensities.numbers
        return {
            "decided": counters.decided,
            "joined": counters.joined,
            "pending": counters.pending,
            "expired": counters.expired,
            "dropped": sum(counters.dropped.values()),
            "dropped_by_reason": counters.dropped,
            "lost": proof.lost_decisions + proof.lost_outcomes,
            "duplicates_seen": counters.duplicates_seen,
            "late_outcomes": counters.late_outcomes,
            "orphan_outcomes": counters.orphan_outcomes,
            "dead_letters": counters.dead_letters,
            "failed_requests": proof.failed_requests,
            "repeated_requests": proof.repeated_requests,
            "repeated_outcomes": proof.repeated_outcomes,
            "changed_answers": proof.changed_answers,
            "differing_answers": proof.differing_answers,
            "mixed_versions": proof.mixed_versions,
            "generations": [
                {
                    "version": entry.version,
                    "value": entry.value,
                    "ci": [entry.low, entry.high],
                    "greedy_accuracy": entry.greedy_accuracy,
                    "true_value": entry.true_value,
                    "promoted": entry.promoted,
                }
                for entry in self.generations
            ],
            "champion": self.champion,
            "uniform": self.uniform,
            "optimum": self.optimum,
            "regret": self.regret,
            "regret_uniform": self.regret_uniform,
            "propensities": {
                "ok": proof.propensities.ok,
                "reasons": list(proof.propensities.reasons),
                "redrawn": int(numbers.get("redrawn", 0)),
                "p_value": numbers.get("p_value"),
            },
            "open_bandit": [
                {
                    "log": entry.log,
                    "propensities_ok": entry.propensities.ok,
                    "reasons": list(entry.propensities.reasons),
                    "policy": entry.replay.policy,
                    "estimates": {
                        name: None if estimate is None else [estimate.value, estimate.low, estimate.high]
                        for name, estimate in entry.replay.estimates.items()
                    },
                    "own_value": entry.own.value,
                }
                for entry in self.open_bandit
            ],
            "log": self.plan.log,
            "report": self.report,
            "seconds": round(self.seconds, 1),
        }
