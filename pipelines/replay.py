"""Replay: what a policy that never ran would have earned on logged decisions, and whether the log can be believed.

The log may be a loop's interactions or an import. The reward model of the doubly robust estimate is fitted on the
other half of the decisions, by a hash of their ids, so no row is predicted by a model that saw it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Floats, Interactions, Ints
from decision.contracts import Policy
from decision.errors import SupportError
from decision.ope.diagnostics import Diagnostics, diagnostics
from decision.ope.dr import dr, dr_terms
from decision.ope.estimate import Estimate
from decision.ope.ips import ips
from decision.ope.propensities import PropensityReport, check_draws, check_identities, chi_square_of_ranks
from decision.ope.snips import SnipsSums, snips
from decision.ope.sums import MeanSums
from decision.ope.weights import weights_of
from decision.split import fold_of
from pipelines.interactions import to_interactions

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

RewardModel = Literal["means", "vw", "none"]
FOLDS = 2
MAX_ROWS = 1_000_000
_REJECTED = 1e-4
_PRIOR_ROWS = 10.0


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay.

    Attributes:
        log: name of the loop or import.
        policy: the evaluation policy, in words.
        rows: decisions it was replayed on.
        left_out: decisions of the log it was not, with the reason; "" where all were used.
        logged: mean logged reward: the value of whatever drew the log.
        estimates: by name, ``ips``, ``snips`` and ``dr``; None where the log has no support.
        diagnostics: of the weights.
        propensities: whether the log's propensities can be believed; None when not asked.
        trusted: neither the propensities nor an estimate give a reason for doubt.
        reasons: why not, in words.
    """

    log: str
    policy: str
    rows: int
    left_out: str
    logged: Estimate
    estimates: dict[str, Estimate | None]
    diagnostics: Diagnostics
    propensities: PropensityReport | None
    trusted: bool
    reasons: list[str]


def replay(
    rows: pa.Table,
    policy: Policy,
    *,
    log: str,
    policy_name: str,
    reward_model: RewardModel = "vw",
    level: float = 0.95,
    check: bool = True,
    left_out: str = "",
) -> Replay:
    """Evaluate `policy` on logged decisions.

    Args:
        rows: settled decisions with the lake's interaction columns.
        policy: the evaluation policy.
        log: name of the loop or import.
        policy_name: the policy in words.
        reward_model: of the doubly robust estimate: ``means`` per action, ``vw``, or ``none`` to leave it out.
        level: coverage of the intervals.
        check: test the log's propensities too.
        left_out: decisions that were left out of `rows` and why.

    Raises:
        SupportError: there are no rows.
        FieldError: there are too many, or a propensity is not in (0, 1].
    """
    if not len(rows):
        raise SupportError(f"{log}: there are no settled decisions to replay")
    if len(rows) > MAX_ROWS:
        rows = rows.slice(len(rows) - MAX_ROWS)
        left_out = f"{left_out}; all but the latest {MAX_ROWS} rows".removeprefix("; ")
    interactions = to_interactions(rows)
    pmf = policy.pmf(interactions.batch)
    weights = weights_of(interactions, pmf)
    kept = _kept(rows)
    reward = interactions.reward
    estimates: dict[str, Estimate | None] = {
        "ips": ips(MeanSums.of(kept * weights * reward, kept * weights), level=level),
        "snips": snips(SnipsSums.of(kept * weights, reward), level=level),
    }
    if reward_model != "none":
        expected = cross_fitted(interactions, fold_of(rows["event_id"].to_pylist(), "replay", FOLDS), reward_model)
        terms = dr_terms(interactions, pmf, expected)
        estimates["dr"] = dr(MeanSums.of(kept * terms, kept * weights), level=level)
    propensities = check_propensities(rows) if check else None
    reasons = [] if propensities is None else [f"propensities: {reason}" for reason in propensities.reasons]
    for name, estimate in estimates.items():
        doubts = ("the log has no support for this policy",) if estimate is None else estimate.reasons
        reasons += [f"{name}: {reason}" for reason in doubts]
    return Replay(
        log=log,
        policy=policy_name,
        rows=len(interactions),
        left_out=left_out,
        logged=ips(MeanSums.of(kept * reward, kept), level=level),
        estimates=estimates,
        diagnostics=diagnostics(interactions, weights),
        propensities=propensities,
        trusted=not reasons,
        reasons=reasons,
    )


