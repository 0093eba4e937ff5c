"""The driver programme as a form: known but for how busy a city is, how much a bonus moves there, and how tasks tire.

An action has two features, the threshold as a share of the driver's usual orders and the bonus per order. A reward is
that of `simulators.environments.driver_programme`, in its unit. A driver's own numbers are how far the logarithm of his
usual orders and his elasticity are from the city's, and his budget in usual days. They are added to the city's numbers.
If they multiplied them, the likeliest city would not be the usual one: its numbers would come out too high by the
squared coefficient of variation of the drivers', .29 for elasticities.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import gammainc

from decision.batch import Floats
from simulators.environments.driver_programme import COST, RESTING, VALUE, WEEK

_LOW, _HIGH = 0.6, 1.6
"""Least and greatest threshold that a driver may be set, by his usual orders."""
_LEAST = 0.05
_SPREAD = 0.6
"""Of elasticities, around a city's mean."""
_WHOLE = 0.02
"""How near a number of orders is to a whole one."""


class DriverForm:
    """See `simulators.learned.forms.Form`. The state is fatigue, money spent and the day.

    Attributes:
        parameters: "busy", the logarithm of usual orders; "pull", the mean elasticity of drivers; "wear", fatigue by a
            hard task; the least and greatest of each.
        scales: they are in no unit of the reward.
    """

    parameters: Mapping[str, tuple[float, float]] = {"busy": (1.4, 3.7), "pull": (0.0, 0.6), "wear": (0.0, 0.3)}
    scales = False

    def traits(self, rng: np.random.Generator, users: int) -> Floats:
        """Return [n, 3] what fresh drivers' log orders and elasticities are over the city's; budgets in usual days."""
        orders = np.log(rng.gamma(9.0, 1.0 / 9.0, users))
        elasticity = _SPREAD * (rng.beta(2.0, 4.0, users) - 1.0 / 3.0)
        return np.stack([orders, elasticity, rng.uniform(15.0, 25.0, users)], axis=1)

    def start(self, group: Floats, traits: Floats) -> Floats:
        """Return [n, 3] zeros: rested, nothing spent, the first day."""
        return np.zeros((len(traits), 3))

    def mean(self, group: Floats, traits: Floats, state: Floats, shown: Floats) -> Floats:
        """Return [n] expected rewards of tasks [n, 2]."""
        base, orders = _orders(group, traits, state, shown)
        spent = _spent(traits, state, shown, base, orders)
        return VALUE * (orders - base * _outside(shown)) - COST * spent

    def after(self, group: Floats, traits: Floats, state: Floats, shown: Floats, reward: Floats) -> Floats:
        """Return [n, 3] the state after tasks [n, 2] brought `reward` [n].

        What was paid is told by the reward, as orders are whole. A reward that no whole number explains, an expected
        one for instance, tells nothing of it: then what was to be expected counts.
        """
        (base, orders), bonus = _orders(group, traits, state, shown), shown[:, 1]
        threshold = shown[:, 0] * base
        brought = reward / VALUE + base * _outside(shown)
        cost, left = COST / VALUE, _left(traits, state, base)
        full = bonus * brought / (1.0 - cost * bonus)
        few, many = np.round(brought), np.round(brought + cost * full)
        unpaid_gap = np.where(few < threshold + 0.5, np.abs(brought - few), np.inf)
        paid_gap = np.where(many > threshold - 0.5, np.abs(brought + cost * full - many), np.inf)
        paid_gap = np.where(full > left, _WHOLE / 100.0, paid_gap)  # cut to what was left, it tells no whole number
        paid = np.minimum(full, left)
        spent = np.where(paid_gap < unpaid_gap, paid, 0.0)
        told = np.minimum(paid_gap, unpaid_gap) < _WHOLE
        spent = np.where(told, spent, _spent(traits, state, shown, base, orders))
        tired = RESTING * state[:, 0] + group[:, 2] * np.maximum(shown[:, 0] - 1.0, 0.0)
        return np.stack([tired, state[:, 1] + spent, state[:, 2] + 1.0], axis=1)


def _orders(group: Floats, traits: Floats, state: Floats, shown: Floats) -> tuple[Floats, Floats]:
    """Return [n] usual orders, and [n] those expected under tasks [n, 2]."""
    base, (share, bonus) = np.exp(group[:, 0] + traits[:, 0]), shown.T
    reach = np.exp(-np.square(2.0 * (share - 1.0)))
    # The world knows left or not left. Numbers cannot be fitted to a step, so the last day's money fades.
    paid = bonus * np.minimum(_left(traits, state, base) / base, 1.0)
    lift = np.maximum(group[:, 1] + traits[:, 1], 0.0) * np.log1p(paid) * reach - state[:, 0]
    return base, base * WEEK[state[:, 2].astype(np.int64) % 7] * np.maximum(1.0 + lift, _LEAST)


def _spent(traits: Floats, state: Floats, shown: Floats, base: Floats, orders: Floats) -> Floats:
    """Return [n] the bonus money expected: of a Poisson number X, E X 1(X >= k) = E X P(X >= k - 1).

    Between whole numbers, where the world has steps, the probability is interpolated: numbers are fitted to slopes.
    """
    often = gammainc(np.maximum(shown[:, 0] * base - 0.5, 1e-9), orders)
    return np.minimum(shown[:, 1] * orders * often, _left(traits, state, base))


def _left(traits: Floats, state: Floats, base: Floats) -> Floats:
    return np.maximum(traits[:, 2] * base - state[:, 1], 0.0)


def _outside(shown: Floats) -> Floats:
    """Return [n] how far thresholds are out of bounds, in usual orders."""
    return np.maximum(_LOW - shown[:, 0], 0.0) + np.maximum(shown[:, 0] - _HIGH, 0.0)


FORM = DriverForm()
