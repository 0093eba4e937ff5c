"""Nights of a shop whose policy, customers and clicks can each be changed by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decision.columns import Texts
from decision.drift.observed import Observed, Offered

ACTIONS = ["a", "b", "c"]


def night(
    rng: np.random.Generator,
    n: int,
    *,
    rates: tuple[float, float, float] = (0.3, 0.25, 0.2),
    on_mobile: float = 1.0,
    mobile: float = 0.4,
    tablet: float = 0.0,
    untiered: float = 0.1,
    price: float = 0.0,
    favourite: int = 0,
    floor: float = 0.2,
    sigma: float = 0.0,
    blocks: int = 8,
    noise: int = 2,
) -> Observed:
    """Return `n` decisions.

    Args:
        rng: draws them.
        n: how many.
        rates: clicks of each action; those on mobile devices are `on_mobile` times as many.
        on_mobile: see `rates`.
        mobile: share of mobile devices.
        tablet: share of a device that is otherwise unknown.
        untiered: share without the feature ``tier``.
        price: mean of a number.
        favourite: what the policy draws on mobile devices, and the one after it on others, but for the floor.
        floor: share of uniform draws.
        sigma: spread of the logarithm of what a click pays; 0 for 1.
        blocks: stretches of time.
        noise: features of five values that say nothing.
    """
    device = np.where(rng.random(n) < mobile, "mobile", "desktop")
    device = np.where(rng.random(n) < tablet, "tablet", device)
    phone = device == "mobile"
    pmf = np.full((n, 3), floor / 3)
    pmf[np.arange(n), (favourite + ~phone) % 3] += 1 - floor
    drawn = (rng.random((n, 1)) > pmf.cumsum(1)).sum(1).clip(max=2)
    click = rng.random(n) < np.array(rates)[drawn] * np.where(phone, on_mobile, 1.0)
    every, some = np.arange(n), np.flatnonzero(rng.random(n) >= untiered)
    entries: list[tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.float64]]] = [
        *((_named(f"noise{i}=", rng.integers(0, 5, n)), every, np.ones(n)) for i in range(noise)),
        (_named("device=", device), every, np.ones(n)),
        (_named("tier=", rng.choice(["gold", "silver"], some.size)), some, np.ones(some.size)),
        (np.full(n, "price"), every, rng.normal(price, 1.0, n)),
    ]
    names, code = np.unique(np.concatenate([entry[0] for entry in entries]), return_inverse=True)
    return Observed(
        row=np.concatenate([entry[1] for entry in entries]),
        name=Texts(names.tolist(), code.astype(np.int64)),
        value=np.concatenate([entry[2] for entry in entries]),
        offer_row=np.repeat(every, 3),
        offered=Texts(ACTIONS, np.tile(np.arange(3), n)),
        pmf=pmf.ravel(),
        drawn=Texts(ACTIONS, drawn),
        propensity=pmf[every, drawn],
        reward=click.astype(np.float64) * np.exp(sigma * rng.standard_normal(n)),
        weight=np.ones(n),
        block=every * blocks // n,
        subject=every,
    )


def with_actions(
    rng: np.random.Generator, decisions: Observed, *, days: int = 0, price: float = 10.0, unpriced: float = 0.0
) -> Observed:
    """Return `decisions` with features of what they offered: a category, and a price about `price`.

    Args:
        rng: draws the features.
        decisions: three offers each.
        days: of actions that are there for a day; 0 for features that are drawn with every offer.
        price: mean of a number.
        unpriced: share without it.
    """
    n = 3 * len(decisions)
    day = np.repeat(np.arange(len(decisions)) * days // len(decisions), 3)
    action = 20 * day + rng.integers(0, 20, n) if days else np.asarray(decisions.offered.code, np.int64)
    many = 20 * days if days else n
    which = action if days else np.arange(n)
    category, amount = rng.integers(0, 4, many), price * np.exp(0.3 * rng.standard_normal(many))
    priced = np.flatnonzero(~(rng.random(many) < unpriced)[which])
    start = int(rng.integers(1 << 40))  # no action comes back
    return replace(
        decisions,
        actions=Offered(
            row=np.concatenate((np.arange(n), priced)),
            name=Texts(
                [*(f"category={i}" for i in range(4)), "price"], np.append(category[which], np.full(priced.size, 4))
            ),
            value=np.concatenate((np.ones(n), amount[which[priced]])),
            weight=np.repeat(decisions.weight / 3, 3),
            block=np.repeat(decisions.block, 3),
            subject=np.repeat(decisions.subject, 3),
            decision=np.repeat(np.arange(len(decisions)), 3),
            action=Texts.of([f"{start + id}" for id in action.tolist()]) if days else decisions.offered,
        ),
        offered=Texts.of([f"{start + id}" for id in action.tolist()]) if days else decisions.offered,
    )


def _named(prefix: str, values: NDArray[np.str_] | NDArray[np.int64]) -> NDArray[np.str_]:
    return np.char.add(prefix, values.astype(np.str_))
