"""The one place for settings: an installation's, and each loop's ``loop.toml``.

Values come from the file, environment variables override them, and what does not fit names the file or variable, the
key, what fits, and what was probably meant. Bounds and defaults that the core shares are in `decision.options`.
Installation: ``DECISION_HOME``, ``DECISION_LOG``, ... (one per field of `Settings`). Loop:
``DECISION_LOOP_<NAME>__<SECTION>__<KEY>``, the loop's name in capitals with "-" as "_".
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from decision.errors import FieldError, Words, nearest_of
from decision.fairness.rule import Rule
from decision.guard.rules import GuardRules
from decision.options import (
    PASSES,
    SESSION,
    Auditors,
    Average,
    Bag,
    Count,
    DataRules,
    Decay,
    DriftBatch,
    ErrorRate,
    Generations,
    Importance,
    NotNegative,
    OracleKind,
    Passes,
    PolicySettings,
    Positive,
    Quorum,
    SessionRules,
    Share,
    Spacing,
)
from decision.records import Mode
from decision.validation import Checked, convert

LOOP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FORMER = {("training", "candidates"): "variants"}
"""Keys of a loop's file that have other names now."""
MAX_FILE_BYTES = 1 << 20
BENTO_PORT_OFFSET = 10_000
"""How far BentoML's own port is from the service's where no setting says."""
_GUARD, _PANEL = GuardRules(), Rule()


class RewardSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How outcomes become a reward.

    Attributes:
        outcome: name of the outcome that is aggregated.
        window_s: how long after a decision outcomes count, in seconds.
        default: reward of a decision without an outcome in its window.
        aggregation: how several outcomes become one number.
        minimum: smallest possible reward; smaller ones are cut to it. Without it, a training learns it from the
            rewards it sees.
        maximum: largest possible reward, likewise.
        version: name of this definition, stored with every row; change it when you change the definition.
        others: names of outcomes that are recorded beside it and change no reward. With any listed, an outcome of
            another name is refused; without, it is counted as doubtful.
        activates: a reward activates its deferred decision, all slots of it; without, only an outcome named
            ``activation`` does.
    """

    outcome: str = "reward"
    window_s: Positive = 600.0
    default: float = 0.0
    aggregation: Literal["sum", "earliest", "latest", "min", "max", "mean"] = "sum"
    minimum: float | None = None
    maximum: float | None = None
    version: str = "1"
    others: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...], msgspec.Meta(max_length=100)
    ] = ()
    activates: bool = True

    def _relations(self) -> None:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not low < high:
            raise FieldError("maximum", wanted=f"above minimum = {low}", got=high)
        if low is not None and self.default < low:
            raise FieldError("default", wanted=f"at least minimum = {low}", got=self.default)
        if high is not None and self.default > high:
            raise FieldError("default", wanted=f"at most maximum = {high}", got=self.default)


class BaselineSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference that the policy is measured against, and that decides when there is no policy.

    Attributes:
        kind: ``uniform``, ``first`` for the first action offered (the application's own choice), or ``auto``, which is
            ``first`` in apprentice mode and ``uniform`` otherwise.
        explore: share of uniform draws mixed into the baseline while it answers online, so that there is something to
            learn from the first request on: Personalizer's exploration percentage, divided by 100. Other modes return
            what the baseline says.
    """

    kind: Literal["auto", "uniform", "first"] = "auto"
    explore: Share = 0.2


class Variant(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What another configuration of a training does differently; what is not given is as in the loop's settings.

    Attributes:
        oracle: see `PolicySettings`.
        interactions: see there.
        ridge: see there.
        learning_rate: see there.
        bag: see there.
        generations: see `TrainingSettings`.
        decay: see there.
        reservoir: see there.
        importance: see there.
        average: see there.
        warm_start: see there.
        passes: see there.
    """

    oracle: OracleKind | None = None
    interactions: bool | None = None
    ridge: Positive | None = None
    learning_rate: Positive | None = None
    bag: Bag | None = None
    generations: Generations | None = None
    decay: Decay | None = None
    reservoir: Generations | None = None
    importance: Importance | None = None
    average: Average | None = None
    warm_start: bool | None = None
    passes: Passes | None = None


class TrainingSettings(DataRules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a generation learns from.

    Attributes:
        days: how far back interactions are looked at, in days before the newest; 0 for all.
        sample: how many decisions after which nothing happened are learned from at most, and how many of the others:
            of more, a sample is taken in which every row counts as often as it has to; 0 for all. It bounds the memory
            of a training whose oracle is not ``logistic``.
        window: former setting: look at this many of the latest interactions, whatever their age, in place of `days`;
            0 for all.
        passes: times the ``vw`` oracle goes through the data.
        holdout: share of the interactions kept out of training for evaluation and the gate.
        minimum: interactions below which no generation is trained.
        variants: further configurations, as ``[{decay = 1.0}, {oracle = "vw"}]``: each learns from all but the
            newest generation, and the one that predicts that best is trained on everything and goes to the gate.
    """

    days: NotNegative = 90.0
    sample: Annotated[int, msgspec.Meta(ge=0)] = 500_000
    window: Annotated[int, msgspec.Meta(ge=0)] | None = None
    passes: Passes = PASSES
    holdout: Annotated[float, msgspec.Meta(gt=0, lt=0.9)] = 0.2
    minimum: Count = 200
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(max_length=16)] = ()


class GateSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a candidate is promoted.

    Attributes:
        alpha: error probability, between two proven versions, of letting one take over that loses more than the margin.
        share: of what the champion and the last proven version gain over the baseline, so much may be lost; 0 asks for
            a proven gain.
        margin: in place of `share`, so many reward units may be lost; left out, `share` decides.
        minimum_ess: smallest effective sample size on which a verdict is given.
        session_steps: for a policy with memory: first decisions of each user that are weighed as one trajectory.
    """

    alpha: ErrorRate = 0.05
    share: Share = 0.05
    margin: NotNegative | None = None
    minimum_ess: Positive = 50.0
    session_steps: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


class FeatureSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Online features, looked up by ``subject_id`` at decision time.

    Attributes:
        enabled: look features up and log the snapshot.
        stream: push decayed statistics of each subject's outcomes back as features.
        half_life_s: half-life of those statistics, in seconds.
        cache_s: how long what was looked up for a subject may be served again, in seconds, where nobody has written to
            the store meanwhile; 0 for not at all.
    """

    enabled: bool = False
    stream: bool = True
    half_life_s: Positive = 3600.0
    cache_s: NotNegative = 10.0


class GuardSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version that passed the gate is rolled out: mixed in only as far as the evidence allows.

    Attributes:
        enabled: the gate makes a version the candidate, and the guard decides what becomes of it; without, the gate
            makes it the champion.
        alpha: share of the expected reward of the policy in charge that may be given up; also the weight that a
            candidate gets without evidence.
        delta: error probability of each test: of serving a weight that breaks the promise, of stopping a candidate
            that is no worse, of promoting one that is no better.
        holdout: share that the policy in charge keeps at the top, so that it stays measurable.
        spacing: distance between weights.
        cap: largest weight that is served; below the top a candidate is never promoted.
        ttl_s: how long a published weight holds, in seconds. Then the candidate gets alpha at most, and nothing ten
            times later: choose it longer than the time between two runs of `decision guard`.
        batch: decisions between two looks of the drift detector.
        segment: path of a context field, dotted, whose listed values have weights of their own; "" for one weight.
        segments: those values, at most 16; all others share a weight. The error is shared evenly.
        unit: what is drawn from the mixture at once: each `decision`, or by one coin all of a `slate` (the slots of a
            request, whose rewards are averaged) or of an `episode` (the requests of an ``episode_id``, pinned to the
            versions and the weight at its first one, whose rewards are added).
        episode_s: how long after its first decision an episode is over, in seconds.
        episode_maximum: largest sum of the rewards of an episode; what is above is cut.
    """

    enabled: bool = False
    alpha: ErrorRate = _GUARD.alpha
    delta: ErrorRate = _GUARD.delta
    holdout: ErrorRate = 0.05
    spacing: Spacing = _GUARD.spacing
    cap: Share = 1.0
    ttl_s: Positive = 90_000.0
    batch: DriftBatch = _GUARD.batch
    segment: Annotated[str, msgspec.Meta(max_length=200)] = ""
    segments: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(max_length=16)
    ] = ()
    unit: Literal["decision", "slate", "episode"] = "decision"
    episode_s: Positive = 1800.0
    episode_maximum: Positive = 1.0

    def _relations(self) -> None:
        if bool(self.segment) != bool(self.segments):
            wanted = "given where segment names a field, and only there"
            raise FieldError("segments", wanted=wanted, got=self.segments)
        if len(set(self.segments)) != len(self.segments):
            raise FieldError("segments", wanted="values that differ from each other", got=self.segments)


class FairnessSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The panel of auditors who review pairs of similar people treated differently.

    Attributes:
        enabled: pairs are mined for the panel; upheld ones cost in training and count at the gate.
        protected: names of context features that auditors never see and similarity never uses: protected attributes,
            names, ids. A name hides every feature with it anywhere in its path.
        treatment: the compared action in words, as auditors read it; it should not be the name of an action.
        action: the action whose probability is compared; "" for whichever differs most.
        unit: what is compared: the probability of an `action`, or its `exposure` over the slots of a decision.
        auditors: members drawn for each pair.
        quorum: share of those who judged that must see a violation.
        sensitivity: what a gap must exceed the largest acceptable one by.
        minimum: judgements without which a panel gives no verdict.
        deadline_s: time to judge a pair, in seconds.
        cost: multiplier of the upheld pairs' penalty at the start of a training; raised while their gaps stay.
        standing: share of the upheld pairs that may still violate when a version is promoted.
        rate: largest violation rate among near pairs that the probe's upper bound may reach at the gate.
        evidence: judged probe pairs without which the gate says that the evidence is too little.
        agreement: Krippendorff's alpha of the panel without which it says the same.
        clamp: keep upheld pairs alike at decision time too: requests that look like one of their people are answered
            with probabilities within what the panel accepts.
    """

    enabled: bool = False
    protected: tuple[str, ...] = ()
    treatment: str = "being given the treatment under review"
    action: str = ""
    unit: Literal["action", "exposure"] = "action"
    auditors: Auditors = _PANEL.auditors
    quorum: Quorum = _PANEL.quorum
    sensitivity: Share = _PANEL.sensitivity
    minimum: Auditors = _PANEL.minimum
    deadline_s: Positive = _PANEL.deadline_s
    cost: Positive = 8.0
    standing: Share = 0.02
    rate: Share = 0.05
    evidence: Annotated[int, msgspec.Meta(ge=0)] = 300
    agreement: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.2
    clamp: bool = False

    def _relations(self) -> None:
        if self.minimum > self.auditors:
            raise FieldError("minimum", wanted=f"at most auditors = {self.auditors}", got=self.minimum)


class LoopSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One loop: a decision point with its actions, reward definition, baseline, policy and gate.

    Attributes:
        name: the loop's name, that of its folder.
        mode: what is returned: the drawn action (``online``), or the baseline's while the policy's distribution is
            logged beside it (``apprentice``) or is not asked for (``logging_only``).
        deferred: a decision counts only once an outcome named ``activation`` was reported for it.
        reward: how outcomes become a reward.
        baseline: the reference policy.
        policy: oracle and exploration rule of newly trained policies.
        training: what a generation learns from.
        session: how a policy with memory is trained, where the oracle is `session`.
        gate: when a candidate is promoted.
        guard: how a candidate is rolled out.
        features: online features, looked up at decision time.
        fairness: the panel of auditors, and what their verdicts change.
    """

    name: str
    mode: Mode = "online"
    deferred: bool = False
    reward: RewardSettings = RewardSettings()
    baseline: BaselineSettings = BaselineSettings()
    policy: PolicySettings = PolicySettings()
    training: TrainingSettings = TrainingSettings()
    session: SessionRules = SessionRules()
    gate: GateSettings = GateSettings()
    guard: GuardSettings = GuardSettings()
    features: FeatureSettings = FeatureSettings()
    fairness: FairnessSettings = FairnessSettings()

    @property
    def reference(self) -> Literal["uniform", "first"]:
        """The kind of the baseline."""
        if self.baseline.kind == "auto":
            return "first" if self.mode == "apprentice" else "uniform"
        return self.baseline.kind

    def _relations(self) -> None:
        if self.guard.unit == "episode" and self.reward.minimum not in (None, 0.0):
            wanted = f"'decision' or 'slate' where reward.minimum is {self.reward.minimum}, not 0"
            raise FieldError("guard.unit", wanted=wanted, got=self.guard.unit)
        if self.policy.oracle == SESSION:
            self._session_relations()

    def _session_relations(self) -> None:
        if self.policy.exploration != "softmax":
            wanted = "'softmax' where policy.oracle is 'session', whose head is one"
            raise FieldError("policy.exploration", wanted=wanted, got=self.policy.exploration)
        if not self.features.enabled:
            wanted = "true where policy.oracle is 'session': memories are looked up like features"
            raise FieldError("features.enabled", wanted=wanted, got=Words("false"))
        if self.training.variants:
            wanted = "empty where policy.oracle is 'session'; session.also names further methods"
            raise FieldError("training.variants", wanted=wanted, got=Words("given"))


class Settings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One installation.

    Attributes:
        home: folder of everything durable (``DECISION_HOME``).
        log: event log, ``local:`` (in the home folder) or ``kafka://host:port`` (``DECISION_LOG``).
        partitions: partitions of each topic when it is created (``DECISION_PARTITIONS``).
        host: address the service binds to (``DECISION_HOST``).
        port: its port (``DECISION_PORT``).
        bento_port: BentoML's own port, which answers the same; 0 for `port` and 10,000 more, or less where that is no
            port (``DECISION_BENTO_PORT``).
        workers: processes of the service (``DECISION_WORKERS``).
        tracking_uri: MLflow's address; "" for SQLite in the home folder (``DECISION_TRACKING_URI``).
        log_format: form of log lines, ``text`` or ``json`` (``DECISION_LOG_FORMAT``).
        log_level: least severity of the service's log lines (``DECISION_LOG_LEVEL``).
        reload_s: seconds between looks for a new champion (``DECISION_RELOAD_S``).
        api_keys: keys that may change state, comma separated; none binds to loopback only (``DECISION_API_KEYS``).
        governance: SQLAlchemy address of the panels' database; "" for SQLite in the home folder
            (``DECISION_GOVERNANCE``).
    """

    home: str = ".decision"
    log: str = "local:"
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 2
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    bento_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    tracking_uri: str = ""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    reload_s: Positive = 1.0
    api_keys: str = ""
    governance: str = ""

    def _relations(self) -> None:
        if self.bento_port == self.port:
            raise FieldError("bento_port", wanted=f"another port than port, {self.port}", got=self.bento_port)

    @property
    def frame_port(self) -> int:
        """The port that BentoML's own server listens on."""
        beside = self.port + BENTO_PORT_OFFSET
        return self.bento_port or (beside if beside <= 65535 else self.port - BENTO_PORT_OFFSET)

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
    def lake_path(self) -> Path:
        """Folder of the Delta tables."""
        return self.root / "lake"

    @property
    def registry_uri(self) -> str:
        """Address of MLflow's store."""
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    def loop_path(self, name: str) -> Path:
        """Path of a loop's settings file.

        Raises:
            FieldError: `name` is no loop name.
        """
        return self.root / "loops" / check_loop_name(name) / "loop.toml"

    def guard_path(self, name: str) -> Path:
        """Path of a loop's published guard snapshot; the guard's state lies beside it.

        Raises:
            FieldError: `name` is no loop name.
        """
        return self.root / "guard" / f"{check_loop_name(name)}.json"

    def anchors_path(self, name: str) -> Path:
        """Path of a loop's published upheld pairs, which the service clamps around.

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
        raise _from_variable(error, variables) or error from None


def load_loop(settings: Settings, name: str, environ: Mapping[str, str] | None = None) -> LoopSettings:
    """Return the settings of the loop `name`.

    Raises:
        FieldError: the loop does not exist, its file cannot be read, or it or the environment holds a key or value that
            does not fit; names the loop, the file and the key.
    """
    path = settings.loop_path(name)
    if not path.exists():
        raise _no_loop(name, list_loops(settings))
    try:
        return parse_loop(_read(path), name, os.environ if environ is None else environ)
    except FieldError as error:
        raise (error if error.source else error.from_source(f"loop {name!r}, {path}")) from None


def load_loops(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, LoopSettings], dict[str, str]]:
    """Return the settings of the loops that can be read, and why the others cannot, each by the loop's name."""
    loops: dict[str, LoopSettings] = {}
    errors: dict[str, str] = {}
    for name in list_loops(settings):
        try:
            loops[name] = load_loop(settings, name, environ)
        except FieldError as error:
            errors[name] = str(error)
    return loops, errors


