"""Health of a generation: what it would look like to serve it, before anyone asks whether it is better.

None of these numbers decides; they explain a verdict and show a loop that is drifting into trouble (rewards that
vanish, actions nobody tries any more, a model whose predictions mean nothing).
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats, Interactions, Ints
from decision.ragged import group_min

BINS = 10
MAX_ACTIONS_LISTED = 100
COLLAPSED = 0.01
"""Share of the uniform policy's entropy below which a policy has collapsed; a floor of .01 keeps it above."""
COLLAPSED_TO = 0.015
"""The same, of the log's: a policy that is sure after a uniform log has not collapsed under the smallest floor."""
FEW = 30


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the calibration table: decisions whose chosen action had a similar predicted reward.

    Attributes:
        n: decisions.
        predicted: mean predicted reward of the chosen actions.
        observed: mean reward.
        error: standard error of `observed`; None below two decisions.
    """

    n: int
    predicted: float
    observed: float
    error: float | None


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """How often one action was offered and tried, and how often it would be.

    Attributes:
        action_id: the action.
        offered: decisions that offered it.
        chosen: decisions that drew it.
        share: the policy's mean probability for it, where it was offered.
        reward: its mean reward when drawn; None when it never was.
    """

    action_id: str
    offered: int
    chosen: int
    share: float
    reward: float | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Health of a policy over logged decisions.

    Attributes:
        rows: decisions looked at.
        positive_rate: share of rewards above the reward of "nothing happened".
        mean_reward: mean logged reward.
        smallest_propensity: smallest logged probability of a drawn action.
        entropy: mean entropy of the policy, as a share of the uniform policy's; 1 is uniform, 0 deterministic.
        logged_entropy: the same of the policies that drew the log; None when only their propensities are known.
        effective_sample_size: of the weights 1 / (p K), as a share of the rows: 1 for a log drawn uniformly.
        calibration_error: mean gap between predicted and observed over the bins, weighted by decisions; None without
            predictions.
        calibration: bins by predicted reward, rising.
        uniform_rows: decisions that the uniform stratum of the log amounts to; None when only propensities are known.
        uniform_calibration_error: the gap on that stratum, where nobody chose what to show; None without it.
        actions: distinct actions offered.
        actions_never_chosen: those of them that no decision drew.
        support: the most offered actions, most offered first.
        alarms: what should be looked at before the policy is served, in words; empty when nothing.
    """

    rows: int
    positive_rate: float
    mean_reward: float
    smallest_propensity: float
    entropy: float
    logged_entropy: float | None
    effective_sample_size: float
    calibration_error: float | None
    calibration: list[Bin]
    uniform_rows: float | None
    uniform_calibration_error: float | None
    actions: int
    actions_never_chosen: int
    support: list[Support]
    alarms: list[str]

    def metrics(self) -> dict[str, float]:
        """Return the single numbers, named for a tracking store."""
        numbers: dict[str, float | None] = {
            "rows": self.rows,
            "positive_rate": self.positive_rate,
            "mean_reward": self.mean_reward,
            "smallest_propensity": self.smallest_propensity,
            "entropy": self.entropy,
            "logged_entropy": self.logged_entropy,
            "effective_sample_size": self.effective_sample_size,
            "calibration_error": self.calibration_error,
            "uniform_rows": self.uniform_rows,
            "uniform_calibration_error": self.uniform_calibration_error,
            "alarms": len(self.alarms),
            "actions": self.actions,
            "actions_never_chosen": self.actions_never_chosen,
        }
        return {f"health.{name}": float(value) for name, value in numbers.items() if value is not None}


def health(
    interactions: Interactions, pmf: Floats, scores: Floats | None, *, nothing: float = 0.0, featured: bool = True
) -> Health:
    """Return the health of a policy.

    Args:
        interactions: n >= 1 logged decisions that the policy did not learn from.
        pmf: [m] the policy's probabilities for them, flat.
        scores: [m] its predicted rewards; None for a policy that predicts none.
        nothing: reward of a decision after which nothing happened.
        featured: whether actions have features; where they have none, their ids have to tell them apart.
    """
    reward = interactions.reward
    bins = [] if scores is None else _calibration(scores[interactions.chosen], reward)
    gaps = [entry.n * abs(entry.predicted - entry.observed) for entry in bins]
    offsets = interactions.batch.offsets
    support, actions, untried, passing = _support(interactions, pmf)
    against = 1.0 / (interactions.propensity * np.diff(offsets))
    stratum = _stratum(interactions) if np.isfinite(interactions.pmf).all() else None
    entropy, positive = _entropy(pmf, offsets), float(np.mean(reward > nothing))
    logged_entropy = None if stratum is None else _entropy(interactions.pmf, offsets)
    uniform_error = None
    if stratum is not None and scores is not None and stratum.sum() > 0:
        uniform_error = _weighted_gap(scores[interactions.chosen], reward, stratum)
    return Health(
        rows=len(reward),
        positive_rate=positive,
        mean_reward=float(np.mean(reward)),
        smallest_propensity=float(np.min(interactions.propensity)),
        entropy=entropy,
        logged_entropy=logged_entropy,
        effective_sample_size=float(against.sum() ** 2 / (against @ against) / against.size),
        calibration_error=sum(gaps) / len(reward) if bins else None,
        calibration=bins,
        uniform_rows=None if stratum is None else float(stratum.sum()),
        uniform_calibration_error=uniform_error,
        actions=actions,
        actions_never_chosen=untried,
        support=support,
        alarms=_alarms(entropy, logged_entropy, reward, untried, 0.0 if featured else passing),
    )


