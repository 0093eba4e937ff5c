"""Interactions as Parquet: the lake's own columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from decision.errors import FieldError
from pipelines.files import replacing
from pipelines.formats.registry import Format, one_log
from pipelines.formats.rows import complete
from pipelines.formats.store import check_file
from pipelines.lake.schemas import INTERACTIONS
from pipelines.progress import Progress, silent


def read_parquet(path: Path, *, rows_per_batch: int = 20_000) -> Iterable[pa.Table]:
    """Yield the rows of a Parquet file in the interaction columns; see `complete` for those that may be missing.

    Raises:
        FieldError: it is no Parquet file, a column is missing or unknown, or a type does not fit.
    """
    check_file(path)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise FieldError("path", wanted="a Parquet file", got=path.name) from error
    with file:
        unknown = [name for name in file.schema_arrow.names if name not in INTERACTIONS.names]
        if unknown:
            raise FieldError.unknown(unknown[0], INTERACTIONS.names, noun="column")
        for batch in file.iter_batches(batch_size=rows_per_batch):
            names = batch.schema.names
            yield complete({name: pa.chunked_array([batch[name]]) for name in names}, len(batch))


def write_parquet(table: pa.Table, path: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write interaction rows to a Parquet file, whole or not at all; return their number, and that nothing is left."""
    progress("decisions exported", 0, len(table))
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return len(table), 0


FORMAT = Format(one_log(lambda path, name: read_parquet(path)), write_parquet)