def parse_loop(text: str, name: str, environ: Mapping[str, str]) -> LoopSettings:
    """Return the loop settings in the TOML `text`, overridden by `environ`.

    Raises:
        FieldError: as `load_loop`.
    """
    values = _parsed(text)
    values.setdefault("name", name)
    if values["name"] != name:
        raise FieldError("name", wanted=f"{name!r}, the name of its folder", got=values["name"])
    _renamed(values)
    _check_keys(values, LoopSettings, "")
    variables = _override(values, name, environ)
    try:
        return convert(values, LoopSettings)
    except FieldError as error:
        raise _from_variable(error, variables) or error from None


def list_loops(settings: Settings) -> list[str]:
    """Return the names of the installation's loops, sorted; also of those whose file cannot be read."""
    return sorted(path.parent.name for path in (settings.root / "loops").glob("*/loop.toml"))


def setting_names(kind: type[msgspec.Struct] = LoopSettings, path: str = "") -> list[str]:
    """Return the paths of all settings of a loop, as in ``gate.alpha``."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        section = _section(field.type)
        found += [f"{path}{field.name}"] if section is None else setting_names(section, f"{path}{field.name}.")
    return found


def unknown_setting(key: str) -> FieldError:
    """Return the error of a setting that does not exist, with the one that was probably meant, in any section."""
    section, dot, leaf = key.rpartition(".")
    paths = setting_names()
    beside = [path.removeprefix(f"{section}{dot}") for path in paths if path.startswith(f"{section}{dot}")]
    known = list(dict.fromkeys(name.partition(".")[0] for name in beside))
    near = nearest_of(leaf, known)
    if near is not None:
        nearest: str | None = f"{section}{dot}{near}"
    else:
        nearest = next((path for path in paths if path.rpartition(".")[2] == leaf), None) or nearest_of(key, paths)
    return FieldError.unknown(key, known, nearest=nearest, noun="setting")


def _renamed(values: dict[str, Any]) -> None:
    """Give a section's former keys their present names, so that a file of an earlier release still reads."""
    for (section, former), present in _FORMER.items():
        found = values.get(section)
        if isinstance(found, dict) and former in found and present not in found:
            found[present] = found.pop(former)


