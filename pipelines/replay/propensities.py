"""The test of a log's propensities: against the draws' seeds, the logged distributions, and the number of actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.ope.diagnostics.propensities import PropensityReport, check_draws, check_identities, chi_square_of_ranks

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_REJECTED = 1e-4


def check_propensities(rows: pa.Table | None) -> PropensityReport:
    """Return whether the logged propensities of decisions can be believed.

    Draws of this service are repeated from their seeds. Of imported decisions there are no seeds of ours: where their
    pmfs are known the choices are tested against them, and everywhere 1/p against the number of actions that could have
    been drawn.

    Args:
        rows: columns ``propensity``, ``action_ids``, ``pmf``, ``action_index``, ``seed`` and ``reward_version`` or
            none of the last, as in the tables of the lake.
    """
    if rows is None or not len(rows):
        return PropensityReport(True, (), {"rows": 0.0})
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


def _is_import(rows: pa.Table) -> bool:
    return "reward_version" in rows.schema.names and rows["reward_version"][0].as_py() == "imported"
