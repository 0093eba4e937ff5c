"""Judges of several kinds: latent types among auditors, each with its own model of what it calls unfair.

A panel may disagree in kind and not by noise: to some auditors a difference in income explains a gap, to others it
never does. Each judge is of one type, type k having the share ``pi_k``, and says "unfair" of a pair with covariates z
with probability ``sigmoid(theta_k . z + b_k)`` (Bradley and Terry 1952, with covariates). That is a mixture of logistic
regressions over judges, the discrete form of variational preference learning (Poddar et al. 2024, arXiv 2408.10075).
Expectation-maximisation fits it (Dempster, Laird and Rubin 1977), with one Newton step as its maximisation. Types are
told apart by what they weigh, and are never fused into one score.

Types are found where they predict judgements that were held out better than one model does, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.errors import FieldError

MOST_TYPES = 3
"""Largest number of types that is tried."""

FEWEST_JUDGES = 2
"""Judges that make a type: what one person alone thinks is no kind of judge, and outvotes nobody."""

FEWEST_WITH_A_SAY = 3
"""Judges without which a type takes no clamp away: two people shall not undo what a panel upheld."""

_FOLDS, _STARTS, _ROUNDS = 5, 6, 40
_MARGIN = 2.0
"""Standard errors by which more types must predict better than fewer."""

_PRECISION = 1.0
"""Of the priors: of the common weights around 0, and of each type's around the common ones."""

_SMALL = 1e-3


class Judgements(NamedTuple):
    """n judgements of J judges.

    Attributes:
        judge: [n] number of the judge, in [0, J).
        covariates: [n, d] of the pair that was judged, each of mean 0 and variance 1 over the judgements.
        unfair: [n] 1 where the judge called it unfair, else 0.
    """

    judge: Ints
    covariates: Floats
    unfair: Floats


@dataclass(frozen=True, slots=True)
class Types:
    """K types among J judges.

    Attributes:
        weights: [K, d + 1] of the covariates in the logit of "unfair", the intercept last.
        share: [K] share of each type among judges, above 0 and adding up to 1, the largest first.
        belonging: [J, K] probability that each judge is of each type; rows add up to 1.
        held_out: mean log-likelihood of a held-out judgement with 1, 2, ... types, at most 0.
        gain_error: standard error over judges of what each number of types gains over one; 0 for one.
    """

    weights: Floats
    share: Floats
    belonging: Floats
    held_out: tuple[float, ...]
    gain_error: tuple[float, ...]

    def __len__(self) -> int:
        return int(self.share.size)


class _Mixture(NamedTuple):
    weights: Floats
    share: Floats
    belonging: Floats


def fit_types(said: Judgements, *, rng: np.random.Generator, most: int = MOST_TYPES) -> Types:
    """Return the types among judges, as many as held-out judgements bear out.

    Of each judge's judgements a fifth is held out in turn; the others say of which type the judge is. A number of types
    is taken over a smaller one when its gain is above two standard errors over judges. Time and memory grow with
    n d^2.

    Args:
        said: the judgements.
        rng: draws the folds and where expectation-maximisation starts.
        most: largest number of types to try.

    Raises:
        FieldError: the arrays do not fit together, hold what is no finite number, or there is no judgement.
    """
    _check(said, most)
    judges = int(said.judge.max()) + 1
    fold = _folds(said.judge, rng)
    predicted = np.zeros((most, said.unfair.size))
    for held in range(_FOLDS):
        out = fold == held
        rest = Judgements(said.judge[~out], said.covariates[~out], said.unfair[~out])
        for count in range(1, most + 1) if out.any() else ():
            mixture = _mixture(rest, judges, count, rng)
            each = _sigmoid(_design(said.covariates[out]) @ mixture.weights.T)
            unfair = (mixture.belonging[said.judge[out]] * each).sum(1)
            predicted[count - 1, out] = np.where(said.unfair[out] > 0.5, unfair, 1.0 - unfair)
    likelihood = np.log(np.maximum(predicted, 1e-12))
    by_judge = np.stack([np.bincount(said.judge, row, judges) for row in likelihood])
    borne_out = [1]
    for count in range(2, most + 1):
        gain = by_judge[count - 1] - by_judge[borne_out[-1] - 1]
        if gain.sum() > _MARGIN * _error(gain):
            borne_out.append(count)
    mixture = _mixture(said, judges, borne_out.pop(), rng)
    while borne_out and mixture.belonging.sum(0).min() < FEWEST_JUDGES:
        mixture = _mixture(said, judges, borne_out.pop(), rng)
    order = np.argsort(-mixture.share, kind="stable")
    return Types(
        mixture.weights[order],
        mixture.share[order],
        mixture.belonging[:, order],
        tuple(likelihood.mean(1).tolist()),
        tuple(_error(row - by_judge[0]) / said.unfair.size for row in by_judge),
    )


