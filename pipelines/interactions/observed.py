"""From interaction rows of the lake to the arrays in which drift is looked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.columns import Texts
from decision.drift.observed import Observed, Offered, blocks_of
from decision.ragged import ragged_offsets, ragged_rows
from pipelines.interactions.arrays import interned, pmf_of, sizes_of
from pipelines.lake.features import flat_actions

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

COLUMNS = (
    *("ts", "event_id", "subject_id", "action_ids", "action_index", "propensity", "reward", "reward_version"),
    *("pmf", "actions", "context_names", "context_values", "partition", "offset"),
)
MOST_ROWS = 50_000
"""Decisions that are looked at; of more, an even share."""
MOST_OFFERS = 200_000
"""Offered actions whose features are looked at; of more, those of an even share of the decisions."""
MOST_BYTES = 64 << 20
"""Bytes of texts of actions that are held; of more, those of an even share of the decisions."""
LEAST_BLOCK = 100
_DAY_US = 86_400_000_000


def evenly(offset: Ints, share: float) -> NDArray[np.bool_]:
    """Return [n] an even share of rows, chosen by their offsets on the log."""
    mixed = offset.astype(np.uint64) * np.uint64(2_654_435_769) % np.uint64(2**32)
    return mixed < np.uint64(int(share * 2**32))


def with_few_texts(parts: Iterable[pa.Table], most: int = MOST_BYTES) -> list[pa.Table]:
    """Return tables with ``offset`` and ``actions``, these null but in an even share of the rows if texts are long.

    A row may have a megabyte of them: whoever looks at thousands of rows would hold gigabytes. The share is the largest
    power of 1/2 with which the texts of all tables take at most `most` bytes, wherever one table ends.

    Args:
        parts: the tables, taken one after another.
        most: bytes.
    """
    share, held, kept = 1.0, 0, list[pa.Table]()
    for part in parts:
        kept.append(_sparse(part, share))
        held += _bytes_of(kept[-1])
        while held > most:
            share /= 2.0
            kept = [_sparse(table, share) for table in kept]
            held = sum(map(_bytes_of, kept))
    return kept


def _sparse(table: pa.Table, share: float) -> pa.Table:
    if share == 1.0:
        return table
    wanted = pa.array(evenly(table["offset"].to_numpy(), share))
    texts = pc.if_else(wanted, table["actions"], pa.scalar(None, table["actions"].type))
    return table.set_column(table.column_names.index("actions"), "actions", texts)


def _bytes_of(table: pa.Table) -> int:
    return pc.sum(pc.binary_length(table["actions"])).as_py() or 0


def observed_of(parts: Iterable[tuple[pa.Table, Floats]]) -> Observed | None:
    """Return the rows of tables with `COLUMNS`, and what each stands for, as arrays; None for no row.

    Rows whose features are not in columns, since they cannot be read or were written before there were such, are left
    out. Features of actions are those of the rows whose ``actions`` are not null and can be read.
    """
    weights = list[Floats]()

    def readable() -> Iterator[pa.Table]:
        for table, weight in parts:
            keep = pc.and_(table["context_names"].is_valid(), pc.greater(table["propensity"], 0.0)).to_numpy()
            weights.append(weight[keep])
            yield table.select(list(COLUMNS)).filter(pa.array(keep))

    tables = with_few_texts(readable())
    if not tables or not sum(map(len, tables)):
        return None
    whole, weight = pa.concat_tables(tables), np.concatenate(weights)
    order = pc.sort_indices(whole, sort_keys=[(name, "ascending") for name in ("ts", "partition", "offset")])
    whole, weight = whole.take(order).combine_chunks(), weight[order.to_numpy()]
    offers, entries = sizes_of(whole), pc.list_value_length(whole["context_names"]).to_numpy().astype(np.int64)
    every = np.arange(len(whole), dtype=np.int64)
    offered = interned(pc.list_flatten(whole["action_ids"]))
    first = np.cumsum(offers) - offers
    subject = np.asarray(interned(pc.coalesce(whole["subject_id"], whole["event_id"])).code, np.int64)
    micros = pc.cast(pc.cast(whole["ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()
    block = blocks_of(micros, LEAST_BLOCK, _DAY_US)
    return Observed(
        row=np.repeat(every, entries),
        name=interned(pc.list_flatten(whole["context_names"])),
        value=pc.list_flatten(whole["context_values"]).to_numpy(),
        offer_row=np.repeat(every, offers),
        offered=offered,
        pmf=pmf_of(whole["pmf"], offers),
        drawn=offered.take(first + whole["action_index"].to_numpy().astype(np.int64)),
        propensity=whole["propensity"].to_numpy(),
        reward=whole["reward"].to_numpy().astype(np.float64),
        weight=weight,
        block=block,
        subject=subject,
        actions=_offered(whole["actions"], offers, offered, weight, block, subject),
    )


def _offered(
    texts: pa.ChunkedArray, sizes: Ints, ids: Texts, weight: Floats, block: Ints, subject: Ints
) -> Offered | None:
    """Return the offers of decisions with what is known of the actions; None where that is nothing.

    Args:
        texts: [n] JSON lists of features, or null.
        sizes: [n] offers of each decision.
        ids: [m] of the offered actions.
        weight: [n] of the decisions.
        block: [n] stretch of time of each.
        subject: [n] whom each is about.
    """
    known = np.flatnonzero(texts.is_valid().to_numpy())
    known = known[:: max(1, -(-int(sizes[known].sum()) // MOST_OFFERS))]
    flat = flat_actions(texts.take(pa.array(known)), sizes[known])
    readable = np.ones(known.size, np.bool_)
    readable[list(flat.errors)] = False
    where = known[readable]
    mine = ragged_offsets(sizes[where])
    name, value, ends = flat.rows.take(ragged_rows(ragged_offsets(sizes[known])[:-1][readable], mine)).entries()
    if not name.size:
        return None
    decision = np.repeat(where, sizes[where])
    return Offered(
        row=np.repeat(np.arange(decision.size, dtype=np.int64), np.diff(ends)),
        name=Texts(flat.rows.names, name.astype(np.int64)),
        value=value,
        weight=(weight / sizes)[decision],
        block=block[decision],
        subject=subject[decision],
        decision=decision,
        action=ids.take(ragged_rows(ragged_offsets(sizes)[:-1][where], mine)),
    )
