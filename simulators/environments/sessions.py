"""A world of sessions: a random decision process whose policies differ in every step.

Rewards are uniform on [0, 1] and drawn as Bernoulli, next states Dirichlet(1), the first state is fixed. Baseline and
candidate are Boltzmann policies; the candidate's logits are tilted along the optimal action values until its lift is
the one asked for. Values are exact.
"""

from __future__ import annotations

import numpy as np

from decision.batch import Floats, Ints
from decision.conservative.tabular.process import Process, boltzmann, optimal_q_values, value

STATES, ACTIONS, STEPS = 12, 8, 8


class SessionWorld:
    """One simulated process.

    Attributes:
        steps: H, the decisions of a session.
        reward_max: largest return.
    """

    steps = STEPS
    reward_max = float(STEPS)

    def __init__(self, rng: np.random.Generator, lift: float, *, eta: float = 3.0, disturbance: float = 1.0) -> None:
        """Draw a process.

        Args:
            rng: draws.
            lift: true relative lift of the candidate.
            eta: sharpness of the baseline, 1 / reward units.
            disturbance: standard deviation of the difference in logits that has no bearing on rewards.
        """
        shape = (1, STEPS, STATES, ACTIONS)
        self.process = Process(rng.dirichlet(np.ones(STATES), size=shape), rng.random(shape))
        best = optimal_q_values(self.process)
        self.baseline = boltzmann(best, eta)
        disturbed = np.log(self.baseline) + rng.normal(0.0, disturbance, shape)
        aim = (1.0 + lift) * float(value(self.process, self.baseline)[0])
        low, high = -20.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2.0
            if float(value(self.process, boltzmann(disturbed + middle * best, 1.0))[0]) < aim:
                low = middle
            else:
                high = middle
        self.candidate = boltzmann(disturbed + high * best, 1.0)

    def value(self, leading: int) -> float:
        """Return the expected return of `leading` baseline steps and the candidate after them (H: the baseline)."""
        first = (np.arange(STEPS) < leading)[None, :, None, None]
        return float(value(self.process, np.where(first, self.baseline, self.candidate))[0])

    def draw(self, rng: np.random.Generator, leading: Ints) -> tuple[Floats, Floats]:
        """Return returns [n] and log ratios [n, H] of candidate over baseline at every action.

        Args:
            rng: draws.
            leading: [n] baseline steps at the head of each session.
        """
        n = leading.size
        state = np.zeros(n, dtype=np.int64)
        earned, ratios = np.zeros(n), np.empty((n, STEPS))
        u = rng.random((STEPS, 3, n))
        transitions, rewards = self.process.transitions[0].cumsum(-1), self.process.rewards[0]
        for h in range(STEPS):
            base, cand = self.baseline[0, h, state], self.candidate[0, h, state]
            drawn = np.where((h < leading)[:, None], base, cand).cumsum(1)
            action = np.minimum((u[h, 0][:, None] >= drawn).sum(1), ACTIONS - 1)
            rows = np.arange(n)
            ratios[:, h] = np.log(cand[rows, action] / base[rows, action])
            earned += u[h, 1] < rewards[h, state, action]
            state = np.minimum((u[h, 2][:, None] >= transitions[h, state, action]).sum(1), STATES - 1)
        return earned, ratios