def unfair_probability(types: Types, covariates: Floats) -> Floats:
    """Return [p, K] probability with which each type calls each of p pairs unfair.

    Args:
        types: the types.
        covariates: [p, d] of the pairs, scaled as those of the judgements were.
    """
    return _sigmoid(_design(covariates) @ types.weights.T)


def information(types: Types, covariates: Floats) -> Floats:
    """Return [p] what one more judgement on each pair is expected to tell about its judge's type, in nats.

    It is the mutual information of type and judgement (Lindley 1956), averaged over the judges: large on pairs on which
    types differ, for judges whose type is not known yet. It is at least 0, and 0 with one type.

    Args:
        types: the types.
        covariates: [p, d] of the pairs, as in `unfair_probability`.
    """
    each = unfair_probability(types, covariates)
    mixed = _entropy(types.belonging @ each.T).mean(0)
    return np.maximum(mixed - _entropy(each) @ types.belonging.mean(0), 0.0)


def backing(types: Types, covariates: Floats, pair: Ints, judge: Ints, unfair: Floats) -> Floats:
    """Return [p, K] how far each type holds each pair to be unfair, in [0, 1].

    It is the share of "unfair" among the judgements of the type's members, each judge counting as far as they belong to
    it. What the type's model says of the pair counts as one judgement more: it speaks for a type that sat on no panel.

    Args:
        types: the types.
        covariates: [p, d] of the pairs, as in `unfair_probability`.
        pair: [v] pair that each judgement is on, in [0, p).
        judge: [v] who judged, in [0, J).
        unfair: [v] 1 where they called it unfair, else 0.
    """
    modelled = unfair_probability(types, covariates)
    total, against = np.ones_like(modelled), modelled.copy()
    np.add.at(total, pair, types.belonging[judge])
    np.add.at(against, pair, types.belonging[judge] * unfair[:, None])
    return against / total


def with_a_say(types: Types, covariates: Floats) -> NDArray[np.bool_]:
    """Return [K] whether each type is asked about what a panel upheld; none is where fewer than two could be.

    A type is asked that has `FEWEST_WITH_A_SAY` judges or more, who are of it more likely than not, and holds some pair
    to be unfair: people who answer "fair" to everything would leave no pair. One type alone is the panel.

    Args:
        types: the types.
        covariates: [p, d] of the judged pairs, as in `unfair_probability`.
    """
    judges = (types.belonging > 0.5).sum(axis=0)
    asked = (judges >= FEWEST_WITH_A_SAY) & (unfair_probability(types, covariates) > 0.5).any(axis=0)
    return asked if asked.sum() > 1 else np.zeros_like(asked)


def backed_by_each(backing: Floats) -> NDArray[np.bool_]:
    """Return [p] whether at least half of every type holds the pair to be unfair.

    Args:
        backing: [p, K] as that function's, of the types that are asked; without any, each pair is backed.
    """
    return np.all(backing >= 0.5, axis=1)


