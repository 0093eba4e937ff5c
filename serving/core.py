"""The service without HTTP: decide, report, activate, explain. The HTTP interfaces and the client share it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from decision.errors import DecisionError, FieldError
from decision.guard.snapshot import weight_at
from decision.protocols import Policy
from decision.records import (
    MAX_RECORD_BYTES,
    SCHEMA_VERSION,
    Decision,
    Outcome,
    check_outcome,
    decode_decision,
    decode_outcome,
    encode,
)
from pipelines.log.protocol import LogError
from pipelines.log.sqlite.log import Group, Stored
from pipelines.registry.registry import Registry
from pipelines.settings import Settings
from serving import metrics
from serving.counters import Counts, LakeCounters
from serving.decide import answer, decide, is_same_request
from serving.episodes import Episodes
from serving.errors import EventIdReusedError, UnavailableError, UnknownDecisionError, UnknownLoopError
from serving.event_ids import uuid7
from serving.explain import ExplainedDecision, Explanation, explained
from serving.loops import Loops
from serving.question import Catalogues, Question, question_of
from serving.refresher import Refresher
from serving.snapshot import OnlineFeatures, Snapshot
from serving.spool import Spool, SpoolClosed, SpoolFull
from serving.wire import (
    DecideRequest,
    DecideResponse,
    GuardDescription,
    LoopDescription,
    OutcomeRequest,
    ProcessCounts,
    check_id,
)

DECISIONS, OUTCOMES = "decisions", "outcomes"
_AT_ONCE = 50


class _Decided(NamedTuple):
    """What a question came to, before it is on disk."""

    event_id: str
    deferred: bool | None
    records: list[Decision]
    group: Group


@dataclass(slots=True)
class Core:
    """Everything a decision needs; `serving.start.open_core` makes one, and `close` ends it.

    Attributes:
        settings: the installation.
        loops: what answers in each loop.
        spool: where decisions and outcomes go.
        registry: for explanations of older versions.
        features: per loop, where features are looked up.
        clock: seconds since 1970.
        episodes: what running episodes are pinned to.
        refreshers: the threads that keep policies and memories fresh.
        resources: closes what was opened, the latest first.
        counts: per loop.
        catalogues: actions that were offered before.
        closed: it takes nothing any more.
    """

    settings: Settings
    loops: Loops
    spool: Spool
    registry: Registry
    features: Callable[[Snapshot], OnlineFeatures | None] = lambda snapshot: None
    clock: Callable[[], float] = time.time
    episodes: Episodes | None = None
    refreshers: tuple[Refresher, ...] = ()
    resources: ExitStack = field(default_factory=ExitStack)
    counts: dict[str, Counts] = field(default_factory=dict)
    catalogues: Catalogues = field(default_factory=Catalogues)
    closed: bool = False
    _lake: LakeCounters = field(init=False)

    def __post_init__(self) -> None:
        self._lake = LakeCounters(self.settings, self.clock)

    def close(self) -> None:
        """Write what waits and close everything that was opened; does nothing when it was closed before."""
        self.closed = True
        self.resources.close()

    def _check_open(self) -> None:
        if self.closed:
            raise UnavailableError("the service is closed")

    def snapshot(self, loop: str) -> Snapshot:
        """Return what answers in `loop`.

        Raises:
            UnknownLoopError: there is no such loop.
            UnavailableError: its settings cannot be read, so nothing answers in it.
        """
        found = self.loops.get(loop)
        if found is None:
            reason = self.loops.error(loop)
            if reason is not None:
                raise UnavailableError(f"the loop {loop!r} does not run: {reason}")
            raise UnknownLoopError(loop)
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
            UnknownLoopError: there is no such loop.
            EventIdReusedError: another request has this event id.
            UnavailableError: nothing was written.
        """
        self._check_open()
        self.snapshot(loop)
        return await self.answer(loop, question_of(request, self.catalogues))

    async def answer(self, loop: str, question: Question) -> DecideResponse:
        """Answer one question; it is on disk when this returns. Errors as `decide`."""
        self._check_open()
        prepared = self._decided(self.snapshot(loop), question)
        return self._answered(loop, prepared, (await self._append_all((prepared.group,)))[0])

    async def answer_many(
        self, loop: str, questions: Sequence[Question | Exception]
    ) -> list[DecideResponse | Exception]:
        """Answer many questions by one append; each is answered or refused on its own.

        What could not be read as a question comes as the error that says why, and is returned in its place.

        Raises:
            UnknownLoopError: there is no such loop.
            UnavailableError: nothing was written.
        """
        self._check_open()
        snapshot = self.snapshot(loop)
        done: list[_Decided | Exception] = []
        for number, question in enumerate(questions):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # others are waiting for their one decision
            if isinstance(question, Exception):
                done.append(question)
                continue
            try:
                done.append(self._decided(snapshot, question))
            except Exception as error:
                done.append(error)
        groups = [each.group for each in done if isinstance(each, _Decided)]
        stored = iter(await self._append_all(groups)) if groups else iter(())
        answers: list[DecideResponse | Exception] = []
        for each in done:
            if isinstance(each, Exception):
                answers.append(each)
                continue
            try:
                answers.append(self._answered(loop, each, next(stored)))
            except EventIdReusedError as error:
                answers.append(error)
        return answers

    def _decided(self, snapshot: Snapshot, question: Question) -> _Decided:
        event_id = question.event_id or uuid7(self.clock())
        records = self.records(snapshot, question, event_id)
        messages = [(DECISIONS, encode(record), ()) for record in records]
        for _, value, _ in messages:
            if len(value) > MAX_RECORD_BYTES:  # the lake would not take it
                raise FieldError("record", wanted=f"a decision of at most {MAX_RECORD_BYTES} bytes", got=len(value))
        return _Decided(event_id, question.deferred, records, Group(event_id.encode(), messages, True))

    def _answered(self, loop: str, decided: _Decided, stored: Stored) -> DecideResponse:
        counts, records = self.count(loop), decided.records
        if not stored.existing:
            counts.decided += len(records)
            metrics.count("decided", loop, len(records))
            return answer(records)
        counts.repeated += 1
        metrics.count("repeated", loop)
        earlier = [decode_decision(message.value) for message in stored.messages]
        if not is_same_request(earlier, records, decided.deferred):
            raise EventIdReusedError(decided.event_id)
        return answer(earlier)

    def records(self, snapshot: Snapshot, question: Question, event_id: str) -> list[Decision]:
        """Return the records of one question; the baseline's when the policy fails."""
        ts = datetime.fromtimestamp(self.clock(), UTC)
        if self.episodes is not None and snapshot.loop.guard.enabled and snapshot.loop.guard.unit == "episode":
            snapshot = self.episodes.pinned(snapshot, question, ts.timestamp())
        looked_up: dict[str, Any] = {}
        if question.subject_id is not None and snapshot.loop.features.enabled:
            features = self.features(snapshot)
            looked_up = features.online(question.subject_id, ts) if features is not None else {}
        try:
            return decide(question, snapshot, event_id=event_id, ts=ts, looked_up=looked_up)
        except FieldError as error:
            if error.field not in ("pmf", "scores") or snapshot.policy is None:
                raise
        except (RuntimeError, ArithmeticError, LookupError):
            if snapshot.policy is None:
                raise
        self.count(snapshot.loop.name).fallbacks += 1
        metrics.count("fallbacks", snapshot.loop.name)
        plain = Snapshot(snapshot.loop, None, snapshot.baseline_version, snapshot.baseline, snapshot.baseline_version)
        return decide(question, plain, event_id=event_id, ts=ts, looked_up=looked_up)

    async def report(self, loop: str, requests: Sequence[OutcomeRequest]) -> int:
        """Write outcomes; they are on disk when this returns. Events may be unknown yet: the join sorts them out.

        Raises:
            FieldError: one does not fit; then none is written.
            UnknownLoopError: there is no such loop.
            UnavailableError: nothing was written.
        """
        self._check_open()
        self.snapshot(loop)
        now = datetime.fromtimestamp(self.clock(), UTC)
        outcomes = [self._outcome(loop, request, now, i, len(requests)) for i, request in enumerate(requests)]
        await self._append_all([Group(o.event_id.encode(), [(OUTCOMES, encode(o), ())]) for o in outcomes])
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
            raise error.under(prefix) from error
        return outcome

    async def _append_all(self, groups: Sequence[Group]) -> Sequence[Stored]:
        try:
            return await self.spool.append_all(groups)
        except SpoolFull as error:
            raise UnavailableError("too many requests wait for the disk") from error
        except (SpoolClosed, LogError) as error:
            raise UnavailableError("the disk takes no writes at present") from error

    def stored(self, event_id: str) -> list[Decision]:
        """Return the records on disk under `event_id`; blocking.

        Raises:
            UnknownDecisionError: there are none.
        """
        found = self.spool.find(DECISIONS, event_id.encode())
        if not found:
            raise UnknownDecisionError(event_id)
        return [decode_decision(message.value) for message in found]

    def explain(self, event_id: str) -> Explanation:
        """Return how each record under `event_id` came about, its draw repeated; blocking.

        Raises:
            UnknownDecisionError: there is no such decision.
        """
        records = self.stored(event_id)
        outcomes = [decode_outcome(message.value) for message in self.spool.find(OUTCOMES, event_id.encode())]
        decisions = [self._explained(record) for record in records]
        return Explanation(event_id, records[0].loop, decisions, outcomes)

    def _explained(self, record: Decision) -> ExplainedDecision:
        try:
            return explained(record, self._policy(record))
        except (DecisionError, OSError, RuntimeError):  # the version is gone, or asks for more than was logged
            return explained(record, None)

    def _policy(self, record: Decision) -> Policy | None:
        if record.policy_version.startswith("baseline:"):
            return None
        snapshot = self.loops.get(record.loop)
        if snapshot is not None and snapshot.policy_version == record.policy_version:
            return snapshot.policy
        return self.loops.load(record.loop, record.policy_version)

    def describe(self, loop: str) -> LoopDescription:
        """Return a loop's settings, versions, guard state and counters; blocking.

        Raises:
            UnknownLoopError: there is no such loop.
            UnavailableError: its settings cannot be read.
        """
        snapshot, counts = self.snapshot(loop), self.count(loop)
        published, guard, weight = snapshot.guard_weight, snapshot.guard, 0.0
        segments: dict[str, float] = {}
        if guard is not None and published:
            now = self.clock()
            segments = {value: weight_at(guard, now, value) for value in guard.weights}
            weight = max(weight_at(guard, now), *segments.values()) if segments else weight_at(guard, now)
        return LoopDescription(
            loop=loop,
            settings=msgspec.to_builtins(snapshot.loop),
            policy_version=snapshot.policy_version,
            baseline_version=snapshot.baseline_version,
            candidate_version=snapshot.candidate_version or None,
            guard=GuardDescription(weight, published, snapshot.guard_version, segments or None),
            error=self.loops.error(loop),
            process=ProcessCounts(
                decided=counts.decided,
                repeated=counts.repeated,
                outcomes=counts.outcomes,
                fallbacks=counts.fallbacks,
                spool_depth=self.spool.depth,
            ),
            counters=self._lake.of(snapshot.loop),
        )

    def observe(self) -> None:
        """Set this process's gauges."""
        metrics.observe(
            spool_depth=self.spool.depth,
            spool_healthy=self.spool.healthy,
            spool_fsync_seconds=self.spool.last_fsync_seconds,
            model_reloads=self.loops.reloads,
            loops_with_errors=len(self.loops.errors()),
            heartbeat_age_seconds=max((refresher.age_s for refresher in self.refreshers), default=0.0),
        )

    def ready(self) -> str | None:
        """Return why no decision can be taken now, or None."""
        if not self.loops.names():
            return "no loop is loaded"
        if not self.spool.healthy:
            return "the spool takes no writes"
        for refresher in self.refreshers:
            if refresher.late:
                return f"{refresher.name} have not been refreshed for {refresher.age_s:.0f} s"
        return None
