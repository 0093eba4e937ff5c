"""Users' turns from the lake, as the service saw them come: what a policy's memory of each is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from decision.memory import Report, Turn
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings
from pipelines.trajectories.histories import KNOWN, begins_of, histories

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_COLUMNS = ("subject_id", "action_ids", "action_index", "deferred", "state", "reward", "outcomes", KNOWN)


class Turns(NamedTuple):
    """A user's whole history.

    Attributes:
        subject_id: whose.
        turns: [n] all settled decisions, those that were dropped among them, in order of time.
        rows: [n] the same as a table, with the columns that were asked for.
    """

    subject_id: str
    turns: Sequence[Turn]
    rows: pa.Table


def turns_of(
    lake: Lake, loop: LoopSettings, columns: Sequence[str] = (), *, version: int | None = None
) -> Iterator[Turns]:
    """Yield the history of each subject, the parts of the lake one after the other.

    Args:
        lake: the tables.
        loop: the loop.
        columns: of the interactions, for `Turns.rows`.
        version: version of the interactions table; None for the present one.
    """
    wanted = list(dict.fromkeys([*_COLUMNS, *columns]))
    for part in histories(lake, loop.name, wanted, dropped=True, version=version):
        rows = part.filter(part["subject_id"].is_valid())
        if not len(rows):
            continue
        turns, users = _turns(rows, loop.reward.outcome), begins_of(rows)
        names = rows["subject_id"].take(pa.array(users[:-1])).to_pylist()
        for subject_id, begin, end in zip(names, users[:-1].tolist(), users[1:].tolist(), strict=True):
            yield Turns(subject_id, turns[begin:end], rows.slice(begin, end - begin))


def _turns(rows: pa.Table, outcome: str) -> list[Turn]:
    ts = rows["ts"].cast(pa.int64()).to_pylist()
    offered, index = rows["action_ids"].combine_chunks(), rows["action_index"].cast(pa.int64()).combine_chunks()
    starts = pc.list_value_length(offered).to_numpy().cumsum()
    starts = starts - pc.list_value_length(offered).to_numpy()
    shown = offered.flatten().take(pa.array(starts + index.to_numpy())).to_pylist()
    each = rows["outcomes"].combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(each), 0).to_pylist()
    flat = each.flatten()
    names, values, happened = (flat.field(name) for name in ("name", "value", "ts"))
    # In order of arrival: reports of one time are aggregated so.
    reports = zip(
        names.to_pylist(),
        values.to_pylist(),
        happened.cast(pa.int64()).to_pylist(),
        pc.list_flatten(rows[KNOWN]).to_pylist(),
        flat.field("offset").to_pylist(),
        strict=True,
    )
    out: list[Turn] = []
    for at, event, action, deferred, count, state, reward in zip(
        ts,
        rows["event_id"].to_pylist(),
        shown,
        rows["deferred"].fill_null(False).to_pylist(),
        sizes,
        rows["state"].to_pylist(),
        rows["reward"].to_pylist(),
        strict=True,
    ):
        mine = sorted((next(reports) for _ in range(count)), key=_arrival)
        said = [Report(*report[:4]) for report in mine]
        if not said and state == "joined" and reward is not None:
            said = [Report(outcome, reward, at, at)]  # an import brings rewards, and no reports
        out.append(Turn(at, event, action, deferred, said))
    return out


def _arrival(report: tuple[str, float, int, int, int]) -> int:
    return report[4]
