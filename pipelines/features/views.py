"""The Feast repository of an installation: one entity, and per loop a view of uploads and a view of the stream.

Everything is declared from the loop's settings and the uploaded columns; no user code runs. Online values stand in one
SQLite file, their history in Parquet files, from which Feast answers as of any time. Importing Feast takes seconds, so
it happens on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.features.copies import Copies
from pipelines.features.history import History
from pipelines.features.repository import (
    SUBJECT,
    close_store,
    encoded_key,
    import_feast,
    own_config,
    quiet,
    repository_of,
)
from pipelines.features.shared import STREAM_COLUMNS, SharedValues
from pipelines.files import locked, open_sqlite
from pipelines.online.connection import Online, open_online
from pipelines.settings import LoopSettings, Settings

TIMESTAMP = "event_timestamp"
ROWS_PER_WRITE = 10_000
_BUSY_S = 60.0
_ROWS_PER_QUESTION = 50_000


class Views:
    """The two views of one loop.

    Args:
        settings: the installation.
        loop: the loop whose features these are.
        online: connections to the installation's Redis, if it has one; opened here when None.

    Attributes:
        shared: online values in Redis; None where they stand in the home folder.
    """

    def __init__(self, settings: Settings, loop: LoopSettings, online: Online | None = None) -> None:
        self._settings = settings
        self.root = settings.root / "features"
        self.copies = Copies(settings, loop.name)
        self.folder = self.copies.folder
        self.subjects = self.folder / "subjects.parquet"
        self.history = History(self.copies, STREAM_SCHEMA)
        # "-" is no part of a table's name, and "_" may stand in a loop's name itself
        plain = loop.name.replace("_", "__").replace("-", "_x")
        self.stream_view = f"{plain}_stream"
        self.subject_view = f"{plain}_subject"
        self._store: Any = None
        self._own_store: Any = None
        self._own = open_online(settings) if online is None else None
        online = online or self._own
        self.shared = None if online is None else SharedValues(online, self.stream_view, self.subject_view)

    @property
    def online_path(self) -> Path:
        """Feast's online store."""
        return self.root / "online_store.db"

    def close(self) -> None:
        """Close the connections; does nothing when they were closed before."""
        if self._own is not None:
            self._own.close()
        self._close_store()

    def _close_store(self) -> None:
        stores, self._store, self._own_store = (self._store, self._own_store), None, None
        for store in stores:
            if store is not None:
                close_store(store)

    def uploaded(self) -> dict[str, pa.DataType]:
        """Return the types of the uploaded features, {} before an upload."""
        if not self.subjects.is_file():
            return {}
        return {
            field.name: field.type for field in pq.read_schema(self.subjects) if field.name not in (SUBJECT, TIMESTAMP)
        }

    def open(self) -> Any:
        """Return Feast's store, opened and with the views declared; seconds on first use."""
        if self._store is None:
            with quiet():
                feast = import_feast()
                self.write_repository()
                with locked(self.root / ".lock"):  # Feast reads the registry, changes it and writes it back
                    store = feast.FeatureStore(repo_path=str(self.root))
                    store.apply([_subject(), self.stream(), *([self.uploads()] if self.uploaded() else [])])
            self._store = store
        return self._store

    def _declared_here(self) -> Any:
        """Return a store that knows the views as this home declares them.

        A registry that machines share has the paths and columns of whoever declared last, and Feast goes on with what
        it read before when the database does not answer: rows would be written without their new columns.
        """
        if self.shared is None:
            return self.open()
        if self._own_store is None:
            with quiet():
                feast = import_feast()
                self.write_repository()
                with locked(self.root / ".lock"):
                    store = feast.FeatureStore(config=own_config(feast, self._settings, self.root))
                    store.apply([_subject(), self.stream(), *([self.uploads()] if self.uploaded() else [])])
            self._own_store = store
        return self._own_store

    def redeclare(self, *, empty_subjects: bool = False) -> None:
        """Take note of new uploads.

        Args:
            empty_subjects: remove every uploaded value from the online store first.
        """
        with quiet():
            if empty_subjects:
                store = self.open()
                stale = [view for view in store.list_feature_views() if view.name == self.subject_view]
                with locked(self.root / ".lock"):
                    store.apply([], objects_to_delete=stale, partial=False)
            self._close_store()
            self.open()

    def put(self, view: str, rows: pd.DataFrame) -> None:
        """Replace the online values of the subjects in `rows`, which hold all columns of `view`."""
        self.open()  # declares the views for whoever else reads them
        store = self._declared_here()
        if self.shared is not None and view == self.subject_view:
            self.shared.declare(sorted(self.uploaded()))
        # Feast leaves rows alone that hold nothing: the earlier values would stay
        empty = rows.drop(columns=[SUBJECT, TIMESTAMP]).isna().all(axis=1)
        for subject_id in rows[SUBJECT][empty]:
            self.erase(subject_id, (view,))
        rows = rows.loc[~empty, :]
        with quiet():
            for start in range(0, len(rows), ROWS_PER_WRITE):
                part = rows.iloc[start : start + ROWS_PER_WRITE]
                if view == self.stream_view:
                    store.push(f"{view}_push", part)
                else:
                    store.write_to_online_store(view, part)

    def as_of(self, asked: pd.DataFrame, features: list[str]) -> pa.Table:
        """Return the latest values at or before each row's time.

        Args:
            asked: [n] rows of ``subject_id`` and ``event_timestamp``.
            features: columns of the views, as ``view:column``.

        Returns:
            [n] rows in the same order, one column per feature, null where there was no value yet.
        """
        store = self._declared_here()
        parts: list[pa.Table] = []
        for start in range(0, len(asked), _ROWS_PER_QUESTION):
            part = asked.iloc[start : start + _ROWS_PER_QUESTION].reset_index(drop=True)
            part["_row"] = part.index
            with quiet():
                found = store.get_historical_features(entity_df=part, features=features).to_arrow()
            parts.append(found.sort_by("_row").select([name.partition(":")[2] for name in features]))
        return pa.concat_tables(parts)

    def erase(self, subject_id: str, views: Sequence[str] | None = None) -> int:
        """Remove the online values of `subject_id` in `views`, both when None, and return how many.

        Raises:
            ConnectionError: they stand in Redis, which does not answer.
        """
        views = views or (self.stream_view, self.subject_view)
        if self.shared is not None:
            with quiet():
                import_feast()
                return self.shared.erase(subject_id, views)
        if not self.online_path.is_file():
            return 0
        with quiet():
            import_feast()
            encoded = encoded_key(subject_id)
        removed = 0
        connection = open_sqlite(self.online_path, busy_s=_BUSY_S, synchronous="FULL")
        try:
            with connection:
                connection.execute("PRAGMA secure_delete=ON")
                known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                for table in {table_of(view) for view in views} & known:
                    removed += connection.execute(f'DELETE FROM "{table}" WHERE entity_key = ?', (encoded,)).rowcount
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the rows would stay readable in the WAL
        finally:
            connection.close()
        return removed

    def stream(self) -> Any:
        """Return the view of the stream."""
        columns: dict[str, pa.DataType] = {name: pa.float64() for name in STREAM_COLUMNS}
        return self._view(self.stream_view, columns, self.history.pattern, pushed=True)

    def uploads(self) -> Any:
        """Return the view of the uploads; there must have been one."""
        return self._view(self.subject_view, self.uploaded(), str(self.subjects))

    def write_repository(self) -> None:
        """Make the folder a Feast repository."""
        self.history.create()
        path, text = self.root / "feature_store.yaml", repository_of(self._settings)
        if not path.is_file() or path.read_text() != text:
            path.touch(mode=0o600 if self.shared is not None else 0o644)
            path.write_text(text)
        if self.shared is None:  # a push does not hold up the lookups of decisions
            open_sqlite(self.online_path, busy_s=_BUSY_S, synchronous="NORMAL").close()

    def _view(self, name: str, columns: Mapping[str, pa.DataType], path: str, *, pushed: bool = False) -> Any:
        from feast.data_format import ParquetFormat
        from feast.data_source import PushSource
        from feast.feature_view import FeatureView
        from feast.field import Field
        from feast.infra.offline_stores.file_source import FileSource
        from feast.types import Float64, String

        table = FileSource(name=f"{name}_table", path=path, timestamp_field=TIMESTAMP, file_format=ParquetFormat())
        kinds = {column: String if pa.types.is_string(kind) else Float64 for column, kind in columns.items()}
        return FeatureView(
            name=name,
            entities=[_subject()],
            schema=[Field(name=SUBJECT, dtype=String), *(Field(name=n, dtype=kind) for n, kind in kinds.items())],
            source=PushSource(name=f"{name}_push", batch_source=table) if pushed else table,
            ttl=timedelta(0),  # a value holds until the next one
            online=True,
        )


STREAM_SCHEMA = pa.schema(
    [
        pa.field(SUBJECT, pa.string()),
        pa.field(TIMESTAMP, pa.timestamp("us", "UTC")),
        *(pa.field(name, pa.float64()) for name in STREAM_COLUMNS),
    ]
)


def _subject() -> Any:
    from feast.entity import Entity
    from feast.value_type import ValueType

    return Entity(name="subject", join_keys=[SUBJECT], value_type=ValueType.STRING)


def table_of(view: str) -> str:
    """Return the table of a view in the online store."""
    return f"decision_{view}"
