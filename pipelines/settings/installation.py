"""The settings of an installation: the ``DECISION_`` variables, and the paths that follow from them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from decision.errors import FieldError, Words
from decision.options import Positive
from decision.validation import Checked, convert

LOOP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9!_.*'()=-]+)*/?\Z")
_ISSUER = re.compile(r"(https://[^/?#@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/[^?#\s]*)?")
_ONLINE = re.compile(r"rediss?://[^/?#\s]+(/\d{1,4})?")
_COLLECTOR = re.compile(r"https?://[^/?#@\s]+(/[^?#@\s]*)?")
BENTO_PORT_OFFSET = 10_000
"""How far BentoML's own port is from the service's where no setting says."""


class Settings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One installation.

    Attributes:
        home: folder of everything durable (``DECISION_HOME``).
        log: event log, ``local:`` (in the home folder) or ``kafka://host:port`` (``DECISION_LOG``).
        files: where lake, imports and the features' history are: "" for the home folder, or ``s3://bucket/prefix``
            (``DECISION_FILES``). Who reaches it and how stands in the ``AWS_`` variables.
        ack: what has a decision when it is answered: ``disk``, this machine's spool, or ``kafka``, all in-sync copies
            of the event log; ``kafka_unreplicated`` takes a log that is lost with a broker, too (``DECISION_ACK``).
        partitions: partitions of each topic when it is created (``DECISION_PARTITIONS``).
        host: address the service binds to (``DECISION_HOST``).
        port: its port (``DECISION_PORT``).
        bento_port: BentoML's own port, which answers the same; 0 for `port` and 10,000 more, or less where that is no
            port (``DECISION_BENTO_PORT``).
        workers: processes of the service (``DECISION_WORKERS``).
        tracking_uri: MLflow's address; "" for SQLite in the home folder (``DECISION_TRACKING_URI``).
        state: address of what all machines must agree on, ``postgresql://`` or ``sqlite:///path``: who is in charge,
            and the panels' database where it has no address of its own; "" for SQLite in the home folder
            (``DECISION_STATE``).
        log_format: form of log lines, ``text`` or ``json`` (``DECISION_LOG_FORMAT``).
        log_level: least severity of the service's log lines (``DECISION_LOG_LEVEL``).
        traces: address of an OpenTelemetry collector that takes OTLP over HTTP, as ``http://collector:4318``; "" for no
            traces (``DECISION_TRACES``). Headers that it asks for stand in ``OTEL_EXPORTER_OTLP_HEADERS``.
        traces_share: share of the requests that are traced where the caller does not say; one that sends a
            ``traceparent`` decides itself (``DECISION_TRACES_SHARE``).
        reload_s: seconds between looks for a new champion (``DECISION_RELOAD_S``).
        drain_s: seconds for which a service that ends goes on answering while it says that it is not ready, so that
            balancers stop sending to it (``DECISION_DRAIN_S``).
        grace_s: most seconds for which a service that has ended waits until its spool is forwarded
            (``DECISION_GRACE_S``).
        follow_s: seconds between the commits of `decision ingest --follow`; 0 for 1 with a local log, 30 with another
            (``DECISION_FOLLOW_S``).
        api_keys: keys that may change state, comma separated; "" for none, and then for requests to loopback only
            (``DECISION_API_KEYS``).
        oidc_issuer: OpenID Connect issuer whose bearer tokens are taken beside keys, as they name it in ``iss``: an
            https address; "" for none (``DECISION_OIDC_ISSUER``).
        oidc_audience: what tokens must name in ``aud``: this service, and no client of it (``DECISION_OIDC_AUDIENCE``).
        oidc_roles_claim: claim that holds roles, a list of words or a text of words: its name, or a JSON pointer
            such as ``/realm_access/roles`` (``DECISION_OIDC_ROLES_CLAIM``).
        oidc_roles_prefix: how the words that are roles here begin: ``decision:decide`` is the role ``decide``
            (``DECISION_OIDC_ROLES_PREFIX``).
        oidc_loops_claim: claim that holds the names of the loops that a token reaches; "" for all of its tenant
            (``DECISION_OIDC_LOOPS_CLAIM``).
        oidc_tenant_claim: claim that holds the tenant whose loops a token sees; a token without one is refused. "" for
            tokens that see the loops of all tenants (``DECISION_OIDC_TENANT_CLAIM``).
        oidc_per_second: requests a second that a worker takes of a token's subject, a burst of two seconds among them;
            0 for any (``DECISION_OIDC_PER_SECOND``).
        oidc_per_day: requests a day (UTC) that the installation takes of a subject; 0 for any
            (``DECISION_OIDC_PER_DAY``).
        online: what a request looks up and several machines share: ``redis://host:port/db``; "" for SQLite in the home
            folder (``DECISION_ONLINE``).
        governance: SQLAlchemy address of the panels' database; "" for that of `state`
            (``DECISION_GOVERNANCE``).
    """

    home: str = ".decision"
    log: str = "local:"
    ack: Literal["disk", "kafka", "kafka_unreplicated"] = "disk"
    files: str = ""
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 2
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    bento_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    tracking_uri: str = ""
    state: str = ""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    traces: str = ""
    traces_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    reload_s: Positive = 1.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=20)] = 0.0
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 20.0
    follow_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    api_keys: str = ""
    governance: str = ""
    online: str = ""
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_roles_claim: Annotated[str, msgspec.Meta(min_length=1)] = "roles"
    oidc_roles_prefix: Annotated[str, msgspec.Meta(min_length=1)] = "decision:"
    oidc_loops_claim: str = ""
    oidc_tenant_claim: str = ""
    oidc_per_second: Annotated[float, msgspec.Meta(ge=0, lt=1e9)] = 0.0
    oidc_per_day: Annotated[int, msgspec.Meta(ge=0)] = 0

    def _relations(self) -> None:
        if self.files and not _BUCKET.match(self.files):
            raise FieldError("files", wanted='"" for the home folder, or s3://bucket/prefix', got=self.files)
        if self.ack != "disk":
            if not self.log.startswith("kafka:"):
                raise FieldError("log", wanted=f"kafka://host:port, since ack is {self.ack}", got=self.log)
            if not self.online:
                raise FieldError("online", wanted=f"redis://host:port/db, since ack is {self.ack}", got=Words("empty"))
        if self.api_keys and not self.keys:
            raise FieldError("api_keys", wanted='"" for none, or keys with commas between them', got=Words("no key"))
        if self.oidc_issuer and not _ISSUER.fullmatch(self.oidc_issuer):
            wanted = "an https address, such as https://login.example.com/realms/main (http on loopback alone)"
            raise FieldError("oidc_issuer", wanted=wanted, got=self.oidc_issuer)
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            lacks, other = ("oidc_audience", "oidc_issuer") if self.oidc_issuer else ("oidc_issuer", "oidc_audience")
            raise FieldError(lacks, wanted=f"given, since {other} is", got=Words("empty"))
        if self.traces and not _COLLECTOR.fullmatch(self.traces):
            wanted = '"" for no traces, or a collector\'s address: http://host:port'
            raise FieldError("traces", wanted=wanted, got=Words("another address"))  # it may hold a password
        if self.bento_port == self.port:
            raise FieldError("bento_port", wanted=f"another port than port, {self.port}", got=self.bento_port)
        if self.online and not _ONLINE.fullmatch(self.online):
            wanted = '"" or redis://host:port/db (rediss:// for TLS)'
            raise FieldError("online", wanted=wanted, got=Words("another address"))  # it may hold a password

    @property
    def keys(self) -> list[bytes]:
        """The API keys, without the blanks around them."""
        return [key.strip().encode() for key in self.api_keys.split(",") if key.strip()]

    @property
    def frame_port(self) -> int:
        """The port that BentoML's own server listens on."""
        beside = self.port + BENTO_PORT_OFFSET
        return self.bento_port or (beside if beside <= 65535 else self.port - BENTO_PORT_OFFSET)

    @property
    def commits_every_s(self) -> float:
        """Seconds between the commits of a follower."""
        return self.follow_s or (1.0 if self.log == "local:" else 30.0)

    @property
    def root(self) -> Path:
        """The home folder, absolute."""
        return Path(self.home).expanduser().absolute()

    @property
    def spool_path(self) -> Path:
        """The local log every decision is written to before it is acknowledged."""
        return self.root / "log.db"

    @property
    def log_url(self) -> str:
        """Address of the event log that ingestion reads."""
        return f"local:{self.spool_path}" if self.log == "local:" else self.log

    @property
    def files_url(self) -> str:
        """Folder or address of the lake, the imports and the features' history."""
        return self.files.rstrip("/") or str(self.root)

    @property
    def lake_url(self) -> str:
        """Folder or address of the Delta tables."""
        return f"{self.files_url}/lake"

    @property
    def registry_uri(self) -> str:
        """Address of MLflow's store."""
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def state_url(self) -> str:
        """Address of State."""
        return self.state or f"sqlite:///{self.state_file}"

    @property
    def state_file(self) -> Path | None:
        """The file of State where no address says otherwise: beside an embedded MLflow's, else in the home folder."""
        if self.state:
            return None
        if not self.registry_uri.startswith("sqlite:///"):
            return self.root / "state.db"
        mlflow = Path(self.registry_uri.removeprefix("sqlite:///"))
        return mlflow.with_name("state.db") if mlflow.name == "mlflow.db" else mlflow.with_suffix(".state.db")

    def loop_path(self, name: str) -> Path:
        """Path of a loop's settings file.

        Raises:
            FieldError: `name` is no loop name.
        """
        return self.root / "loops" / check_loop_name(name) / "loop.toml"

    def anchors_path(self, name: str) -> Path:
        """Path where an earlier release published a loop's upheld pairs, which the service clamps around.

        Raises:
            FieldError: `name` is no loop name.
        """
        return self.root / "fairness" / f"{check_loop_name(name)}.json"


