"""Shadow metrics of a generation: what it would look like to serve it, before anyone asks whether it is better.

None of these numbers decides; they explain a verdict and show a loop that is drifting into trouble (rewards that
vanish, actions nobody tries any more, a model whose predictions mean nothing).
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats, Interactions, Ints

BINS = 10
MAX_ACTIONS_LISTED = 100


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
    """Shadow metrics of a policy over logged decisions.

    Attributes:
        rows: decisions looked at.
        positive_rate: share of rewards above the reward of "nothing happened".
        mean_reward: mean logged reward.
        smallest_propensity: smallest logged probability of a drawn action.
        entropy: mean entropy of the policy, as a share of the uniform policy's; 1 is uniform, 0 deterministic.
        logged_entropy: the same of the policies that drew the log; None when only their propensities are known.
        calibration_error: mean gap between predicted and observed over the bins, weighted by decisions; None without
            predictions.
        calibration: bins by predicted reward, rising.
        actions: distinct actions offered.
        actions_never_chosen: those of them that no decision drew.
        support: the most offered actions, most offered first.
    """

    rows: int
    positive_rate: float
    mean_reward: float
    smallest_propensity: float
    entropy: float
    logged_entropy: float | None
    calibration_error: float | None
    calibration: list[Bin]
    actions: int
    actions_never_chosen: int
    support: list[Support]

    def metrics(self) -> dict[str, float]:
        """Return the single numbers, named for a tracking store."""
        numbers: dict[str, float | None] = {
            "rows": self.rows,
            "positive_rate": self.positive_rate,
            "mean_reward": self.mean_reward,
            "smallest_propensity": self.smallest_propensity,
            "entropy": self.entropy,
            "logged_entropy": self.logged_entropy,
            "calibration_error": self.calibration_error,
            "actions": self.actions,
            "actions_never_chosen": self.actions_never_chosen,
        }
        return {f"health.{name}": float(value) for name, value in numbers.items() if value is not None}


def health(interactions: Interactions, pmf: Floats, scores: Floats | None, *, nothing: float = 0.0) -> Health:
    """Return the shadow metrics of a policy.

    Args:
        interactions: n >= 1 logged decisions that the policy did not learn from.
        pmf: [m] the policy's probabilities for them, flat.
        scores: [m] its predicted rewards; None for a policy that predicts none.
        nothing: reward of a decision after which nothing happened.
    """
    reward = interactions.reward
    bins = [] if scores is None else _calibration(scores[interactions.chosen], reward)
    gaps = [entry.n * abs(entry.predicted - entry.observed) for entry in bins]
    offsets = interactions.batch.offsets
    support, actions, untried = _support(interactions, pmf)
    return Health(
        rows=len(reward),
        positive_rate=float(np.mean(reward > nothing)),
        mean_reward=float(np.mean(reward)),
        smallest_propensity=float(np.min(interactions.propensity)),
        entropy=_entropy(pmf, offsets),
        logged_entropy=_entropy(interactions.pmf, offsets) if np.isfinite(interactions.pmf).all() else None,
        calibration_error=sum(gaps) / len(reward) if bins else None,
        calibration=bins,
        actions=actions,
        actions_never_chosen=untried,
        support=support,
    )


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


def _support(interactions: Interactions, pmf: Floats) -> tuple[list[Support], int, int]:
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
    return listed, len(names), int(np.sum(chosen == 0))
