"""The connection to MLflow: opened late, safely from several processes, and quiet; the only file that imports it.

MLflow takes seconds to import and, on a new database, seconds more to make its tables. Nothing here is done before
a call needs it, and nothing leaves this machine but what the configured store is told.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.files import hindrance, locked, make_home, make_private
from pipelines.registry.cache import check_names, read_folder
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MODELS = "models"
"""Folder of the home folder with the files of an embedded store."""
_NOTE = "mlflow.note.content"
"""Tag that MLflow's pages show as a run's description."""
CARD_FOLDER, CARD_FILE = "card", "model_card.md"
_VERSIONS = "alembic_version"
_TABLES = ("experiments", "runs", "registered_models", "model_versions")
"""Some of MLflow's, without which nothing can be registered."""
_FOUND = re.compile(r"found version (\w{1,40}), but expected")
_MIGRATIONS = "store/db_migrations/versions"
_PER_CALL = 100  # MLflow's limit of entries in one log_batch
_OTHERS_TABLES = (
    "its tables are not those of the MLflow that is installed: restore it from a backup, or bring it up to date with "
    "`mlflow db upgrade`, after a backup; what is in charge is served on meanwhile"
)
_REMEDIES = {  # by what the database says, or MLflow of its tables
    "is locked": "end what holds it: `fuser` names that",
    "not a database": "restore it from a backup; what is in charge is served on meanwhile",
    "malformed": "restore it from a backup; what is in charge is served on meanwhile",
    "no such table": _OTHERS_TABLES,
    "no such column": _OTHERS_TABLES,
    "already exists": _OTHERS_TABLES,
    "does not exist": _OTHERS_TABLES,
    "out-of-date": _OTHERS_TABLES,
    "Can't locate revision": (
        "a later release of MLflow made its tables: install that release, or restore a backup of before; what is in "
        "charge is served on meanwhile"
    ),
    "readonly": "the file was replaced or moved while it was open: start again what has it open",
}


def moved(uri: str, models: Path) -> str:
    """Return the address of files below a home's `MODELS` as it is below another one, ``models``."""
    before, found, rest = uri.rpartition(f"/{MODELS}/")
    return f"{models.as_uri()}/{rest}" if before and found else uri


class RegistryError(RuntimeError):
    """The registry cannot be reached or does not hold what was asked for."""


class MissingError(RegistryError):
    """The registry answers, and holds no such loop or version."""