def check_loop_name(name: str) -> str:
    """Return `name`, which ends up in paths and topics.

    Raises:
        FieldError: it is not 1 to 64 lower-case letters, digits, "-" and "_".
    """
    if not LOOP_NAME.fullmatch(name):
        raise FieldError("loop", wanted='1 to 64 lower-case letters, digits, "-" or "_"', got=name)
    return name


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the installation's settings: defaults, then the environment, then `overrides` that are not None.

    Raises:
        FieldError: a ``DECISION_`` variable that is no setting, or a value that does not fit; names the variable.
    """
    environ = os.environ if environ is None else environ
    known = {f"DECISION_{field.name.upper()}": field.name for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith("DECISION_") or variable.startswith(("DECISION_LOOP_", "DECISION_KAFKA_CACHE")):
            continue
        if variable not in known:
            raise FieldError.unknown(variable, list(known), noun="variable")
        values[known[variable]] = text
        variables[known[variable]] = f"variable {variable}"
    for key, value in overrides.items():
        if value is not None:
            values[key] = value
            variables.pop(key, None)
    try:
        return convert(values, Settings, strict=False)
    except FieldError as error:
        raise from_variable(error, variables) or error from None


def from_variable(error: FieldError, variables: Mapping[str, str]) -> FieldError | None:
    """Return the error with the variable that set its field, None when none did."""
    for setting, source in variables.items():
        if error.field == setting or error.field.startswith((f"{setting}.", f"{setting}[")):
            return error.from_source(source)
    return None
