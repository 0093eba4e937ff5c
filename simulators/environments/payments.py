"""PayCB: a stream of card payments, where the action is which optional steps ("toggles") to switch on.

Every combination of the toggles that are eligible for a payment is one action, and the reward is the bank's approval.
Segments differ in what helps them, toggles fail at random, effects drift between generations, outcomes arrive late and
a toggle can be launched mid-way. The setting is that of Vangara and Egg 2024, "Non-uniform exploration and supervised
learning" (arXiv 2412.00569); the equations are ours. All true means are known, so the value of a policy is exact.

    logit mu = 1.6 + u[s] + v[c] - .25 z + sum_j on_j (a[j] + b[s, j] + e[c, j] + k[j] z 1{h > .5}) + on' P on / 2

with segment s, country c, amount z and hour h of the payment, and on the toggles of the action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from decision.batch import Batch, Features, Floats, Ints
from decision.errors import FieldError

SEGMENTS, COUNTRIES, CARDS, NOISE = 20, 8, 3, 4
ZIPF = 0.8
MAX_TOGGLES = 8
MAX_PAYMENTS = 1_000_000

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Payments:
    """n payments and what each may be offered.

    Attributes:
        segment: [n] int64 merchant segment, in [0, 20).
        country: [n] int64, in [0, 8).
        card: [n] int64 type of card, in [0, 3).
        amount: [n] standardised amount.
        hour: [n] time of day as a share of the day, in [0, 1).
        noise: [n, 4] features that say nothing.
        available: [n, A] which actions are offered; the action with every toggle off always is.
    """

    segment: Ints
    country: Ints
    card: Ints
    amount: Floats
    hour: Floats
    noise: Floats
    available: Bools

    def __len__(self) -> int:
        return len(self.segment)

    @property
    def offsets(self) -> Ints:
        """[n + 1] int64 where each payment's offered actions begin, flat."""
        return np.concatenate(([0], np.cumsum(self.available.sum(axis=1)))).astype(np.int64)

    def features(self, row: int) -> Features:
        """Return the context of payment `row`, flattened."""
        named: Features = {
            f"segment=s{self.segment[row]}": 1.0,
            f"country=c{self.country[row]}": 1.0,
            f"card=t{self.card[row]}": 1.0,
            "amount": float(self.amount[row]),
            "hour": float(self.hour[row]),
        }
        return named | {f"noise_{i}": float(x) for i, x in enumerate(self.noise[row])}


@dataclass(frozen=True, slots=True, eq=False)
class PaymentsWorld:
    """The true effects at one moment; `drifted` gives the next one.

    Attributes:
        segment_share: [20] share of payments per segment.
        by_segment: [20] u, logit per segment.
        by_country: [8] v, logit per country.
        toggle: [J] a, mean effect of each toggle on the logit.
        toggle_by_segment: [20, J] b; the part that drifts.
        toggle_by_country: [8, J] e.
        toggle_by_amount: [J] k, effect per unit of amount in the second half of the day.
        pair: [J, J] P, interaction of toggles.
        eligible: [20, 3, J] bool: which toggles a segment and card type can use at all.
        launched: [J] int64 first generation in which each toggle may be offered.
        outage: probability with which an eligible toggle is out of service for a payment, in [0, 1).
    """

    segment_share: Floats
    by_segment: Floats
    by_country: Floats
    toggle: Floats
    toggle_by_segment: Floats
    toggle_by_country: Floats
    toggle_by_amount: Floats
    pair: Floats
    eligible: Bools
    launched: Ints
    outage: float

    @property
    def actions(self) -> Ints:
        """[A, J] int64 the toggles of each action, 0 or 1; A = 2^J, all off first."""
        j = len(self.toggle)
        return (np.arange(2**j)[:, None] >> np.arange(j)) & 1

    @property
    def action_ids(self) -> list[str]:
        """[A] one id per combination, ``+``-joined toggles; ``none`` with all off."""
        return ["+".join(f"toggle{j}" for j in np.flatnonzero(row)) or "none" for row in self.actions]

    def draw(self, n: int, rng: np.random.Generator, *, generation: int = 0) -> Payments:
        """Return `n` payments of `generation` (0 or later): toggles launched later are not offered.

        Raises:
            FieldError: `n` is not in 1..1,000,000 or `generation` is negative.
        """
        if not 1 <= n <= MAX_PAYMENTS:
            raise FieldError("n", wanted=f"1 to {MAX_PAYMENTS} payments", got=n)
        if generation < 0:
            raise FieldError("generation", wanted="0 or more", got=generation)
        segment = rng.choice(SEGMENTS, size=n, p=self.segment_share)
        country, card = rng.integers(COUNTRIES, size=n), rng.integers(CARDS, size=n)
        amount, hour, noise = rng.normal(size=n), rng.random(n), rng.normal(size=(n, NOISE))
        usable = self.eligible[segment, card] & (rng.random((n, len(self.toggle))) >= self.outage)
        usable &= self.launched <= generation
        # An action is offered when it switches on nothing that is unusable.
        available = (~usable).astype(np.int64) @ self.actions.T == 0
        return Payments(segment, country, card, amount, hour, noise, available)

    def approval(self, payments: Payments) -> Floats:
        """Return [n, A] the true probability of approval under every action, whether offered or not."""
        on = self.actions.astype(np.float64)
        per_toggle = (
            self.toggle
            + self.toggle_by_segment[payments.segment]
            + self.toggle_by_country[payments.country]
            + np.outer(payments.amount * (payments.hour > 0.5), self.toggle_by_amount)
        )
        rest = 1.6 + self.by_segment[payments.segment] + self.by_country[payments.country] - 0.25 * payments.amount
        pairs = 0.5 * np.einsum("aj,jk,ak->a", on, self.pair, on)
        logit = rest[:, None] + per_toggle @ on.T + pairs
        return 1.0 / (1.0 + np.exp(-logit))

    def drifted(self, drift: float, rng: np.random.Generator) -> PaymentsWorld:
        """Return the world a generation on: b <- sqrt(1 - d^2) b + d N(0, .8), which keeps its spread.

        Raises:
            FieldError: `drift` (d) is not in [0, 1].
        """
        if not 0 <= drift <= 1:
            raise FieldError("drift", wanted="a number in [0, 1]", got=drift)
        fresh = rng.normal(0.0, 0.8, self.toggle_by_segment.shape)
        return replace(self, toggle_by_segment=np.sqrt(1 - drift**2) * self.toggle_by_segment + drift * fresh)

    def batch(self, payments: Payments) -> Batch:
        """Return the decisions as a service sees them: what is offered, flattened features, ids."""
        toggles: list[Features] = [{f"toggle{j}": 1.0 for j in np.flatnonzero(row)} for row in self.actions]
        ids = self.action_ids
        offered = np.nonzero(payments.available)[1].tolist()
        return Batch(
            contexts=[payments.features(row) for row in range(len(payments))],
            actions=[toggles[a] for a in offered],
            action_ids=[ids[a] for a in offered],
            offsets=payments.offsets,
        )