def _check(said: Judgements, most: int) -> None:
    n = said.unfair.size
    if n == 0:
        raise FieldError("judgements", wanted="1 or more", got=0)
    if most < 1:
        raise FieldError("most", wanted="1 or more types", got=most)
    if said.judge.shape != (n,) or said.covariates.ndim != 2 or said.covariates.shape[0] != n:
        shapes = (said.judge.shape, said.covariates.shape, said.unfair.shape)
        raise FieldError("judgements", wanted="a judge, a verdict and covariates for each", got=shapes)
    if int(said.judge.min()) < 0:
        raise FieldError("judge", wanted="0 or more", got=int(said.judge.min()))
    if not np.isfinite(said.covariates).all():
        raise FieldError("covariates", wanted="finite numbers", got="others")


def _folds(judge: Ints, rng: np.random.Generator) -> Ints:
    """Return [n] folds; each judge's judgements are spread over them evenly."""
    fold = np.empty(judge.size, dtype=np.int64)
    for number in np.unique(judge):
        own = np.flatnonzero(judge == number)
        fold[own] = (rng.permutation(own.size) + rng.integers(_FOLDS)) % _FOLDS
    return fold


def _mixture(said: Judgements, judges: int, count: int, rng: np.random.Generator) -> _Mixture:
    """Return the best of several fits of `count` types; each starts at judges thrown into types at random."""
    design, unfair = _design(said.covariates), said.unfair
    size = design.shape[1]
    common = np.zeros((1, size))
    for _ in range(_ROUNDS):
        before, common = common, _newton(design, unfair, np.ones((1, unfair.size)), common, np.zeros(size))
        if np.abs(common - before).max() < _SMALL:
            break
    if count == 1:
        return _Mixture(common, np.ones(1), np.ones((judges, 1)))
    one_hot = np.zeros((unfair.size, judges))
    one_hot[np.arange(unfair.size), said.judge] = 1.0
    belonging = np.swapaxes(rng.dirichlet(np.full(count, 0.5), (_STARTS, judges)), 1, 2)
    weights, share = np.repeat(common, _STARTS * count, 0), belonging.mean(2)
    value, best = np.full(_STARTS, -np.inf), 0
    for _ in range(_ROUNDS):
        importance = belonging[:, :, said.judge].reshape(_STARTS * count, unfair.size)
        weights = _newton(design, unfair, importance, weights, common[0])
        share = (belonging.sum(2) + 1.0) / (judges + count)
        logit = weights @ design.T
        likelihood = ((unfair * logit - np.logaddexp(0.0, logit)) @ one_hot).reshape(_STARTS, count, judges)
        joint = likelihood + np.log(share)[:, :, None]
        evidence = np.logaddexp.reduce(joint, axis=1, keepdims=True)
        belonging = np.exp(joint - evidence)
        prior = ((weights - common) ** 2).reshape(_STARTS, -1).sum(1)
        before, value = value, evidence.sum((1, 2)) - 0.5 * _PRECISION * prior
        best = int(np.argmax(value))
        if np.abs(value - before).max() < _SMALL:
            break
    return _Mixture(weights.reshape(_STARTS, count, size)[best], share[best], belonging[best].T)


def _newton(design: Floats, unfair: Floats, importance: Floats, weights: Floats, centre: Floats) -> Floats:
    """Return [m, d] one Newton step further in each of m weighted logistic regressions ([m, n] importance)."""
    p = _sigmoid(weights @ design.T)
    gradient = (importance * (p - unfair)) @ design + _PRECISION * (weights - centre)
    curved = (importance * p * (1.0 - p))[:, None, :] * design.T
    hessian = curved @ design + _PRECISION * np.eye(design.shape[1])
    return weights - np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]


def _design(covariates: Floats) -> Floats:
    return np.column_stack([covariates, np.ones(covariates.shape[0])])


def _sigmoid(logit: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _entropy(p: Floats) -> Floats:
    inside = np.clip(p, 1e-12, 1.0 - 1e-12)
    return -(inside * np.log(inside) + (1.0 - inside) * np.log1p(-inside))


def _error(gain: Floats) -> float:
    """Return the standard error of the sum of `gain` over judges."""
    return float(gain.std(ddof=1) * np.sqrt(gain.size)) if gain.size > 1 else 0.0
