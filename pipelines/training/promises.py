"""What earlier versions with memory were expected to be worth, and what came true once they decided.

A version decides when it is in charge, and as a candidate in its share of the decisions. What it gained is told over
those who decided in the same hours, so that a good day is not taken for a good policy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from deltalake import DeltaTable

from decision.batch import Floats, Ints
from pipelines.lake.lake import Lake
from pipelines.registry.charge import Version, WrittenVerdict, moves

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

FEWEST = 200
"""Decisions, its own and those of others beside it, without which a gain has not come true or false yet."""
_HOUR = 3_600_000_000
_SAME = 1e-9
_COLUMNS = [
    *("ts", "policy_version", "reward", "propensity", "action_index"),
    *("pmf_baseline", "pmf_candidate", "guard_weight"),
]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected of a version, in reward per decision, and what became of it.

    Attributes:
        version: the version.
        method: how it was made.
        believed: mean over the simulators that it was trained in.
        held_out: in the simulator held out.
        gain: over the logged actions there; None for a version that did not keep it.
        decisions: what it decided since; those of a mixture count by the probability that they were its own.
        came_true: mean reward of these; None without any.
        gained: over what others decided in the same hours; None where either side has fewer than 200 decisions.
    """

    version: str
    method: str
    believed: float
    held_out: float
    gain: float | None = None
    decisions: float = 0.0
    came_true: float | None = None
    gained: float | None = None


def promises(
    lake: Lake,
    loop: str,
    versions: Sequence[Version],
    verdicts: Sequence[WrittenVerdict],
    *,
    table_version: int | None = None,
) -> list[Promise]:
    """Return what the loop's `versions` with memory promised and what came true, oldest first.

    Args:
        lake: the tables, which are read as a stream.
        loop: name of the loop.
        versions: its versions.
        verdicts: its history, oldest first: it says who was the candidate when.
        table_version: version of the interactions table; None for the present one.
    """
    promised = [version for version in versions if "held_out" in version.tags]
    if not promised:
        return []
    names = [version.version for version in promised]
    sums = _sums(lake, loop, names, _candidates(verdicts), table_version)
    return [_promise(version, sums, number) for number, version in enumerate(promised)]


def _promise(version: Version, sums: dict[int, Floats], number: int) -> Promise:
    tags = version.tags
    mine = np.array([each[number] for each in sums.values()]).reshape(-1, 2)
    all_of_it = np.array([each[-1] for each in sums.values()]).reshape(-1, 2)
    others = all_of_it - mine
    decisions = float(mine[:, 0].sum())
    gained = None
    beside = (mine[:, 0] > 0.0) & (others[:, 0] > 0.5)
    share = mine[beside, 0]
    if min(share.sum(), others[beside, 0].sum()) >= FEWEST:
        each = mine[beside, 1] / share - others[beside, 1] / others[beside, 0]
        gained = float(share @ each / share.sum())
    return Promise(
        version=version.version,
        method=tags.get("method", ""),
        believed=float(tags["believed"]),
        held_out=float(tags["held_out"]),
        gain=float(tags["gain"]) if "gain" in tags else None,
        decisions=decisions,
        came_true=float(mine[:, 1].sum()) / decisions if decisions > 0.0 else None,
        gained=gained,
    )


def _candidates(verdicts: Sequence[WrittenVerdict]) -> list[tuple[int, str]]:
    """Return (microseconds, version), ascending: who has been the candidate since, "" for nobody."""
    written = [entry for entry in verdicts if entry.alias == "candidate" and entry.at]
    stands = written[-1].to_version if written else None
    made = moves(list(verdicts), "candidate", stands)
    return [(round(datetime.fromisoformat(entry.at).timestamp() * 1e6), entry.to_version or "") for entry in made]


def _sums(
    lake: Lake, loop: str, names: Sequence[str], candidates: Sequence[tuple[int, str]], version: int | None
) -> dict[int, Floats]:
    """Return by hour [v + 1, 2] decisions and rewards of each version, and of everybody."""
    number = {name: at for at, name in enumerate(names)}
    since = np.array([at for at, _ in candidates], np.int64)
    who = np.array([-1, *[number.get(name, -1) for _, name in candidates]])
    keep = (pc.field("loop") == loop) & pc.field("reward").is_valid() & (pc.field("slot") == "")

    def reading(table: DeltaTable) -> dict[int, Floats]:
        data = table.to_pyarrow_dataset()
        return _summed(data.scanner(columns=_COLUMNS, filter=keep, batch_size=8_192).to_batches(), number, since, who)

    return lake.read("interactions", reading, version)


def _summed(batches: Iterable[pa.RecordBatch], number: dict[str, int], since: Ints, who: Ints) -> dict[int, Floats]:
    n = len(number)
    out: defaultdict[int, Floats] = defaultdict(lambda: np.zeros((n + 1, 2)))
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        ts, reward = rows["ts"].cast(pa.int64()).to_numpy(), rows["reward"].to_numpy().astype(np.float64)
        charge = np.array([number.get(name, -1) for name in rows["policy_version"].to_pylist()], np.int64)
        theirs = who[np.searchsorted(since, ts, side="right")]
        share = np.where(theirs >= 0, _share(rows), 0.0)
        hours, hour = np.unique(ts // _HOUR, return_inverse=True)
        for owner, mass in ((theirs, share), (charge, 1.0 - share)):
            _add(out, hours, hour, owner, mass, reward)
        _add(out, hours, hour, np.full(len(ts), n), np.ones(len(ts)), reward)
    return out


def _add(out: dict[int, Floats], hours: Ints, hour: Ints, owner: Ints, mass: Floats, reward: Floats) -> None:
    known = owner >= 0
    for at, one in enumerate(hours.tolist()):
        mine = known & (hour == at)
        for column, values in enumerate((mass, mass * reward)):
            np.add.at(out[one][:, column], owner[mine], values[mine])


def _share(rows: pa.Table) -> Floats:
    """Return [n] the probability that the candidate made the draw; of an episode or slate one of them made it."""
    index = rows["action_index"].to_numpy().astype(np.int64)
    rho, drawn = rows["guard_weight"].fill_null(0.0).to_numpy(), rows["propensity"].to_numpy()
    candidate, baseline = _at(rows["pmf_candidate"], index), _at(rows["pmf_baseline"], index)
    with np.errstate(invalid="ignore"):
        its_own = np.abs(drawn - candidate) <= _SAME * drawn
        not_its = np.abs(drawn - baseline) <= _SAME * drawn
        mixed = np.clip(rho * candidate / drawn, 0.0, 1.0)
    share = np.where(its_own & ~not_its, 1.0, np.where(not_its & ~its_own, 0.0, np.where(its_own, rho, mixed)))
    return np.where((rho > 0.0) & np.isfinite(candidate), share, 0.0)


def _at(column: pa.ChunkedArray, index: Ints) -> Floats:
    """Return [n] the number at `index` of each list; NaN where there is none."""
    lists = column.combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    out, begins = np.full(len(index), np.nan), np.cumsum(sizes) - sizes
    some = sizes > index
    out[some] = pc.list_flatten(lists).to_numpy()[(begins + index)[some]]
    return out
