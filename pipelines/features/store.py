"""The Feast repository of an installation: one entity, and per loop a view of uploads and a view of the stream.

Everything is declared from the loop's settings; no user code runs. Online values stand in SQLite, their history in
Parquet files, from which Feast answers as of any time.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from decision.errors import FieldError
from pipelines.settings import LoopSettings, Settings

SUBJECT = "subject_id"
TIMESTAMP = "event_timestamp"
STREAM_FEATURES = ("outcomes", "mean_reward")
MAX_COLUMNS = 200
MAX_ROWS = 10_000_000


class Store:
    """Feast for one loop.

    Args:
        settings: the installation.
        loop: the loop whose features these are.
    """

    def __init__(self, settings: Settings, loop: LoopSettings) -> None:
        self.loop = loop
        self.root = settings.root / "features"
        self.folder = self.root / loop.name
        self.history = self.folder / "stream"
        self.subjects = self.folder / "subjects.parquet"
        self._feast: Any = None

    @property
    def stream_view(self) -> str:
        """Name of the view of decayed outcome statistics."""
        return f"{self.loop.name.replace('-', '_')}_stream"

    @property
    def subject_view(self) -> str:
        """Name of the view of uploaded features."""
        return f"{self.loop.name.replace('-', '_')}_subject"

    @property
    def feast(self) -> Any:
        """Feast's own store, opened and declared on first use: seconds, once."""
        if self._feast is None:
            self._feast = self._open()
        return self._feast

    def names(self) -> list[str]:
        """Return the features that are looked up, as ``view:feature``."""
        names = [f"{self.stream_view}:{name}" for name in STREAM_FEATURES] if self.loop.features.stream else []
        if self.subjects.exists():
            names += [f"{self.subject_view}:{field.name}" for field in self._subject_fields()]
        return names

    def load_subjects(self, path: Path, *, now: datetime) -> int:
        """Replace the uploaded features by the Parquet or CSV table at `path` and put the latest values online.

        Args:
            path: a table with ``subject_id``, optionally ``event_timestamp`` (UTC; `now` when absent), and features.
            now: time of the upload.

        Returns:
            Rows.

        Raises:
            FieldError: the file or a column does not fit.
        """
        table = _read(path)
        if SUBJECT not in table.column_names:
            raise FieldError(SUBJECT, wanted="a column of that name", got=table.column_names)
        if TIMESTAMP not in table.column_names:
            stamps = pa.array([now.astimezone(UTC)] * table.num_rows, pa.timestamp("us", "UTC"))
            table = table.append_column(TIMESTAMP, stamps)
        columns: dict[str, Any] = {}
        for name in table.column_names:
            columns[name] = _column(name, table.column(name))
        if len(columns) < 3:
            raise FieldError("columns", wanted="one feature or more", got=table.column_names)
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.subjects.with_suffix(".new")
        pq.write_table(pa.table(columns), scratch)
        os.replace(scratch, self.subjects)
        self._feast = None
        frame = pa.table(columns).to_pandas().sort_values(TIMESTAMP).drop_duplicates(SUBJECT, keep="last")
        with _quiet():
            self.feast.write_to_online_store(self.subject_view, frame)
        return table.num_rows

    def put_online(self, rows: pd.DataFrame) -> None:
        """Put stream values online; a repeated or older row changes nothing."""
        with _quiet():
            self.feast.write_to_online_store(self.stream_view, rows)

    def historical(self, asked: pa.Table, names: list[str] | None = None) -> pa.Table:
        """Return the features as they stood at each row's time, never later.

        Args:
            asked: a table with ``subject_id`` and ``event_timestamp``.
            names: features as ``view:feature``; all when None.

        Returns:
            The same rows in the same order with one column per feature, null where there was no value yet.
        """
        frame = asked.select([SUBJECT, TIMESTAMP]).to_pandas()
        frame["_row"] = np.arange(len(frame))
        with _quiet():
            job = self.feast.get_historical_features(entity_df=frame, features=names or self.names())
            out = job.to_df().sort_values("_row").drop(columns="_row")
        return pa.Table.from_pandas(out, preserve_index=False)

    def _subject_fields(self) -> list[pa.Field]:
        schema = pq.read_schema(self.subjects)
        return [field for field in schema if field.name not in (SUBJECT, TIMESTAMP)]

    def _open(self) -> Any:
        with _quiet():
            import feast
            from feast.data_format import ParquetFormat
            from feast.repo_config import RepoConfig
            from feast.types import Float64, String

            self.history.mkdir(parents=True, exist_ok=True)
            first = self.history / "0.parquet"
            if not first.exists():
                empty = {SUBJECT: pa.array([], pa.string()), TIMESTAMP: pa.array([], pa.timestamp("us", "UTC"))}
                empty |= {name: pa.array([], pa.float64()) for name in STREAM_FEATURES}
                pq.write_table(pa.table(empty), first)
            store = feast.FeatureStore(
                config=RepoConfig(
                    project="decision",
                    provider="local",
                    registry=str(self.root / f"registry-{self.loop.name}.db"),
                    online_store={"type": "sqlite", "path": str(self.folder / "online.db")},
                    offline_store={"type": "duckdb"},
                    entity_key_serialization_version=3,
                )
            )
            subject = feast.Entity(name="subject", join_keys=[SUBJECT], value_type=feast.ValueType.STRING)
            declared: list[Any] = [subject]
            stream = feast.FileSource(
                name=f"{self.stream_view}_history",
                path=str(self.history / "*.parquet"),
                timestamp_field=TIMESTAMP,
                file_format=ParquetFormat(),
            )
            declared.append(
                feast.FeatureView(
                    name=self.stream_view,
                    entities=[subject],
                    ttl=timedelta(0),
                    schema=[feast.Field(name=SUBJECT, dtype=String)]
                    + [feast.Field(name=name, dtype=Float64) for name in STREAM_FEATURES],
                    source=stream,
                    online=True,
                )
            )
            if self.subjects.exists():
                kinds = {
                    field.name: String if pa.types.is_string(field.type) else Float64
                    for field in self._subject_fields()
                }
                declared.append(
                    feast.FeatureView(
                        name=self.subject_view,
                        entities=[subject],
                        ttl=timedelta(0),
                        schema=[feast.Field(name=SUBJECT, dtype=String)]
                        + [feast.Field(name=name, dtype=kind) for name, kind in kinds.items()],
                        source=feast.FileSource(
                            name=f"{self.subject_view}_uploads",
                            path=str(self.subjects),
                            timestamp_field=TIMESTAMP,
                            file_format=ParquetFormat(),
                        ),
                        online=True,
                    )
                )
            store.apply(declared)
            return store


def _read(path: Path) -> pa.Table:
    try:
        table = csv.read_csv(path) if path.suffix.lower() == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FieldError("path", wanted="a Parquet or CSV table", got=str(error)) from error
    if table.num_columns > MAX_COLUMNS or table.num_rows > MAX_ROWS:
        wanted = f"at most {MAX_COLUMNS} columns and {MAX_ROWS} rows"
        raise FieldError("path", wanted=wanted, got=(table.num_columns, table.num_rows))
    return table


def _column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if name == TIMESTAMP:
        if not pa.types.is_timestamp(kind):
            raise FieldError(name, wanted="UTC timestamps", got=str(kind))
        return column.cast(pa.timestamp("us", "UTC"))
    if name == SUBJECT:
        if column.null_count:
            raise FieldError(name, wanted="an id in every row", got=f"{column.null_count} nulls")
        return column.cast(pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    raise FieldError(name, wanted="numbers, booleans or text", got=str(kind))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's deprecation notices and progress talk out of our logs and tests."""
    os.environ.setdefault("FEAST_USAGE", "False")
    for name in ("feast", "feast.feature_store", "feast.repo_config"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