def _no_loop(name: str, known: list[str]) -> FieldError:
    if known:
        return FieldError.choice("loop", known, name)
    says = f"there is no loop {name!r}, nor any other; `decision init {name}` makes it"
    return FieldError("loop", wanted="a loop that exists", got=name, says=says)


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise FieldError("file", wanted="a file", got=Words("a folder" if path.is_dir() else "a pipe or device"))
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FieldError("file", wanted=f"at most {MAX_FILE_BYTES:,} bytes", got=path.stat().st_size)
        data = path.read_bytes()
        return data.decode()
    except OSError as error:
        raise FieldError("file", wanted="readable", got=error, says=f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        says = f"must be UTF-8, is not at byte {error.object[error.start]:#04x}"
        raise FieldError(f"line {line}", wanted="UTF-8", got=error, says=says) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise FieldError("file", wanted="TOML that is nested less deeply", got=Words("deeper")) from error
    except ValueError as error:  # TOMLDecodeError, and numbers of thousands of digits
        message, _, place = str(error).rpartition(" (at ")
        line = re.fullmatch(r"line (\d+), column \d+\)", place)
        field = f"line {line[1]}" if line else "file"
        says = f"must be valid TOML: {message or error}"
        raise FieldError(field, wanted="valid TOML", got=error, says=says) from error


def _check_keys(values: dict[str, Any], kind: type[msgspec.Struct], path: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in fields:
            raise unknown_setting(f"{path}{key}")
        section = _section(fields[key])
        if isinstance(value, dict) and section is not None:
            _check_keys(value, section, f"{path}{key}.")


def _override(values: dict[str, Any], name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Put the variables of the loop `name` over `values`; return {setting: how errors name its variable}."""
    prefix = f"DECISION_LOOP_{name.upper().replace('-', '_')}__"
    variables: dict[str, str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(prefix):
            continue
        path = variable.removeprefix(prefix).lower().split("__")
        setting, source = ".".join(path), f"loop {name!r}, variable {variable}"
        try:
            kind = _setting_type(path)
        except FieldError as error:
            raise error.from_source(source) from None
        variables[setting] = source
        target: Any = values
        for section in path[:-1]:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if isinstance(target, dict):  # else the file holds a wrong value there, which is told of first
            target[path[-1]] = _from_text(text, kind)
    return variables


def _setting_type(path: list[str]) -> Any:
    kind: Any = LoopSettings
    for position, key in enumerate(path):
        section = _section(kind)
        if section is None:
            raise unknown_setting(".".join(path))
        fields = {field.name: field.type for field in msgspec.structs.fields(section)}
        if key not in fields:
            raise unknown_setting(".".join(path[: position + 1]))
        kind = fields[key]
    return kind


def _section(kind: Any) -> type[msgspec.Struct] | None:
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _from_text(text: str, kind: Any) -> Any:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    try:
        value = json.loads(text)
        return text if plain is str and not isinstance(value, str) else value
    except (ValueError, RecursionError):
        pass
    try:
        return float(text) if plain is float else text
    except ValueError:
        return text


def _from_variable(error: FieldError, variables: Mapping[str, str]) -> FieldError | None:
    """Return the error with the variable that set its field, None when none did."""
    for setting, source in variables.items():
        if error.field == setting or error.field.startswith((f"{setting}.", f"{setting}[")):
            return error.from_source(source)
    return None
