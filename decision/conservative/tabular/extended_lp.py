"""Safe planning as one linear program over occupancies whose transitions may vary within their confidence set.

Variables ``z[h, s, a, t]`` are the probabilities of being in s at step h, taking a and going to t. The reward of the
objective is optimistic, that of the constraint pessimistic. `dope` lets transitions range over the confidence set
(Bura et al. 2022, arXiv 2112.00885); `optpess` fixes them at the empirical ones and moves all uncertainty into the
rewards (Liu, Zhou, Kalathil, Kumar, Tian 2021, arXiv 2106.02684). Here the constraint is on the same reward as the
objective, which both treat as a separate cost. Solved by HiGHS; infeasible means: play the baseline.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from decision.batch import Floats
from decision.conservative.tabular.confidence import Model


def dope(model: Model, run: int, gamma: float) -> Floats | None:
    """Return the policy [H, S, A] of one run by the extended program, or None when it is infeasible.

    Args:
        model: empirical models and bonus constants.
        run: which of the model's runs.
        gamma: threshold on the pessimistic return.
    """
    c1, c2 = model.bonus.c1, model.bonus.c2
    rate = np.minimum(model.rate[run], 1e6)
    transitions = model.transitions[run]
    width = np.minimum(c1 * np.sqrt(transitions * (1.0 - transitions) * rate[..., None]) + c2 * rate[..., None], 1.0)
    reward_width = _reward_width(model, run)
    horizon = reward_width.shape[0]
    # The constraint also pays for the optimism of the transitions, one value range per unit of their width.
    pessimism = reward_width + horizon * width.sum(-1)
    return _solve(
        transitions,
        np.minimum(model.rewards[run] + reward_width, 1.0),
        model.rewards[run] - pessimism,
        gamma,
        width,
    )


def optpess(model: Model, run: int, gamma: float) -> Floats | None:
    """Return the policy [H, S, A] of one run with empirical transitions, or None when it is infeasible."""
    c1, c2 = model.bonus.c1, model.bonus.c2
    rate = np.minimum(model.rate[run], 1e6)
    horizon, states = rate.shape[:2]
    reward_width = _reward_width(model, run)
    drift = horizon * (c1 * np.sqrt(states * rate) + c2 * rate)
    return _solve(
        model.transitions[run],
        model.rewards[run] + reward_width + drift,
        model.rewards[run] - reward_width - drift,
        gamma,
        None,
    )


def _reward_width(model: Model, run: int) -> Floats:
    rate = np.minimum(model.rate[run], 1e6)
    mean = model.rewards[run]
    return np.minimum(model.bonus.c1 * np.sqrt(mean * (1.0 - mean) * rate) + model.bonus.c2 * rate, 1.0)


def _solve(transitions: Floats, hope: Floats, fear: Floats, gamma: float, width: Floats | None) -> Floats | None:
    horizon, states, actions = hope.shape
    cells = horizon * states * actions
    shape = (horizon, states, actions, states)
    index = np.arange(cells * states).reshape(shape)
    rows: list[Any] = []
    cols: list[Any] = []
    data: list[Any] = []
    right: list[float] = []
    row = 0
    for h in range(horizon):
        for s in range(states):
            leaving = index[h, s].ravel()
            rows.append(np.full(leaving.size, row))
            cols.append(leaving)
            data.append(np.ones(leaving.size))
            if h:
                arriving = index[h - 1, :, :, s].ravel()
                rows.append(np.full(arriving.size, row))
                cols.append(arriving)
                data.append(-np.ones(arriving.size))
            right.append(1.0 if h == 0 and s == 0 else 0.0)
            row += 1
    flow = sparse.coo_matrix(
        (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=(row, cells * states)
    )
    # sum over t per cell, repeated for each t: z[.., t] against a multiple of the cell's mass.
    mass = sparse.kron(sparse.identity(cells), np.ones((states, states)))
    one = sparse.identity(cells * states)
    if width is None:
        equal = sparse.vstack([flow, one - sparse.diags(transitions.ravel()) @ mass])
        limit = np.concatenate([right, np.zeros(cells * states)])
        upper: Any = sparse.csr_matrix((0, cells * states))
        top = np.zeros(0)
    else:
        equal, limit = flow, np.array(right)
        high = np.minimum(transitions + width, 1.0).ravel()
        low = np.maximum(transitions - width, 0.0).ravel()
        upper = sparse.vstack([one - sparse.diags(high) @ mass, sparse.diags(low) @ mass - one])
        top = np.zeros(2 * cells * states)
    safe = -np.repeat(fear.ravel(), states)
    result = cast(
        "Any",
        linprog(
            -np.repeat(hope.ravel(), states),
            A_ub=sparse.vstack([upper, sparse.csr_matrix(safe)]).tocsr(),
            b_ub=np.append(top, -gamma),
            A_eq=equal.tocsr(),
            b_eq=limit,
            bounds=(0, None),
            method="highs",
        ),
    )
    if result.status != 0:
        return None
    visits = np.asarray(result.x, dtype=np.float64).reshape(shape).sum(-1)
    totals = visits.sum(-1, keepdims=True)
    return np.where(totals > 1e-12, visits / np.maximum(totals, 1e-12), 1.0 / actions)