def payments_world(
    *, seed: int, toggles: int = 4, late_toggle_at: int | None = None, outage: float = 0.1
) -> PaymentsWorld:
    """Return a world drawn from `seed`.

    Args:
        seed: of everything that is fixed in the world; payments and drift have generators of their own.
        toggles: J, in service from generation 0, in 1..8 with the late one.
        late_toggle_at: first generation of one toggle more; None for none.
        outage: see `PaymentsWorld`.

    Raises:
        FieldError: a setting is outside its range.
    """
    j = toggles + (late_toggle_at is not None)
    if toggles < 1 or j > MAX_TOGGLES:
        raise FieldError("toggles", wanted=f"1 to {MAX_TOGGLES}, the late one included", got=toggles)
    if late_toggle_at is not None and late_toggle_at < 1:
        raise FieldError("late_toggle_at", wanted="generation 1 or later", got=late_toggle_at)
    if not 0 <= outage < 1:
        raise FieldError("outage", wanted="a probability below 1", got=outage)
    rng = np.random.default_rng(seed)
    share = np.arange(1, SEGMENTS + 1) ** -ZIPF
    return PaymentsWorld(
        segment_share=share / share.sum(),
        by_segment=rng.normal(0.0, 0.5, SEGMENTS),
        by_country=rng.normal(0.0, 0.3, COUNTRIES),
        toggle=rng.normal(-0.15, 0.2, j),
        toggle_by_segment=rng.normal(0.0, 0.8, (SEGMENTS, j)),
        toggle_by_country=rng.normal(0.0, 0.4, (COUNTRIES, j)),
        toggle_by_amount=rng.normal(0.0, 0.3, j),
        pair=rng.normal(0.0, 0.3, (j, j)),
        eligible=rng.random((SEGMENTS, CARDS, j)) < 0.75,
        launched=np.array([0] * toggles + [late_toggle_at or 0] * (j - toggles), dtype=np.int64),
        outage=outage,
    )


def arrival(generation: int, n: int, rng: np.random.Generator, *, mean_delay: float) -> Floats:
    """Return [n] when the outcomes of a generation's payments arrive, in generations since the start.

    Payments are spread evenly over their generation; delays are exponential. A row is mature for the training at the
    end of generation g when its arrival is at most g + 1.

    Args:
        generation: of the payments, 0 or later.
        n: number of payments.
        rng: source of both times.
        mean_delay: in lengths of a generation; 0 for none.

    Raises:
        FieldError: `mean_delay` is negative.
    """
    if not mean_delay >= 0:
        raise FieldError("mean_delay", wanted="0 or more generations", got=mean_delay)
    return generation + rng.random(n) + mean_delay * rng.exponential(size=n)


def normalised(value: float, *, uniform: float, optimum: float) -> float:
    """Return a value on the scale where the uniform policy is 0 and the best one is 1."""
    return (value - uniform) / (optimum - uniform)
