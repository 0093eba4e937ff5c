"""Which interactions a generation learns from, and which it is judged on.

The latest rows of the loop, as of one version of the table; a hash of the event id keeps the same decisions out of
training in every generation, so that a candidate and a champion can both be judged on rows neither has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.batch import Ints
from decision.errors import SupportError
from decision.generations import ages
from decision.split import in_share
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings

MAX_GENERATIONS = 200

IMPORTED = "imported"
"""Reward definition of rows that came with their reward: they count under every definition."""


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows come from; goes into the manifest.

    Attributes:
        table_version: version of the interactions table.
        rows: rows in the window.
        holdout: those of them kept out of training.
        offsets: highest log offset read, by partition.
        first_ts: time of the oldest decision, ISO 8601 UTC.
        last_ts: time of the newest.
        reward_version: the reward definition of the rows, imported ones apart.
        other_definitions: settled rows left out because they carry another one.
        trainings: newest decision of each earlier training, ISO 8601 UTC, oldest first: where generations end.
    """

    table_version: int
    rows: int
    holdout: int
    offsets: dict[str, int]
    first_ts: str
    last_ts: str
    reward_version: str
    other_definitions: int
    trainings: list[str] = []


class Window(msgspec.Struct, frozen=True):
    """The rows, oldest first: those to learn from, those to judge on, and where they come from."""

    training: pa.Table
    holdout: pa.Table
    data: Data

    def ages(self, minimum: int) -> Ints:
        """Return [n] generations between each row of `training` and the newest; see `decision.generations.ages`."""
        stamps: Any = pc
        at = stamps.cast(self.training["ts"], pa.timestamp("us", "UTC")).to_numpy().astype("datetime64[us]")
        micros = [round(datetime.fromisoformat(end).timestamp() * 1e6) for end in self.data.trainings]
        ends = np.searchsorted(at.astype(np.int64), np.array(micros, dtype=np.int64), side="right")
        return ages(ends.tolist(), len(self.training), minimum=minimum)


def window(
    lake: Lake, loop: LoopSettings, table_version: int | None = None, *, trainings: Sequence[str] = ()
) -> Window:
    """Return the loop's window.

    Args:
        lake: the tables.
        loop: its training settings say how many rows, and which share is held out.
        table_version: version of the interactions table; None for the present one.
        trainings: newest decision of each earlier training, ISO 8601; those at or after the newest row are not earlier.

    Raises:
        SupportError: there is not a single row, with the reason.
    """
    table_version = lake.version("interactions") if table_version is None else table_version
    table = lake.interactions(loop.name, version=table_version, latest=loop.training.window or None)
    settled = len(table)
    table = table.filter(pc.field("reward_version").isin([loop.reward.version, IMPORTED]))
    other = settled - len(table)
    if not len(table):
        hint = f"; {other} carry another reward definition than {loop.reward.version!r}: restate them" if other else ""
        raise SupportError(f"loop {loop.name} has no interactions yet{hint}")
    held = in_share(table["event_id"].to_pylist(), f"holdout {loop.name}", loop.training.holdout)
    newest = table.group_by("partition").aggregate([("offset", "max")]).to_pylist()
    return Window(
        training=table.filter(pa.array(~held)),
        holdout=table.filter(pa.array(held)),
        data=Data(
            table_version=table_version,
            rows=len(table),
            holdout=int(np.sum(held)),
            offsets={str(entry["partition"]): entry["offset_max"] for entry in _sorted(newest)},
            first_ts=table["ts"][0].as_py().isoformat(),
            last_ts=table["ts"][-1].as_py().isoformat(),
            reward_version=loop.reward.version,
            other_definitions=other,
            trainings=_ends(trainings, table["ts"][-1].as_py()),
        ),
    )


def _ends(trainings: Sequence[str], newest: datetime) -> list[str]:
    ends = sorted({datetime.fromisoformat(end) for end in trainings})
    return [end.isoformat() for end in ends if end < newest][-MAX_GENERATIONS:]


def _sorted(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(groups, key=lambda group: group["partition"])
