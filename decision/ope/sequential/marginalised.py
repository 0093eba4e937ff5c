"""Trajectories through few states: estimates without products of weights.

- Marginalised importance sampling (Xie, Ma, Wang 2019, arXiv 1906.03393): the share of time that the policy would spend
  in each state at each step, carried forward with one-step weights, so the variance does not grow exponentially.
- Fitted Q evaluation (Le, Voloshin, Yue 2019, arXiv 1903.08738) with a table: the value of every state and action,
  carried backward.

Both read the same table of transitions. States are codes; what to do with many states is a matter of the caller's
grouping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError
from decision.ope.sums.exact import exact_group_sums, rounded_all

MAX_CELLS = 10_000_000


@dataclass(frozen=True, slots=True, eq=False)
class TransitionSums:
    """Counts and rewards of (step, state, action) and of what follows; `+` merges shards exactly.

    Attributes:
        states: S.
        actions: A.
        steps: T.
        start: [S] trajectories by first state.
        rows: [T, S, A] visits.
        reward: [T, S, A] sum of rewards, as whole multiples of 2^-1074.
        next: [T * S * A, S] sparse counts of the state that followed.
    """

    states: int
    actions: int
    steps: int
    start: Ints
    rows: Ints
    reward: NDArray[np.object_]
    next: sparse.csr_array

    @staticmethod
    def of(
        state: Ints, action: Ints, reward: Floats, offsets: Ints, *, states: int, actions: int, steps: int
    ) -> TransitionSums:
        """Return the sums of trajectories.

        Args:
            state: [m] in 0..states-1.
            action: [m] in 0..actions-1.
            reward: [m].
            offsets: [n + 1] where trajectories begin.
            states: S.
            actions: A.
            steps: T, length of the longest trajectory or more.

        Raises:
            FieldError: a code or a length is out of range, or the table would be too large.
        """
        sizes = np.diff(offsets)
        if states * actions * steps > MAX_CELLS:
            raise FieldError("states", wanted=f"at most {MAX_CELLS} cells of step, state and action", got=states)
        for name, values, limit in (("state", state, states), ("action", action, actions), ("steps", sizes - 1, steps)):
            if values.size and not (int(values.min()) >= 0 and int(values.max()) < limit):
                raise FieldError(name, wanted=f"0 to {limit - 1}", got=(int(values.min()), int(values.max())))
        step = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], sizes)
        cell = (step * states + state) * actions + action
        cells = steps * states * actions
        follows = np.ones(len(state), dtype=np.bool_)
        follows[offsets[1:] - 1] = False
        at = np.flatnonzero(follows)
        counts = sparse.csr_array(
            (np.ones(len(at), dtype=np.int64), (cell[at], state[at + 1])), shape=(cells, states), dtype=np.int64
        )
        return TransitionSums(
            states,
            actions,
            steps,
            np.bincount(state[offsets[:-1]], minlength=states).astype(np.int64),
            np.bincount(cell, minlength=cells).reshape(steps, states, actions).astype(np.int64),
            exact_group_sums(reward[None, :], cell, cells)[0].reshape(steps, states, actions),
            counts,
        )

    def __add__(self, other: TransitionSums) -> TransitionSums:
        return TransitionSums(
            self.states,
            self.actions,
            self.steps,
            self.start + other.start,
            self.rows + other.rows,
            self.reward + other.reward,
            self.next + other.next,
        )


def marginalised(sums: TransitionSums, weight: Floats, *, gamma: float = 1.0) -> float:
    """Return the marginalised importance sampling estimate.

    Args:
        sums: of the log.
        weight: [S, A] evaluation over logged probability of an action in a state.
        gamma: discount, in [0, 1].

    Raises:
        SupportError: there are no trajectories.
    """
    share = _first(sums)
    mean = rounded_all(sums.reward)
    value = 0.0
    for step in range(sums.steps):
        visits = sums.rows[step]
        total = visits.sum(1)
        seen = np.where(total > 0, share / np.maximum(total, 1), 0.0)
        # Every visit of a state stands for share / total of the policy's time there, times its weight.
        value += gamma**step * float((seen[:, None] * weight * mean[step]).sum())
        per_cell = (seen[:, None] * weight).ravel()
        size = sums.states * sums.actions
        share = np.asarray(sums.next[step * size : (step + 1) * size].T @ per_cell)
    return value


def fitted_q(sums: TransitionSums, policy: Floats, *, gamma: float = 1.0) -> tuple[float, Floats]:
    """Return the value by fitted Q evaluation, and Q.

    Args:
        sums: of the log.
        policy: [S, A] evaluation policy.
        gamma: discount, in [0, 1].

    Returns:
        The value, and [T, S, A] the discounted reward from each step on; 0 where the log never was.

    Raises:
        SupportError: there are no trajectories.
    """
    share = _first(sums)
    mean = rounded_all(sums.reward)
    q = np.zeros((sums.steps, sums.states, sums.actions))
    after = np.zeros(sums.states)
    size = sums.states * sums.actions
    for step in range(sums.steps - 1, -1, -1):
        follow = np.asarray(sums.next[step * size : (step + 1) * size] @ after).reshape(sums.states, sums.actions)
        q[step] = (mean[step] + gamma * follow) / np.maximum(sums.rows[step], 1)
        after = (policy * q[step]).sum(1)
    return float(share @ after), q


def _first(sums: TransitionSums) -> Floats:
    total = int(sums.start.sum())
    if not total:
        raise SupportError("there are no trajectories to estimate from")
    return sums.start / total