def check_propensities(rows: pa.Table) -> PropensityReport:
    """Return whether the logged propensities of decisions can be believed.

    Draws of this service are repeated from their seeds. Of imported decisions there are no seeds of ours: where their
    pmfs are known the choices are tested against them, and everywhere 1/p against the number of actions that could have
    been drawn.

    Args:
        rows: columns ``propensity``, ``action_ids``, ``pmf``, ``action_index``, ``seed`` and ``reward_version`` or
            none of the last, as in the tables of the lake.
    """
    actions = pc.list_value_length(rows["action_ids"]).to_numpy().astype(np.int64)
    valid = pc.is_valid(rows["pmf"])
    known = rows.filter(valid)
    if not len(known):
        return check_identities(rows["propensity"].to_numpy(), actions)
    offsets = np.concatenate(([0], np.cumsum(pc.list_value_length(known["pmf"]).to_numpy()))).astype(np.int64)
    pmf = pc.list_flatten(known["pmf"]).to_numpy()
    actions[valid.to_numpy()] = np.add.reduceat(pmf > 0, offsets[:-1], dtype=np.int64)
    report = check_identities(rows["propensity"].to_numpy(), actions)
    index = known["action_index"].to_numpy().astype(np.int64)
    if _is_import(known):
        statistic, freedom, p_value = chi_square_of_ranks(pmf, offsets, index)
        numbers = {"chi_square": statistic, "degrees": float(freedom), "p_value": p_value}
        wrong = f"choices do not follow the pmfs: chi-square {statistic:.1f} on {freedom} degrees, p {p_value:.1e}"
        draws = PropensityReport(p_value >= _REJECTED, (wrong,) if p_value < _REJECTED else (), numbers)
    else:
        propensity = known["propensity"].to_numpy()
        draws = check_draws(pmf, offsets, index, propensity, known["seed"].to_numpy().astype(np.int64))
    return PropensityReport(
        report.ok and draws.ok, (*report.reasons, *draws.reasons), {**report.numbers, **draws.numbers}
    )


def cross_fitted(interactions: Interactions, folds: Ints, kind: Literal["means", "vw"]) -> Floats:
    """Return [m] expected rewards, each predicted by a model that was fitted on the other folds ([n])."""
    expected = np.empty(len(interactions.batch.actions))
    group = np.repeat(folds, np.diff(interactions.batch.offsets))
    codes = _codes(interactions) if kind == "means" else None
    for fold in range(FOLDS):
        if codes is not None:
            table = _means(interactions, codes, np.flatnonzero(folds != fold))
            expected[group == fold] = table[codes[group == fold]]
        elif (folds == fold).any():
            here, there = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            expected[group == fold] = _vw(interactions.take(there), interactions.take(here))
    return expected


def _codes(interactions: Interactions) -> Ints:
    encoded = pa.array(interactions.batch.action_ids, pa.string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64)


def _means(interactions: Interactions, codes: Ints, rows: Ints) -> Floats:
    # Each action's mean reward over `rows`, drawn towards the mean of all by ten rows' worth.
    reward, chosen = interactions.reward[rows], codes[interactions.chosen[rows]]
    overall = float(reward.mean()) if len(rows) else 0.0
    size = int(codes.max()) + 1
    total = np.bincount(chosen, weights=reward, minlength=size)
    return (total + _PRIOR_ROWS * overall) / (np.bincount(chosen, minlength=size) + _PRIOR_ROWS)


def _vw(training: Interactions, rows: Interactions) -> Floats:
    from decision.oracles.vw import VwOracle, VwSettings

    low, high = (float(training.reward.min()), float(training.reward.max())) if len(training) else (0.0, 0.0)
    if low == high:
        return np.full(len(rows.batch.actions), low)
    oracle = VwOracle(VwSettings(low=low, high=high, passes=3))
    oracle.fit(training)
    return oracle.predict(rows.batch)


def _kept(rows: pa.Table) -> Floats:
    # A record kept with probability p stands for 1/p decisions; scaled to a mean of 1.
    inverse = 1.0 / rows["pass_probability"].to_numpy()
    return inverse / inverse.mean()


def _is_import(rows: pa.Table) -> bool:
    return "reward_version" in rows.schema.names and rows["reward_version"][0].as_py() == "imported"
