"""The test of a log's propensities: against the draws' seeds, the logged distributions, and the number of actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.ope.diagnostics.propensities import PropensityReport, check_draws, check_identities, chi_square_of_ranks
from decision.ragged import ragged_offsets

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
    pmf, offsets = _pmfs(known)
    actions[valid.to_numpy()] = np.add.reduceat(pmf > 0, offsets[:-1], dtype=np.int64)
    report = check_identities(rows["propensity"].to_numpy(), actions)
    imported = _is_import(known)
    if imported.any():
        report = _both(report, _chosen(known.filter(pa.array(imported))))
    if not imported.all():
        report = _both(report, _drawn(known.filter(pa.array(~imported))))
    return report


def _chosen(rows: pa.Table) -> PropensityReport:
    statistic, freedom, p_value = chi_square_of_ranks(*_pmfs(rows), _index(rows))
    numbers = {"chi_square": statistic, "degrees": float(freedom), "p_value": p_value}
    wrong = f"choices do not follow the pmfs: chi-square {statistic:.1f} on {freedom} degrees, p {p_value:.1e}"
    return PropensityReport(p_value >= _REJECTED, (wrong,) if p_value < _REJECTED else (), numbers)


def _drawn(rows: pa.Table) -> PropensityReport:
    propensity, seed = rows["propensity"].to_numpy(), rows["seed"].to_numpy().astype(np.int64)
    return check_draws(*_pmfs(rows), _index(rows), propensity, seed)


def _both(one: PropensityReport, other: PropensityReport) -> PropensityReport:
    return PropensityReport(one.ok and other.ok, (*one.reasons, *other.reasons), {**one.numbers, **other.numbers})


def _pmfs(rows: pa.Table) -> tuple[Floats, Ints]:
    sizes = pc.list_value_length(rows["pmf"]).to_numpy()
    return pc.list_flatten(rows["pmf"]).to_numpy(), ragged_offsets(sizes.astype(np.int64))


def _index(rows: pa.Table) -> Ints:
    return rows["action_index"].to_numpy().astype(np.int64)


def _is_import(rows: pa.Table) -> NDArray[np.bool_]:
    if "reward_version" not in rows.schema.names:
        return np.zeros(len(rows), np.bool_)
    imported = pc.equal(rows["reward_version"], "imported")
    return pc.fill_null(imported, False).to_numpy().astype(np.bool_)
