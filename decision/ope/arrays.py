"""The whole family on arrays at hand, in one call: what a notebook needs.

found = evaluate(action=a, propensity=p, reward=r, policy=pi)
found.estimates["dr"], found.refused
"""

from __future__ import annotations

import numpy as np

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.errors import FieldError
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.results import Results, results
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.rows import Rows
from decision.records import SUM_TOLERANCE

_PRIOR = 10.0


def evaluate(
    *,
    action: Ints,
    propensity: Floats,
    reward: Floats,
    policy: Floats,
    logging: Floats | None = None,
    expected: Floats | None = None,
    offsets: Ints | None = None,
    low: float | None = None,
    high: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Results:
    """Return what a log says about a policy.

    Args:
        action: [n] number of the drawn action within its decision.
        propensity: [n] its logged probability.
        reward: [n].
        policy: [n, K] probabilities of the policy under test; [m] flat with `offsets`, where sets of actions differ.
        logging: the logging policy, like `policy`; None where it is not known whole.
        expected: reward model, like `policy`, fitted on other rows; None for mean rewards by action number, each
            taken from the other half of the rows.
        offsets: [n + 1] where each decision's actions begin in flat arrays.
        low: smallest reward possible; None for 0, or the smallest seen where that is below.
        high: largest reward possible; None for 1, or the largest seen where that is above.
        level: coverage of the intervals.
        seed: of the bootstrap and of the halves.

    Raises:
        FieldError: shapes differ, or a value is outside its range.
        SupportError: there are no rows.
    """
    n = len(reward)
    if offsets is None and (policy.ndim != 2 or len(policy) != n):
        raise FieldError("policy", wanted=f"[{n}, K] probabilities, or flat ones with offsets", got=policy.shape)
    cuts: Ints = np.arange(n + 1) * policy.shape[1] if offsets is None else offsets
    m = int(cuts[-1])
    for name, column in (("action", action), ("propensity", propensity)):
        if column.shape != (n,):
            raise FieldError(name, wanted=f"[{n}] numbers", got=column.shape)
    sizes = np.diff(cuts)
    if n and not (int(action.min()) >= 0 and bool((action < sizes).all())):
        raise FieldError("action", wanted="numbers of actions, from 0", got=(int(action.min()), int(action.max())))
    pmf = _flat("policy", policy, m)
    whole = np.full(m, np.nan) if logging is None else _flat("logging", logging, m)
    _check_distributions("policy", pmf, cuts)
    _check_distributions(
        "logging", np.where(np.isnan(whole), 1.0 / np.repeat(np.maximum(sizes, 1), sizes), whole), cuts
    )
    nothing: Features = {}
    batch = Batch([nothing] * n, [nothing] * m, [""] * m, cuts)
    log = Interactions(batch, cuts[:-1] + action, propensity, reward, whole)
    rng = np.random.default_rng(seed)
    model = _means(log, rng) if expected is None else _flat("expected", expected, m)
    least, most = (float(reward.min()), float(reward.max())) if n else (0.0, 1.0)
    plan = Plan(
        low=min(0.0, least) if low is None else low,
        high=max(1.0, most) if high is None else high,
        logging=logging is not None,
        buckets=1,
    )
    # The confidence sequence goes without a model: a given one may have seen any row.
    group, bucket = rng.integers(plan.bootstrap, size=n), np.zeros(n, dtype=np.int64)
    shard = Shard(rows=Rows.of(log, pmf, model), group=group, bucket=bucket)
    return results(evaluation_sums(shard, plan), plan, level=level, seed=seed)


def _flat(name: str, values: Floats, m: int) -> Floats:
    flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    if flat.shape != (m,):
        raise FieldError(name, wanted=f"{m} numbers, one for every action offered", got=values.shape)
    return flat


def _check_distributions(name: str, pmf: Floats, offsets: Ints) -> None:
    wrong = ~np.isfinite(pmf) | (pmf < 0.0)
    sums = np.add.reduceat(np.append(pmf, 0.0), offsets[:-1]) if len(offsets) > 1 else np.zeros(0)
    off = np.abs(sums - 1.0) > SUM_TOLERANCE
    if wrong.any():
        row = int(np.searchsorted(offsets, int(np.argmax(wrong)), side="right")) - 1
        raise FieldError(f"{name}, row {row}", wanted="probabilities, 0 or more", got=float(pmf[np.argmax(wrong)]))
    if off.any():
        row = int(np.argmax(off))
        raise FieldError(f"{name}, row {row}", wanted="probabilities that sum to 1", got=float(sums[row]))


def _means(log: Interactions, rng: np.random.Generator) -> Floats:
    offsets = log.batch.offsets
    number = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], np.diff(offsets))
    drawn = number[log.chosen]
    half = rng.integers(2, size=len(log))
    out = np.empty(len(number))
    owner = np.repeat(half, np.diff(offsets))
    size = int(number.max(initial=0)) + 1
    for fold in range(2):
        rows = half != fold
        overall = float(log.reward[rows].mean()) if rows.any() else 0.0
        total = np.bincount(drawn[rows], weights=log.reward[rows], minlength=size)
        table = (total + _PRIOR * overall) / (np.bincount(drawn[rows], minlength=size) + _PRIOR)
        out[owner == fold] = table[number[owner == fold]]
    return out