class Tracking:
    """MLflow's client, its errors mapped, with the few operations the registry is made of; safe between threads.

    Args:
        settings: the installation; its `registry_uri` is a database (then files go to the home folder) or a server.
    """

    def __init__(self, settings: Settings) -> None:
        self._uri = settings.registry_uri
        self._root = settings.root
        self._client: MlflowClient | None = None
        self._opening = threading.Lock()

    @property
    def database(self) -> Path | None:
        """The SQLite file of an embedded store."""
        return Path(self._uri.removeprefix("sqlite:///")) if self._uri.startswith("sqlite:///") else None

    @property
    def exists(self) -> bool:
        """Whether there can be anything in the store: an embedded database that no one has made yet holds nothing."""
        return self.database is None or self.database.exists()

    def warm(self) -> None:
        """Import MLflow; connects to nothing."""
        _quieten()
        import mlflow  # noqa: F401  # pyright: ignore[reportUnusedImport]

    @contextmanager
    def client(self) -> Iterator[MlflowClient]:
        """Yield the client.

        Raises:
            MissingError: inside, MLflow did not find what was named.
            RegistryError: inside, anything else went wrong between here and MLflow's store.
        """
        with self._opening:
            if self._client is None:
                self._client = self._connect()
        with self._mapped():
            yield self._client

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name` against the other processes and threads that share the home folder."""
        make_home(self._root)
        with locked(self._root / f"{name}.lock"):
            yield

    def new_run(self, loop: str) -> str:
        """Return the id of a new run in the loop's experiment."""
        with self.client() as client:
            experiment = client.get_experiment_by_name(loop)
            if experiment is None:
                with self.lock("registry"):
                    experiment = client.get_experiment_by_name(loop)
                    identity = experiment.experiment_id if experiment else self._new_experiment(client, loop)
            else:
                identity = experiment.experiment_id
            return client.create_run(identity).info.run_id

    def upload(self, run_id: str, folder: str, files: Mapping[str, bytes]) -> None:
        """Store `files` in the folder `folder` of a run's artifacts."""
        check_names({name: len(data) for name, data in files.items()})
        with self.client() as client, tempfile.TemporaryDirectory(prefix="register-") as made:
            for name, data in files.items():
                (Path(made) / name).write_bytes(data)
            self._artifacts(client, run_id).log_artifacts(made, folder)

    def download(self, run_id: str, folder: str) -> dict[str, bytes]:
        """Return the files in the folder `folder` of a run's artifacts.

        Raises:
            FieldError: they pass the limits of `check_names`; asked of the store before anything is fetched.
        """
        with self.client() as client:
            artifacts = self._artifacts(client, run_id)
            listed = artifacts.list_artifacts(folder)
            check_names({entry.path.removeprefix(f"{folder}/"): entry.file_size or 0 for entry in listed})
            with tempfile.TemporaryDirectory(prefix="fetch-") as made:
                return read_folder(Path(artifacts.download_artifacts(folder, made)))

    def size(self, run_id: str) -> int:
        """Return the bytes of a run's artifacts; 0 where it is gone."""
        try:
            with self.client() as client:
                artifacts, left, size = self._artifacts(client, run_id), [""], 0
                while left:
                    for entry in artifacts.list_artifacts(left.pop() or None):
                        left += [entry.path] if entry.is_dir else []
                        size += entry.file_size or 0
                return size
        except MissingError:
            return 0

    def remove(self, loop: str, version: str, run_id: str) -> None:
        """Remove a version and its run: artifacts, metrics, params and tags; what is gone already is passed over.

        A server keeps the run's numbers, marked as deleted, until its own `mlflow gc`.
        """
        with suppress(MissingError), self.client() as client:
            artifacts = self._artifacts(client, run_id)
            if artifacts.list_artifacts():
                artifacts.delete_artifacts()
            if self.database is not None:
                with suppress(OSError):  # what stood beside the artifacts stays
                    (self._root / MODELS / loop / run_id).rmdir()
        with suppress(MissingError), self.client() as client:
            client.delete_model_version(loop, version)
        with suppress(MissingError), self.client() as client:
            client.delete_run(run_id)
            if self.database is not None:  # `mlflow gc` would look for files where the home folder once was
                client._tracking_client.store._hard_delete_run(run_id)

    def describe(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any], plots: Mapping[str, bytes]
    ) -> None:
        """Add finite metrics, params and plots to a run."""
        with self.client() as client:
            from mlflow.entities import Metric, Param

            now = int(datetime.now(UTC).timestamp() * 1000)
            finite = [(name, float(value)) for name, value in metrics.items() if value - value == 0]
            entries = [Metric(name, value, now, 0) for name, value in finite]
            texts = [Param(name, str(value)) for name, value in params.items()]
            for start in range(0, max(len(entries), len(texts)), _PER_CALL):
                end = start + _PER_CALL
                client.log_batch(run_id, metrics=entries[start:end], params=texts[start:end])
        if plots:
            self.upload(run_id, "plots", plots)

    def note(self, run_id: str, text: str, card: str) -> None:
        """Say what a run is, in words, and keep a card beside its files."""
        with self.client() as client:
            client.set_tag(run_id, _NOTE, text)
        self.upload(run_id, CARD_FOLDER, {CARD_FILE: card.encode()})

    def noted(self, run_id: str) -> tuple[str, str]:
        """Return what `note` kept, "" for nothing."""
        with self.client() as client:
            text = client.get_run(run_id).data.tags.get(_NOTE, "")
        return text, self.download(run_id, CARD_FOLDER).get(CARD_FILE, b"").decode() if text else ""

    def new_version(self, loop: str, run_id: str, folder: str, tags: dict[str, str]) -> str:
        """Make the folder `folder` of a run the next version of the registered model `loop`, and return its number."""
        with self.client() as client:
            from mlflow.exceptions import MlflowException

            try:
                client.create_registered_model(loop)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            client.set_terminated(run_id)
            source = f"{self._uri_of(client, run_id)}/{folder}"
            return str(client.create_model_version(loop, source=source, run_id=run_id, tags=tags).version)

    def models(self, loop: str) -> list[Any]:
        """Return MLflow's model versions of `loop`, oldest first."""
        found: list[Any] = []
        if not self.exists:
            return found
        with self.client() as client:
            token: str | None = None
            while token is None or token:
                page = client.search_model_versions(f"name='{loop}'", max_results=1000, page_token=token)
                found.extend(page)
                token = page.token or ""
        return sorted(found, key=lambda model: int(model.version))

    def model_names(self) -> list[str]:
        """Return the names of all registered models."""
        found: list[str] = []
        with self.client() as client:
            token: str | None = None
            while token is None or token:
                page = client.search_registered_models(max_results=1000, page_token=token)
                found.extend(model.name for model in page)
                token = page.token or ""
        return found

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise MissingError(_words(error)) from error
            raise RegistryError(self._told(error)) from error
        except (SQLAlchemyError, CommandError, OSError) as error:
            raise RegistryError(self._told(error)) from error

    def _told(self, error: BaseException) -> str:
        """Return what happened, and what to do about it where that is known."""
        words = _words(error)
        found = _FOUND.search(words)
        if found is not None and found[1] not in _revisions():  # MLflow says of every other revision that it is older
            words = f"Can't locate revision identified by '{found[1]}'"
        remedy = next((r for said, r in _REMEDIES.items() if said in words), "")
        if self.database is not None:
            words = f"{self.database}: {words}"
            if not self.database.is_file():
                remedy = f"the file is gone: restore it from a backup, with the folder {self._root / MODELS}"
            elif not os.access(self.database, os.R_OK | os.W_OK):
                remedy = f"{self.database} is closed to the user who runs this: give it to him"
            else:
                remedy = hindrance(self._root) or remedy
        return f"{words}; {remedy}" if remedy else words

    def examine(self) -> None:
        """Look at an embedded database as it is, without MLflow, which would make its tables or change them.

        Raises:
            RegistryError: it is no database, closed to this user, or has tables of MLflow that the installed one does
                not read; says what to do.
        """
        if self.database is None or not self.database.exists():
            return
        try:
            # to write, too: MLflow's own process, killed in a commit, left what the next one has to take back
            with closing(sqlite3.connect(f"{self.database.absolute().as_uri()}?mode=rw", uri=True)) as database:
                tables = {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master")}
                if _VERSIONS not in tables:
                    return  # nothing of MLflow's: it makes its tables beside what is there
                for table in _TABLES:
                    if table not in tables:
                        raise sqlite3.OperationalError(f"no such table: {table}")
                known = _revisions()
                for (revision,) in database.execute(f"SELECT version_num FROM {_VERSIONS}"):
                    if known and str(revision) not in known:
                        raise sqlite3.OperationalError(f"Can't locate revision identified by {str(revision)[:40]!r}")
        except sqlite3.Error as error:
            raise RegistryError(self._told(error)) from error

    def _artifacts(self, client: MlflowClient, run_id: str) -> ArtifactRepository:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._uri_of(client, run_id), tracking_uri=self._uri)

    def _uri_of(self, client: MlflowClient, run_id: str) -> str:
        """Return where a run's files are, also after the home folder was moved with the database in it.

        MLflow keeps the whole path of the folder in which the experiment was made.
        """
        known = client.get_run(run_id).info.artifact_uri or ""
        moves = self.database is not None and self.database.absolute().is_relative_to(self._root)
        if not moves or not known.startswith("file:"):
            return known
        return moved(known, self._root / MODELS)

    def _new_experiment(self, client: MlflowClient, loop: str) -> str:
        # A server knows where its files go; a bare database does not.
        served = self._uri.startswith(("http://", "https://"))
        return client.create_experiment(
            loop, artifact_location=None if served else (self._root / MODELS / loop).as_uri()
        )

    def _connect(self) -> MlflowClient:
        _quieten()
        # Two processes that meet an empty database would both make its tables, and one of them would fail.
        with self.lock("mlflow"), self._mapped():
            if self.database is not None:
                make_private(self.database)
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its errors are told of in one line
            return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)


def _words(error: BaseException) -> str:
    """Return what a database said at the bottom of an error, or the first line of the error itself."""
    if isinstance(error, sqlite3.Error):
        return " ".join(str(error).split())
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return " ".join(str(cause.orig).split())
        cause = cause.__cause__
    return str(error).partition("\n")[0]


def _revisions() -> set[str]:
    """Return the revisions of tables that the installed MLflow knows; its files are named by them."""
    found = find_spec("mlflow")
    folder = None if found is None or found.origin is None else Path(found.origin).parent / _MIGRATIONS
    return set() if folder is None else {path.name.partition("_")[0] for path in folder.glob("*_*.py")}


def _quieten() -> None:
    # Before the import, because MLflow reads most of these once; a value that the operator has set stays.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }.items():
        os.environ.setdefault(name, value)
