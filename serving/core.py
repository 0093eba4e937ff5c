"""The service without HTTP: decide, report, activate, explain. The HTTP interfaces and the client share it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from decision.batch import Batch, one
from decision.draw import draw
from decision.errors import DecisionError, FieldError
from decision.features import flatten
from decision.policy import OraclePolicy
from decision.records import SCHEMA_VERSION, Decision, Outcome, check_outcome, decode_decision, encode
from pipelines.log.protocol import LogError
from pipelines.log.sqlite.log import LocalLog, Stored
from pipelines.registry.registry import Registry
from pipelines.settings import Settings
from serving import metrics
from serving.decide import Snapshot, answer, decide, is_same_request
from serving.episodes import Episodes
from serving.loops import Loops
from serving.problems import ProblemError, unavailable
from serving.sessions import Sessions
from serving.spool import Spool, SpoolClosed, SpoolFull
from serving.wire import DecideRequest, DecideResponse, OutcomeRequest, check_decide, check_id

DECISIONS, OUTCOMES = "decisions", "outcomes"


class OnlineFeatures(Protocol):
    """Looks features up by subject; never raises."""

    def online(self, subject_id: str, at: datetime | None = None) -> dict[str, Any]:
        """Return the subject's features at the time `at`, {} when there are none."""
        ...


@dataclass(slots=True)
class Counts:
    """What this process did since it started, per loop."""

    decided: int = 0
    repeated: int = 0
    outcomes: int = 0
    fallbacks: int = 0


