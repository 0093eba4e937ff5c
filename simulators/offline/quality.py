"""What a log of sessions can teach, before anything is trained on it: one row, and what it means in words.

States are histories and hardly ever come twice, so no share of states seen (SACo) is told: it would measure how
histories are cut into bins. The whole distribution is logged instead, and tells of exploration without bins.

References:
    Schweighofer et al. 2022, "A dataset perspective on offline reinforcement learning", arXiv 2111.04714 (TQ).
    Hong et al. 2023, "Harnessing mixed offline reinforcement learning datasets via trajectory weighting", ICLR
    (positive semi-variance of returns).
    Belkhale, Cui, Sadigh 2023, "Data quality in imitation learning", NeurIPS (what a model of responses leaves over).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.ope.diagnostics.log_quality import trajectory_quality
from decision.ope.diagnostics.untried import SHOWN
from simulators.learned.trajectories import Trajectories
from simulators.offline.weights import (
    TRUSTED,
    Kind,
    drawn_by,
    effective_of,
    kind_of,
    returns_of,
    share_of_users,
    weights_of,
)

FEWEST = 20
"""Trajectories of a version without which its mean is no policy known."""
_NARROW, _FEW_COUNT, _UNEXPLAINED = 1.5, 0.02, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What one version drew.

    Attributes:
        name: of the version.
        users: trajectories that are mostly its own.
        mean: of their rewards per step.
        deviation: between trajectories.
    """

    name: str
    users: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a log of sessions holds.

    Attributes:
        users: trajectories.
        decisions: in them.
        versions: that drew, the best first; empty when not known.
        tq: mean reward between that of the worst (0) and of the best (1) policy known, which are the versions and
            uniform choice, by the weights of single decisions; None where there are no two.
        semivariance: mean square of what returns exceed their mean by, of returns scaled to [0, 1]: how much better
            than usual some went, by policy or by luck.
        share_of_users: share of the variance of returns that users' first responses explain.
        effective_actions: exponential of the entropy of the distribution drawn from, on average; None when not known.
        executed: actions shown in 1 of 400 decisions or more.
        actions: in the catalogue.
        counts: share of the decisions that count for uniform choice.
        sampler: whose trajectories would be imitated more.
        effective: effective number of trajectories by that sampler.
        residual: one-step error of the best model of responses, for users that it has not seen, over the rewards'
            deviation; None where there is no model yet.
    """

    users: int
    decisions: int
    versions: tuple[Drawn, ...]
    tq: float | None
    semivariance: float
    share_of_users: float
    effective_actions: float | None
    executed: int
    actions: int
    counts: float
    sampler: Kind
    effective: float
    residual: float | None = None


def quality_of(log: Trajectories, *, asked: Kind = "pw", residual: float | None = None) -> Quality:
    """Return what `log` holds.

    Args:
        log: the trajectories.
        asked: the sampler that is set; the one that the log allows is told.
        residual: one-step error of a model of responses, over the rewards' deviation, where there is one.
    """
    returns, inside = returns_of(log), log.inside
    versions = _versions(log, returns)
    rewards = log.rewards[inside].astype(np.float64)
    everything = np.full(rewards.shape, len(log.catalogue))
    offered = everything if log.offered is None else log.offered[inside].sum(axis=1)
    weights = 1.0 / (log.propensities[inside].astype(np.float64) * offered)
    counts = float(weights.sum() ** 2 / np.square(weights).sum() / len(weights))
    means = [each.mean for each in versions if each.users >= FEWEST]
    if counts * len(rewards) >= FEWEST:
        means.append(float((weights * rewards).sum() / weights.sum()))
    kind = kind_of(log, asked)
    effective_actions = None
    if log.pmf is not None:
        pmf = log.pmf[inside].astype(np.float64)
        entropy = -(pmf * np.log(np.where(pmf > 0.0, pmf, 1.0))).sum(axis=1)
        effective_actions = float(np.exp(entropy).mean())
    return Quality(
        users=len(log),
        decisions=len(rewards),
        versions=versions,
        tq=trajectory_quality(float(rewards.mean()), worst=min(means), best=max(means)) if means else None,
        semivariance=_semivariance(returns),
        share_of_users=share_of_users(log),
        effective_actions=effective_actions,
        executed=int((np.bincount(log.actions[inside]) >= SHOWN * len(rewards)).sum()),
        actions=len(log.catalogue),
        counts=counts,
        sampler=kind,
        effective=effective_of(weights_of(log, kind)),
        residual=residual,
    )


def advice(quality: Quality) -> list[str]:
    """Return which learner may be believed on such a log, in sentences."""
    out: list[str] = []
    drew, share = len(quality.versions), quality.share_of_users
    by = {
        "pw": "trajectories are drawn by the version that drew them",
        "aw": "trajectories are drawn by their returns",
        "uniform": "all trajectories count alike",
    }[quality.sampler]
    if share > TRUSTED:
        out.append(
            f"users explain {share:.0%} of the returns: those of single users tell of luck and not of a policy; "
            f"weights by returns (aw) are refused, {by}"
        )
    else:
        out.append(f"users explain {share:.0%} of the returns: those of single users tell of policies; {by}")
    if drew > 1:
        best = quality.versions[0]
        out.append(f"version {best.name} brought most, {best.mean:.4g} per decision in {best.users} trajectories")
    else:
        out.append("one policy drew all: a plain clone can be no better; a critic or simulators have to tell what is")
    if quality.effective_actions is not None and quality.effective_actions < _NARROW:
        out.append(
            f"the log draws among {quality.effective_actions:.2g} actions: neither a critic nor simulators have seen "
            "what else could have been done; a plain clone may be believed"
        )
    if quality.executed < quality.actions:
        out.append(
            f"{quality.actions - quality.executed} of {quality.actions} actions were hardly ever shown: nobody is to "
            "be believed on them"
        )
    if quality.counts < _FEW_COUNT:
        few = f"{quality.counts:.1%} of the decisions count for uniform choice"
        out.append(f"{few}: whole trajectories cannot be weighed")
    if quality.residual is not None:
        left = quality.residual**2
        known = f"simulators leave {left:.0%} of the rewards' variance unexplained one decision ahead"
        out.append(
            f"{known}: sim2rec is not to be believed, clone is"
            if left >= _UNEXPLAINED
            else f"{known}: sim2rec may be believed on actions that were shown"
        )
    return out


def _versions(log: Trajectories, returns: Floats) -> tuple[Drawn, ...]:
    if log.versions is None:
        return ()
    drew = drawn_by(log)
    out: list[Drawn] = []
    for code in np.unique(drew).tolist():
        mine = returns[drew == code]
        name = log.names[code] if code < len(log.names) else str(code)
        spread = float(mine.std(ddof=1)) if len(mine) > 1 else 0.0
        out.append(Drawn(name=name, users=len(mine), mean=float(mine.mean()), deviation=spread))
    return tuple(sorted(out, key=lambda each: -each.mean))


def _semivariance(returns: Floats) -> float:
    spread = float(np.ptp(returns))
    return float(np.square(np.maximum(returns - returns.mean(), 0.0) / spread).mean()) if spread > 0.0 else 0.0