def _alarms(entropy: float, logged: float | None, reward: Floats, untried: int, passing: float) -> list[str]:
    alarms: list[str] = []
    if entropy < COLLAPSED:
        alarms.append(f"entropy collapsed: {entropy:.3f} of the uniform policy's; the next log will have no support")
    elif logged is not None and entropy < COLLAPSED_TO * logged:
        alarms.append(f"entropy fell from {logged:.2f} in the log to {entropy:.2f} of the uniform policy's")
    rare = reward.size - int(np.unique(reward, return_counts=True)[1].max())
    if rare < FEW:
        alarms.append(f"one-sided rewards: all but {rare} of {reward.size} are the same")
    if untried:
        alarms.append(f"{untried} actions were offered and never tried")
    if reward.size >= FEW and passing > 0.5:
        says = f"{passing:.0%} of the offers carry an id that came in fewer than {FEW} decisions"
        alarms.append(f"actions cannot be told apart: they have no features, and {says}")
    return alarms


def _stratum(interactions: Interactions) -> Floats:
    """Return [n] the chance that each row was drawn from the uniform part of the policy that drew it."""
    return group_min(interactions.pmf, interactions.batch.offsets) / interactions.propensity


def _weighted_gap(predicted: Floats, reward: Floats, weight: Floats) -> float:
    order = np.argsort(predicted, kind="stable")
    total = 0.0
    for rows in np.array_split(order, min(BINS, len(order))):
        total += abs(float(weight[rows] @ (predicted[rows] - reward[rows])))
    return total / float(weight.sum())


def _entropy(pmf: Floats, offsets: Ints) -> float:
    # A decision with one action has no entropy to share and is left out.
    terms = np.zeros_like(pmf)
    positive = pmf > 0
    terms[positive] = -pmf[positive] * np.log(pmf[positive])
    sizes = np.diff(offsets)
    real = sizes > 1
    if not real.any():
        return 0.0
    return float(np.mean(np.add.reduceat(terms, offsets[:-1])[real] / np.log(sizes[real])))


def _calibration(predicted: Floats, reward: Floats) -> list[Bin]:
    order = np.argsort(predicted, kind="stable")
    bins: list[Bin] = []
    for rows in np.array_split(order, min(BINS, len(order))):
        observed = reward[rows]
        bins.append(
            Bin(
                n=len(rows),
                predicted=float(np.mean(predicted[rows])),
                observed=float(np.mean(observed)),
                error=float(np.std(observed, ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else None,
            )
        )
    return bins


def _support(interactions: Interactions, pmf: Floats) -> tuple[list[Support], int, int, float]:
    """Return the most offered actions, how many there are and how many nobody drew, and rare ids' share of offers."""
    encoded = pa.array(interactions.batch.action_ids, pa.string()).dictionary_encode()
    names, code = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    offered = np.bincount(code, minlength=len(names))
    chosen_code = code[interactions.chosen]
    chosen = np.bincount(chosen_code, minlength=len(names))
    share = np.bincount(code, weights=pmf, minlength=len(names)) / offered
    total = np.bincount(chosen_code, weights=interactions.reward, minlength=len(names))
    most = np.argsort(-offered, kind="stable")[:MAX_ACTIONS_LISTED]
    listed = [
        Support(
            action_id=names[index],
            offered=int(offered[index]),
            chosen=int(chosen[index]),
            share=float(share[index]),
            reward=float(total[index] / chosen[index]) if chosen[index] else None,
        )
        for index in most
    ]
    return listed, len(names), int(np.sum(chosen == 0)), float(offered[offered < FEW].sum() / max(len(code), 1))
