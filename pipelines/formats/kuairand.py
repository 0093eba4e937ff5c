"""KuaiRand (Gao et al., 2022): a feed in which some videos were exposed at random, logged as CSV.

A row with ``is_rand`` 1 shows a video drawn uniformly from a pool; what drew the others is not known, so these are left
out and counted. The pool is the set of videos ever shown so. Where it is larger than a decision may offer, the row
offers the video shown and others drawn uniformly from the pool: a uniform draw from a set that was itself drawn
uniformly is a uniform draw from the pool, so the propensity is exactly one over the size of the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Ints
from decision.errors import FieldError
from pipelines.formats.columns import CONTEXT, CsvFile, contexts_of, numbers_of
from pipelines.formats.csv import kinds_of
from pipelines.formats.registry import Format, Found
from pipelines.formats.rows import complete
from pipelines.formats.times import Clock

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

OFFERED = 100
"""Videos that count as offered by a row, at most."""
MAX_POOL = 1_000_000
_SEED = 20220422
"""Of the sets that count as offered: the same file gives the same rows."""
_FIELDS = {"subject": "user_id", "action": "video_id", "ts": "time_ms", "drawn": "is_rand"}
_ATTRIBUTION = "KuaiRand: Gao et al., CIKM 2022, CC BY-SA 4.0"


def find(path: Path | None, name: str, columns: Mapping[str, str] | None = None) -> list[Found]:
    """Return the randomly exposed rows of the log at `path`.

    Args:
        path: of the CSV file.
        name: of the import, and prefix of the event ids.
        columns: {``reward``: column, ``context.NAME``: column}; the reward is ``is_click`` where it is not given.

    Raises:
        FieldError: there is no such file, field or column, or it is no log of KuaiRand.
    """
    if path is None:
        raise FieldError("path", wanted="the file to read", got=None)
    file = CsvFile(path)
    there = file.names
    known = {**_FIELDS, "reward": "is_click", f"{CONTEXT}tab": "tab"}
    for field, column in known.items():
        if column not in there and field not in (columns or {}):
            raise FieldError("path", wanted=f"a log of KuaiRand, with a column {column}", got=path.name)
    for field, column in (columns or {}).items():
        if field != "reward" and not field.startswith(CONTEXT):
            raise FieldError.choice("map", ["reward", f"{CONTEXT}NAME"], field)
        if column not in there:
            raise FieldError.choice(f"map.{field}", there, column)
        known[field] = column
    left_out = [0]
    batches = _tables(file, name, known, left_out)
    return [Found(name, path.name, batches, _ATTRIBUTION, lambda: {"undrawn": left_out[0]})]


def _tables(file: CsvFile, name: str, known: Mapping[str, str], left_out: list[int]) -> Iterator[pa.Table]:
    pool, kinds = _pool(file), kinds_of(file, known)
    codes = {video: code for code, video in enumerate(pool)}
    rng = np.random.default_rng(_SEED)
    for read in file.numbered(known):
        rows = read.filter(_drawn(read))
        left_out[0] += len(read) - len(rows)
        if len(rows):
            shown = np.array([codes[video] for video in rows["action"].to_pylist()])
            yield complete(_columns(rows, name, shown, pool, rng) | {"context": contexts_of(rows, kinds)}, len(rows))


def _columns(rows: pa.Table, name: str, shown: Ints, pool: list[str], rng: np.random.Generator) -> dict[str, Any]:
    number = rows["#"].to_pylist()
    offered = _offered(shown, len(pool), rng)
    texts = msgspec.json.encode([{}] * offered.shape[1]).decode()
    return {
        "event_id": [f"{name}-{at}" for at in number],
        "ts": Clock("ms").read(rows["ts"], number),
        "subject_id": rows["subject"],
        "actions": [texts] * len(rows),
        "action_ids": [[pool[code] for code in codes] for codes in offered.tolist()],
        "action_index": (offered == shown[:, None]).argmax(axis=1),
        "propensity": np.full(len(rows), 1.0 / offered.shape[1]),
        "reward": numbers_of(rows["reward"], number, "reward"),
        "offset": rows["#"],
    }


def _offered(shown: Ints, pool: int, rng: np.random.Generator) -> Ints:
    """Return [n, k] ascending codes of the videos that count as offered, [n] `shown` among them."""
    if pool <= OFFERED:
        return np.broadcast_to(np.arange(pool), (len(shown), pool))
    others = np.array([rng.choice(pool - 1, OFFERED - 1, replace=False) for _ in range(len(shown))])
    return np.sort(np.column_stack([others + (others >= shown[:, None]), shown]), axis=1)


def _pool(file: CsvFile) -> list[str]:
    found: set[str] = set()
    for rows in file.numbered({field: _FIELDS[field] for field in ("action", "drawn")}):
        shown = rows.filter(_drawn(rows))["action"]
        if shown.null_count:
            raise FieldError(_FIELDS["action"], wanted="a video in every row", got=None)
        found.update(shown.unique().to_pylist())
        if len(found) > MAX_POOL:
            raise FieldError(_FIELDS["action"], wanted=f"a pool of at most {MAX_POOL} videos", got=len(found))
    if not found:
        raise FieldError(_FIELDS["drawn"], wanted="rows exposed at random, with 1 there", got=file.path.name)
    return sorted(found)


def _drawn(rows: pa.Table) -> pa.ChunkedArray:
    drawn = numbers_of(rows["drawn"], rows["#"].to_pylist(), _FIELDS["drawn"])
    return pc.fill_null(pc.equal(drawn, 1), False)


FORMAT = Format(find)