@dataclass(slots=True)
class Core:
    """Everything a decision needs.

    Attributes:
        settings: the installation.
        loops: what answers in each loop.
        spool: where decisions and outcomes go.
        registry: for explanations of older versions.
        features: per loop, where features are looked up.
        clock: seconds since 1970.
        episodes: what running episodes are pinned to.
        counts: per loop.
    """

    settings: Settings
    loops: Loops
    spool: Spool
    registry: Registry
    features: Callable[[Snapshot], OnlineFeatures | None] = lambda snapshot: None
    clock: Callable[[], float] = time.time
    episodes: Episodes | None = None
    counts: dict[str, Counts] = field(default_factory=dict)

    def snapshot(self, loop: str) -> Snapshot:
        """Return what answers in `loop`.

        Raises:
            ProblemError: 404, there is no such loop.
        """
        found = self.loops.get(loop)
        if found is None:
            raise ProblemError(
                404, f"there is no loop {loop[:80]!r}", field="loop", wanted="a loop that exists", got=repr(loop[:80])
            )
        return found

    def count(self, loop: str) -> Counts:
        """Return the loop's counts."""
        counts = self.counts.get(loop)
        if counts is None:
            counts = self.counts[loop] = Counts()
        return counts

    async def decide(self, loop: str, request: DecideRequest) -> DecideResponse:
        """Answer one request; it is on disk when this returns.

        Raises:
            FieldError: the request does not fit.
            ProblemError: unknown loop, another request under this event id, or no room on disk.
        """
        snapshot = self.snapshot(loop)
        check_decide(request)
        event_id = request.event_id or uuid7(self.clock())
        records = self.records(snapshot, request, event_id)
        messages = [(DECISIONS, encode(record), ()) for record in records]
        stored = await self._append(event_id.encode(), messages, unique=True)
        counts = self.count(loop)
        if stored.existing:
            counts.repeated += 1
            metrics.count("repeated", loop)
            earlier = [decode_decision(message.value) for message in stored.messages]
            if not is_same_request(earlier, records, request.deferred):
                raise ProblemError(
                    409,
                    "this event_id was used for another request",
                    field="event_id",
                    wanted="a new id, or the same request again",
                    got=repr(event_id[:80]),
                )
            records = earlier
        else:
            counts.decided += len(records)
            metrics.count("decided", loop, len(records))
        return answer(records)

    def records(self, snapshot: Snapshot, request: DecideRequest, event_id: str) -> list[Decision]:
        """Return the records of one request; the baseline's when the policy fails."""
        ts = datetime.fromtimestamp(self.clock(), UTC)
        if self.episodes is not None and snapshot.loop.guard.enabled and snapshot.loop.guard.unit == "episode":
            snapshot = self.episodes.pinned(snapshot, request, ts.timestamp())
        looked_up: dict[str, Any] = {}
        if request.subject_id is not None and snapshot.loop.features.enabled:
            features = self.features(snapshot)
            looked_up = features.online(request.subject_id, ts) if features is not None else {}
        try:
            return decide(request, snapshot, event_id=event_id, ts=ts, looked_up=looked_up)
        except FieldError as error:
            if error.field not in ("pmf", "scores") or snapshot.policy is None:
                raise
        except (RuntimeError, ArithmeticError, LookupError):
            if snapshot.policy is None:
                raise
        self.count(snapshot.loop.name).fallbacks += 1
        metrics.count("fallbacks", snapshot.loop.name)
        plain = Snapshot(snapshot.loop, None, snapshot.baseline_version, snapshot.baseline, snapshot.baseline_version)
        return decide(request, plain, event_id=event_id, ts=ts, looked_up=looked_up)

    async def report(self, loop: str, requests: Sequence[OutcomeRequest]) -> int:
        """Write outcomes; they are on disk when this returns. Events may be unknown yet: the join sorts them out.

        Raises:
            FieldError: one does not fit; then none is written.
            ProblemError: unknown loop, or no room on disk.
        """
        self.snapshot(loop)
        now = datetime.fromtimestamp(self.clock(), UTC)
        outcomes = [self._outcome(loop, request, now, i, len(requests)) for i, request in enumerate(requests)]
        await asyncio.gather(
            *(self._append(o.event_id.encode(), [(OUTCOMES, encode(o), ())], unique=False) for o in outcomes)
        )
        self.count(loop).outcomes += len(outcomes)
        metrics.count("outcomes", loop, len(outcomes))
        return len(outcomes)

    def _outcome(self, loop: str, request: OutcomeRequest, now: datetime, position: int, total: int) -> Outcome:
        prefix = f"[{position}]." if total > 1 else ""
        check_id(f"{prefix}event_id", request.event_id)
        if request.idempotency_key is not None:
            check_id(f"{prefix}idempotency_key", request.idempotency_key)
        ts = now
        if request.ts is not None:
            try:
                ts = msgspec.convert(request.ts, datetime)
            except msgspec.ValidationError as error:
                raise FieldError(f"{prefix}ts", wanted="an RFC 3339 time with offset", got=request.ts) from error
        outcome = Outcome(
            schema_version=SCHEMA_VERSION,
            loop=loop,
            event_id=request.event_id,
            slot=request.slot,
            name=request.name,
            value=request.value,
            ts=ts,
            idempotency_key=request.idempotency_key,
        )
        try:
            check_outcome(outcome)
        except FieldError as error:
            raise FieldError(prefix + error.field, wanted=error.wanted, got=error.got) from error
        return outcome

    async def _append(self, key: bytes, messages: Sequence[Any], *, unique: bool) -> Stored:
        try:
            return await self.spool.append(key, messages, unique=unique)
        except SpoolFull as error:
            raise unavailable("too many requests wait for the disk") from error
        except (SpoolClosed, LogError) as error:
            raise unavailable("the disk takes no writes at present") from error

    def stored(self, event_id: str) -> list[Decision]:
        """Return the records on disk under `event_id`; blocking.

        Raises:
            ProblemError: 404, there are none.
        """
        found = self.spool.find(DECISIONS, event_id.encode())
        if not found:
            raise ProblemError(404, f"there is no decision {event_id[:80]!r}", field="event_id")
        return [decode_decision(message.value) for message in found]

    def explain(self, event_id: str) -> dict[str, Any]:
        """Return how each record under `event_id` came about, its draw repeated; blocking.

        Raises:
            ProblemError: 404, there is no such decision.
        """
        records = self.stored(event_id)
        outcomes = [msgspec.json.decode(m.value) for m in self.spool.find(OUTCOMES, event_id.encode())]
        return {
            "event_id": event_id,
            "loop": records[0].loop,
            "decisions": [self._explained(record) for record in records],
            "outcomes": outcomes,
        }

    def _explained(self, record: Decision) -> dict[str, Any]:
        again = draw(record.pmf, record.seed)
        scores: list[float] | None = None
        rescored: bool | None = None
        snapshot = self.loops.get(record.loop)
        if not record.policy_version.startswith("baseline:"):
            try:
                policy = (
                    snapshot.policy
                    if snapshot is not None and snapshot.policy_version == record.policy_version
                    else self.loops.load(record.loop, record.policy_version)
                )
                batch = batch_of(record)
                if isinstance(policy, OraclePolicy):
                    scores = policy.scores(batch).tolist()
                if policy is not None and record.mode == "online" and record.guard_weight == 0.0:
                    rescored = policy.pmf(batch).tolist() == record.pmf
            except (DecisionError, OSError, RuntimeError):
                scores = None
        raw: dict[str, Any] = msgspec.json.decode(encode(record))
        return raw | {
            "action_id": record.action_ids[record.action_index],
            "scores": scores,
            "redrawn_index": again,
            "draw_matches": again == record.action_index and record.propensity == record.pmf[again],
            "pmf_recomputed_equal": rescored,
        }

    def ready(self) -> str | None:
        """Return why no decision can be taken now, or None."""
        if not self.loops.names():
            return "no loop is loaded"
        if not self.spool.healthy:
            return "the spool takes no writes"
        return None


