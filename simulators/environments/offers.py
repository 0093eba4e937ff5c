"""Offers to visitors: rare clicks, or purchases of very different amounts.

A visitor of segment s with device d is shown one of ten offers. Offer a is taken with

    logit P = b + m[a] + t[s, a] + u[d, a]

and pays 1 (clicks) or an amount exp(N(l + n[a] + v[s, a], .8)), 500 at most (revenue);

b is set so that a uniformly drawn offer is taken at the rate asked for. All numbers are ours; clicks on news come at a
few in a hundred (Li et al. 2010), on a shop's recommendations at four in a thousand (Saito et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import optimize, special

from decision.batch import Batch, Floats, Ints
from decision.columns import FeatureRows, Texts
from decision.errors import FieldError

OFFERS, SEGMENTS, DEVICES = 10, 8, 3
CONTEXTS = SEGMENTS * DEVICES
MOST = 500.0
SPREAD = 0.8

Pays = Literal["clicks", "revenue"]


@dataclass(frozen=True, slots=True, eq=False)
class OffersWorld:
    """The true effects; a context is a segment and a device, C in all.

    Attributes:
        pays: what an offer that is taken pays.
        share: [C] share of visitors in each context.
        taken: [C, A] probability that an offer is taken.
        log_amount: [C, A] mean of an amount's logarithm before the limit.
    """

    pays: Pays
    share: Floats
    taken: Floats
    log_amount: Floats

    @property
    def high(self) -> float:
        """The largest reward; the smallest is 0."""
        return 1.0 if self.pays == "clicks" else MOST

    @property
    def mean(self) -> Floats:
        """[C, A] expected reward of every offer."""
        if self.pays == "clicks":
            return self.taken
        limit = (np.log(MOST) - self.log_amount) / SPREAD
        below = np.exp(self.log_amount + SPREAD**2 / 2) * special.ndtr(limit - SPREAD)
        return self.taken * (below + MOST * special.ndtr(-limit))

    def rewards(self, context: Ints, offer: Ints, rng: np.random.Generator) -> Floats:
        """Return [n] rewards of `offer` ([n]) shown in `context` ([n])."""
        taken = rng.random(context.size) < self.taken[context, offer]
        if self.pays == "clicks":
            return taken.astype(np.float64)
        amount = np.exp(self.log_amount[context, offer] + SPREAD * rng.normal(size=context.size))
        return np.where(taken, np.minimum(amount, MOST), 0.0)

    def batch(self, context: Ints) -> Batch:
        """Return the decisions in `context` ([n]) as a service sees them: every offer by its name."""
        names = [*(f"segment=s{i}" for i in range(SEGMENTS)), *(f"device=d{i}" for i in range(DEVICES))]
        segment, device = np.divmod(np.arange(CONTEXTS), DEVICES)
        pairs = np.stack((segment, SEGMENTS + device), axis=1)
        contexts = _rows(names, pairs, context)
        every = np.tile(np.arange(OFFERS, dtype=np.int64), context.size)
        ids = [f"offer{i}" for i in range(OFFERS)]
        actions = _rows([f"offer={name}" for name in ids], np.arange(OFFERS)[:, None], every)
        return Batch(contexts, actions, Texts(ids, every), np.arange(context.size + 1, dtype=np.int64) * OFFERS)


def _rows(names: list[str], flags: Ints, rows: Ints) -> FeatureRows:
    """Return `rows` of d distinct ones, each with the flags at its row of `flags` ([d, f])."""
    d, f = flags.shape
    offsets = np.arange(d + 1, dtype=np.int64) * f
    return FeatureRows(names, flags.ravel().astype(np.int32), np.ones(flags.size), offsets, rows.astype(np.int64))


def offers_world(pays: Pays, *, rate: float, seed: int) -> OffersWorld:
    """Return a world drawn from `seed`.

    Args:
        pays: ``clicks`` or ``revenue``.
        rate: share of visitors who take a uniformly drawn offer, in (0, 1).
        seed: of everything that is fixed in the world; visitors and rewards have generators of their own.

    Raises:
        FieldError: `pays` is neither, or `rate` is no share.
    """
    if pays not in get_args(Pays):
        raise FieldError.choice("world", list(get_args(Pays)), pays)
    if not 0.0 < rate < 1.0:
        raise FieldError("rate", wanted="a share in (0, 1)", got=rate)
    rng = np.random.default_rng([seed, 31])
    share = np.outer(rng.dirichlet(np.full(SEGMENTS, 5.0)), rng.dirichlet(np.full(DEVICES, 5.0))).ravel()
    effect = rng.normal(0.0, 0.5, OFFERS) + rng.normal(0.0, 0.6, (SEGMENTS, 1, OFFERS))
    effect = (effect + rng.normal(0.0, 0.2, (DEVICES, OFFERS))).reshape(CONTEXTS, OFFERS)

    def excess(base: float) -> float:
        return float(share @ special.expit(base + effect).mean(axis=1)) - rate

    found: Any = optimize.brentq(excess, -50.0, 50.0)  # a number, as no full output is asked for
    taken = special.expit(float(found) + effect)
    amount = np.log(40.0) + rng.normal(0.0, 0.4, OFFERS) + rng.normal(0.0, 0.3, (SEGMENTS, 1, OFFERS))
    return OffersWorld(
        pays, share, taken, np.broadcast_to(amount, (SEGMENTS, DEVICES, OFFERS)).reshape(CONTEXTS, OFFERS)
    )
