"""What the demo of policies with memory found, as the report, the terminal and the JSON line show it."""

from __future__ import annotations

from typing import Any

import msgspec

from decision.ope.diagnostics.propensities import PropensityReport
from pipelines.training.promises import Promise


class SessionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo does.

    Attributes:
        seed: of the world, the traffic and the training.
        documents: numbers of the documents offered, of 30; the higher, the more clickbait.
        steps: visits of a user, who then leaves.
        visits_a_day: of these.
        first: users before there is any policy.
        bandit: users under the bandit.
        cohort: users who come at a time once a policy with memory is rolled out.
        cohorts: how often they come.
        again: after which of them the policy is trained again, from 0; -1 for none.
        effort: of the training, in shares of the usual.
        window_s: reward window of the loop, in seconds.
        minimum_ess: effective sample size below which the gate stays shut.
        alpha: share of the bandit's reward that the guard may give up.
    """

    seed: int = 1
    documents: tuple[int, ...] = (0, 3, 6, 9, 12, 15, 18, 21, 24, 27)
    steps: int = 40
    visits_a_day: int = 10
    first: int = 100
    bandit: int = 150
    cohort: int = 60
    cohorts: int = 10
    again: int = 4
    effort: float = 0.15
    window_s: float = 4.0
    minimum_ess: float = 25.0
    alpha: float = 0.15


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one night.

    Attributes:
        version: the version trained; "" where none was.
        oracle: what it is.
        learned_from: decisions that it learned from.
        verdict: of the gate.
        reasons: the gate's, in words.
    """

    version: str
    oracle: str
    learned_from: int
    verdict: str
    reasons: list[str]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of policy brought on the days of its users' stays.

    Attributes:
        policy: ``uniform``, ``bandit`` or ``session``.
        users: who were served by it alone.
        value: mean return per user.
        low: lower end of its 95% interval over users.
        high: upper end.
        reward: mean reward of a visit, by day.
        satisfaction: mean satisfaction, by day.
    """

    policy: str
    users: int
    value: float
    low: float
    high: float
    reward: list[float]
    satisfaction: list[float]


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """One cohort of the rollout.

    Attributes:
        number: its number, from 1.
        weight: the candidate's share of its users, as the guard had published it.
        bandit: mean return of those whom the bandit served; None for nobody.
        session: the same of the policy with memory.
    """

    number: int
    weight: float
    bandit: float | None
    session: float | None


class SessionProof(msgspec.Struct, frozen=True, kw_only=True):
    """What the application's own books and the records say.

    Attributes:
        lost: acknowledged over HTTP and not in the lake, decisions and outcomes.
        failed_requests: requests that were not answered with success.
        repeated_outcomes: outcomes sent twice under one key, and counted once.
        differing_answers: decisions whose answer is not what the lake holds.
        differing_propensities: decisions whose distributions are not those that the versions give for their records.
        propensities: every draw repeated.
        median_ms: median time of a batch of a hundred decisions, in milliseconds.
    """

    lost: int
    failed_requests: int
    repeated_outcomes: int
    differing_answers: int
    differing_propensities: int
    propensities: PropensityReport
    median_ms: float


class SessionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo found.

    Attributes:
        plan: what was done.
        decided: decisions in the lake.
        nights: in order.
        served: by kind of policy.
        gain: return of a user of the policy with memory over one of the bandit's: the difference, the lower and the
            upper end of its 95% interval, and the difference as a share.
        optimum: mean return of those who know the users and the world.
        cohorts: of the rollout, in order.
        promises: what the simulators promised of the versions with memory, and what came true.
        champion: the version in charge at the end.
        guard: what the guard says at the end.
        proof: nothing lost, nothing wrong.
        report: path of the report.
        seconds: duration.
    """

    plan: SessionPlan
    decided: int
    nights: list[Night]
    served: list[Served]
    gain: tuple[float, float, float, float]
    optimum: float
    cohorts: list[Cohort]
    promises: list[Promise]
    champion: str | None
    guard: str
    proof: SessionProof
    report: str
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the result line."""
        returns: dict[str, float | None] = dict.fromkeys(("logged", "bandit", "session"))
        returns |= {"logged" if one.policy == "uniform" else one.policy: one.value for one in self.served}
        proof = self.proof
        return {
            "decided": self.decided,
            "lost": proof.lost,
            "returns": returns | {"optimum": self.optimum},
            "gain": dict(zip(("value", "low", "high", "share"), self.gain, strict=True)),
            "belief": [msgspec.to_builtins(one) for one in self.promises],
            "versions": [msgspec.to_builtins(night) for night in self.nights],
            "champion": self.champion,
            "weights": [one.weight for one in self.cohorts],
            "guard": self.guard,
            "failed_requests": proof.failed_requests,
            "repeated_outcomes": proof.repeated_outcomes,
            "differing_answers": proof.differing_answers,
            "differing_propensities": proof.differing_propensities,
            "propensities": {"ok": proof.propensities.ok, "reasons": list(proof.propensities.reasons)},
            "report": self.report,
            "seconds": round(self.seconds, 1),
        }