def batch_of(record: Decision) -> Batch:
    """Return the batch of one that the record's pmf was computed on."""
    context = flatten(msgspec.json.decode(record.context), field="context")
    looked_up = flatten(msgspec.json.decode(record.feature_snapshot), field="feature")
    context |= {f"feature.{name}": value for name, value in looked_up.items()}
    actions = [flatten(a, field="actions") for a in msgspec.json.decode(record.actions)]
    return one(context, actions, record.action_ids)


class _Entropy:
    """Random bytes from the system, fetched by the thousand: each fetch gives up the interpreter's lock."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._bytes):
            self._bytes, self._at = os.urandom(10_000), 0
        taken = self._bytes[self._at : self._at + count]
        self._at += count
        return taken


_entropy = _Entropy()


def uuid7(now: float) -> str:
    """Return a UUIDv7 (RFC 9562) of the time `now`, in seconds since 1970: ids sort by time."""
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(_entropy.take(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def open_core(settings: Settings, *, clock: Callable[[], float] = time.time) -> Core:
    """Open the home folder and return a core that is ready to decide.

    Raises:
        FieldError: a setting does not fit, for example an address other than loopback without API keys.
    """
    if not settings.api_keys and settings.host not in ("127.0.0.1", "localhost", "::1"):
        raise FieldError("api_keys", wanted=f"keys, since {settings.host} is not loopback", got="none")
    settings.root.mkdir(parents=True, exist_ok=True)
    log = LocalLog(settings.spool_path, clock=clock)
    for topic in (DECISIONS, OUTCOMES):
        log.create(topic, settings.partitions)
    registry = Registry(settings)
    loops = Loops(settings, registry)
    episodes = Episodes(settings.root / "episodes.db", loops.load)
    core = Core(settings, loops, Spool(log), registry, _feature_source(settings), clock, episodes)
    loops.start(after_refresh=lambda: metrics.observe(core))
    Sessions(core, log).start()  # memories of users, for loops whose policy in charge has one
    for name in loops.names():
        snapshot = loops.get(name)
        if snapshot is not None and snapshot.loop.features.enabled:
            core.features(snapshot)  # opened before the service is ready, so that no request waits for it
    return core


def _feature_source(settings: Settings) -> Callable[[Snapshot], OnlineFeatures | None]:
    opened: dict[str, OnlineFeatures] = {}

    def source(snapshot: Snapshot) -> OnlineFeatures | None:
        name = snapshot.loop.name
        found = opened.get(name)
        if found is None:
            from pipelines.features.store import Features  # imports Feast: only loops that use it pay the seconds

            features = Features(settings, snapshot.loop)
            features.open()
            found = opened[name] = features
        return found

    return source
