"""The service without HTTP: decide, report, activate, explain. The HTTP interfaces and the client share it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from decision.errors import FieldError
from decision.guard.snapshot import largest_weight_at, weight_at
from decision.join import ACTIVATION
from decision.protocols import Policy
from decision.records import (
    MAX_RECORD_BYTES,
    Decision,
    Outcome,
    encode,
)
from pipelines.evaluation.agreement import Agreement, agreement_in, agreement_key
from pipelines.evaluation.standing import alarms_key, standing_in
from pipelines.log.protocol import DECISIONS, OUTCOMES, Headers
from pipelines.log.slates import written
from pipelines.log.sqlite.log import Group, Stored
from pipelines.registry.registry import Registry
from pipelines.settings import Settings
from serving import metrics
from serving.counters import Counts, LakeCounters
from serving.deciding.decide import Ask, answer, decide, is_same_request
from serving.deciding.failing import Failing
from serving.deciding.question import Catalogues, Question, question_of
from serving.deciding.turns import AT_ONCE, Decided, Turns
from serving.errors import (
    ErasedDecisionError,
    EventIdReusedError,
    UnavailableError,
    UnknownLoopError,
)
from serving.event_ids import uuid7
from serving.explaining.explain import Explanation
from serving.explaining.recorded import Recorded, records_in
from serving.loops import Loops
from serving.outcomes import outcomes_of
from serving.refresher import Refresher
from serving.replicas.answers import Answers
from serving.replicas.episodes import Episodes
from serving.snapshot import OnlineFeatures, Snapshot
from serving.spool import Give, Spool, given, on_disk, waited
from serving.telemetry.traces import CURRENT, Traces, now_ns
from serving.wire import (
    DecideRequest,
    DecideResponse,
    GuardDescription,
    LoopDescription,
    OutcomeRequest,
    ProcessCounts,
)

MAX_SLATE_BYTES = 8 << 20
MAX_BATCH_BYTES = 48 << 20
"""Of the records of a request, and of a batch: all that waits for the disk has `serving.spool.MOST_BYTES`."""
_FAILURES = (RuntimeError, ArithmeticError, LookupError)  # of a policy: then the baseline answers


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
        answers: what agrees with other replicas on one answer per event id; None on one machine.
        traces: what begins traces of requests; None where they are off.
        refreshers: the threads that keep policies and memories fresh.
        resources: closes what was opened, the latest first.
        erased: whether State tells of an erasure of an event.
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
    answers: Answers | None = None
    traces: Traces | None = None
    refreshers: tuple[Refresher, ...] = ()
    resources: ExitStack = field(default_factory=ExitStack)
    erased: Callable[[bytes], bool] = lambda event_id: False
    counts: dict[str, Counts] = field(default_factory=dict)
    catalogues: Catalogues = field(default_factory=Catalogues)
    closed: bool = False
    _give: Give = field(init=False)
    _lake: LakeCounters = field(init=False)
    _recorded: Recorded = field(init=False)
    _turns: Turns = field(init=False)
    _failing: Failing = field(init=False, default_factory=Failing)
    _counting: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lake = LakeCounters(self.settings, self.clock)
        self._recorded = Recorded(self.settings, self.loops, self.spool, self._lake, lambda event: self.erased(event))
        give = self.spool.give if self.answers is None else self.answers.give
        self._give = give
        self._turns = Turns(lambda loop, questions: self._decided(self.snapshot(loop), questions), give)

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
        """Answer one question; it is on disk when this returns. Errors as `decide`.

        What the coroutines of an event loop ask in one of its turns is decided, and handed to the spool, together.
        """
        self._check_open()
        self.snapshot(loop)
        return self._answered(loop, *await self._turns.ask(loop, question))

    def decide_here(self, loop: str, request: DecideRequest) -> DecideResponse:
        """As `decide`, for a thread that may wait."""
        self._check_open()
        self.snapshot(loop)
        return self._answered(loop, *self._turns.ask_here(loop, question_of(request, self.catalogues)))

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
        done: list[Decided | Exception] = []
        trace = CURRENT.get()
        begun_ns = now_ns() if trace is not None else 0
        for start in range(0, len(questions), AT_ONCE):
            if start:
                await asyncio.sleep(0)  # others are waiting for their one decision
            some = questions[start : start + AT_ONCE]
            decided = iter(self._decided(snapshot, [each for each in some if not isinstance(each, Exception)]))
            done += [each if isinstance(each, Exception) else next(decided) for each in some]
        if trace is not None:
            trace.step("decide", begun_ns, now_ns(), {"loop": loop, "together": len(questions)}, failed=False)
        size = 0
        for at, each in enumerate(done):
            if isinstance(each, Decided):
                own = sum(len(value) for _, value, _ in each.group.messages)
                if size + own > MAX_BATCH_BYTES:
                    wanted = f"decisions whose records have at most {MAX_BATCH_BYTES} bytes together; send others apart"
                    done[at] = FieldError("decisions", wanted=wanted, got=size + own)
                else:
                    size += own
        groups = [each.group for each in done if isinstance(each, Decided)]
        stored = iter(await on_disk(given(self._give, groups))) if groups else iter(())
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

    def _decided(self, snapshot: Snapshot, questions: Sequence[Question]) -> list[Decided | Exception]:
        """Return what each question came to, or why it came to nothing."""
        now = self.clock()
        ts = datetime.fromtimestamp(now, UTC)
        pinned = self._pinned(snapshot, questions, now)
        asks = [
            Ask(question, answering, question.event_id or uuid7(now), looked_up)
            for question, answering, looked_up in zip(
                questions, pinned, self.looked_up(pinned, questions, ts), strict=True
            )
        ]
        return [
            _group(ask, self._by_baseline(ask, ts, records) if isinstance(records, Exception) else records)
            for ask, records in zip(asks, decide(asks, ts), strict=True)
        ]

    def _pinned(self, snapshot: Snapshot, questions: Sequence[Question], now: float) -> list[Snapshot]:
        """Return what answers each question: where the guard goes by episodes, what each began with."""
        guard = snapshot.loop.guard
        if self.episodes is None or not guard.enabled or guard.unit != "episode":
            return [snapshot] * len(questions)
        return self.episodes.pinned(snapshot, questions, now)

    def looked_up(
        self, snapshots: Sequence[Snapshot], questions: Sequence[Question], ts: datetime
    ) -> list[dict[str, Any]]:
        """Return the features of each question's subject, for what answers it."""
        found: list[dict[str, Any]] = [{}] * len(questions)
        together: dict[int, list[tuple[int, str]]] = {}
        for at, (snapshot, asked) in enumerate(zip(snapshots, questions, strict=True)):
            if asked.subject_id is not None:
                together.setdefault(id(snapshot), []).append((at, asked.subject_id))
        for known in together.values():
            features = self.features(snapshots[known[0][0]])
            if features is not None:
                for (at, _), looked_up in zip(
                    known, features.online_many([name for _, name in known], ts), strict=True
                ):
                    found[at] = looked_up
        return found

    def _by_baseline(self, ask: Ask, ts: datetime, error: Exception) -> list[Decision] | Exception:
        """Return the records that the baseline makes where the policy failed; the error where it was not the policy."""
        snapshot = ask.snapshot
        of_policy = error.field in ("pmf", "scores") if isinstance(error, FieldError) else isinstance(error, _FAILURES)
        if not of_policy or snapshot.policy is None:
            return error
        loop = snapshot.loop
        self.count(loop.name).fallbacks += 1
        metrics.count("fallbacks", loop.name)
        self._failing.tell(ask, error)
        plain = Snapshot(loop, None, snapshot.baseline_version, snapshot.baseline, snapshot.baseline_version)
        plain = replace(plain, settings_version=snapshot.settings_version)
        return decide((ask._replace(snapshot=plain),), ts)[0]

    def _answered(self, loop: str, decided: Decided, stored: Stored) -> DecideResponse:
        counts, records = self.count(loop), decided.records
        if not stored.existing:
            with self._counting:
                counts.decided += len(records)
            metrics.count("decided", loop, len(records))
            return answer(records)
        with self._counting:
            counts.repeated += 1
        metrics.count("repeated", loop)
        try:
            earlier = records_in(decided.event_id, stored.messages)
        except ErasedDecisionError:
            if self.answers is not None:
                self.answers.forget([loop], [decided.event_id.encode()])
            raise
        if not is_same_request(earlier, records, decided.question):
            raise EventIdReusedError(decided.event_id)
        return answer(earlier)

    async def report(self, loop: str, requests: Sequence[OutcomeRequest]) -> int:
        """Write outcomes; they are on disk when this returns. Events may be unknown yet: the join sorts them out.

        Raises:
            FieldError: one does not fit; then none is written.
            UnknownLoopError: there is no such loop.
            UnavailableError: nothing was written.
        """
        outcomes, doubts = self._reports(loop, requests)
        await on_disk(self.spool.append_all(_groups(outcomes)))
        activated = self._activated(outcomes)
        if activated:
            doubts["event_id"] += await asyncio.to_thread(self._unknown, loop, activated)
        return self._reported(loop, len(outcomes), doubts)

    def report_here(self, loop: str, requests: Sequence[OutcomeRequest]) -> int:
        """As `report`, for a thread that may wait."""
        outcomes, doubts = self._reports(loop, requests)
        waited(self.spool.submit(_groups(outcomes)))
        doubts["event_id"] += self._unknown(loop, self._activated(outcomes))
        return self._reported(loop, len(outcomes), doubts)

    def _reports(self, loop: str, requests: Sequence[OutcomeRequest]) -> tuple[list[Outcome], Counter[str]]:
        """Return the outcomes, all of which fit, and how many are in doubt, by field."""
        self._check_open()
        reward = self.snapshot(loop).loop.reward
        return outcomes_of(loop, requests, reward, datetime.fromtimestamp(self.clock(), UTC))

    def _activated(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Return the events that were activated, where the spool is the log and can say whether there are such."""
        return [o.event_id for o in outcomes if o.name == ACTIVATION] if self.settings.log == "local:" else []

    def _unknown(self, loop: str, event_ids: Sequence[str]) -> int:
        """Return how many of the ids no decision of the loop has; blocking."""
        return sum(not self._recorded.kept(DECISIONS, event_id, loop) for event_id in event_ids)

    def _reported(self, loop: str, number: int, doubts: Counter[str]) -> int:
        counts, doubts = self.count(loop), +doubts
        with self._counting:
            counts.outcomes += number
            counts.doubtful += doubts
        metrics.count("outcomes", loop, number)
        for field_in_doubt, amount in doubts.items():
            metrics.doubtful(loop, field_in_doubt, amount)
        return number

    def stored(self, event_id: str, loop: str = "") -> list[Decision]:
        """Return the records on disk under `event_id`, of `loop`, or of the first that decided it; blocking.

        Raises:
            UnknownDecisionError: there are none.
            ErasedDecisionError: they were erased.
        """
        return self._recorded.stored(event_id, loop)

    def explain(self, event_id: str, loop: str = "") -> Explanation:
        """Return how each record under `event_id` came about, its draw repeated; blocking.

        Args:
            event_id: the decision's id.
            loop: whose decision, since ids are unique per loop; "" for the first loop that decided it.

        Raises:
            UnknownDecisionError: there is no such decision.
            ErasedDecisionError: it was erased.
        """
        return self._recorded.explain(event_id, loop)

    def policy_of(self, record: Decision) -> Policy | None:
        """Return the version that a record names; None for a baseline, or where it cannot be loaded; blocking."""
        return self._recorded.policy_of(record)

    def counters(self, loop: str) -> dict[str, Any] | None:
        """Return the lake's counters of a loop, None where there is no such loop or lake; blocking."""
        found = self.loops.get(loop)
        return None if found is None else self._lake.of(found.loop)

    def describe(self, loop: str, *, counted: bool = True) -> LoopDescription:
        """Return a loop's settings, versions, guard state and counters; blocking.

        Args:
            loop: its name.
            counted: whether the lake's counters are among it.

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
            weight = largest_weight_at(guard, now)
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
                doubtful=dict(counts.doubtful),
            ),
            counters=self._lake.of(snapshot.loop) if counted else None,
            agreement=self._agreement(loop) if snapshot.loop.mode == "apprentice" else None,
        )

    def _agreement(self, loop: str) -> Agreement | None:
        return agreement_in(self.settings, loop, self.loops.seen(agreement_key(loop)))

    def observe(self) -> None:
        """Set this process's gauges, and those of what the loops' nights raised; show the counters of every loop."""
        metrics.observe(
            spool_depth=self.spool.depth,
            spool_healthy=self.spool.healthy,
            spool_fsync_seconds=self.spool.last_fsync_seconds,
            model_reloads=self.loops.reloads,
            loops_with_errors=len(self.loops.errors()),
            heartbeat_age_seconds=max((refresher.age_s for refresher in self.refreshers), default=0.0),
        )
        for loop in self.loops.names():
            metrics.show(loop)
            with suppress(FieldError):
                metrics.night(loop, standing_in(self.settings, loop, self.loops.seen(alarms_key(loop))))

    def ready(self) -> str | None:
        """Return why no decision can be taken now, or None."""
        if not self.loops.names():
            return "no loop is loaded"
        if not self.spool.healthy:
            return "the spool takes no writes; the log of the service says why"
        for refresher in self.refreshers:
            if refresher.late:
                return f"{refresher.name} have not been refreshed for {refresher.age_s:.0f} s"
        return None


def _groups(outcomes: Sequence[Outcome]) -> list[Group]:
    return [
        Group(outcome.event_id.encode(), [(OUTCOMES, encode(outcome), ())], loop=outcome.loop) for outcome in outcomes
    ]


def _group(ask: Ask, records: list[Decision] | Exception) -> Decided | Exception:
    """Return what is to be written of one question, or why nothing is."""
    if isinstance(records, Exception):
        return records
    texts = [encode(record) for record in records]
    largest = max(map(len, texts))
    if largest > MAX_RECORD_BYTES:  # the lake would not take it
        return FieldError("record", wanted=f"a decision of at most {MAX_RECORD_BYTES} bytes", got=largest)
    chosen = ask.question.event_id is not None  # an id of ours is random: nobody has it yet
    if len(records) == 1:
        messages: list[tuple[str, bytes, Headers]] = [(DECISIONS, texts[0], ())]
    else:
        slate = written(records, bytes(ask.question.raw_context))
        messages = [(DECISIONS, value, headers) for value, headers in slate]
        size = sum(len(value) for value, _ in slate)
        if size > MAX_SLATE_BYTES:
            wanted = f"slots whose records have at most {MAX_SLATE_BYTES} bytes together"
            return FieldError("slots", wanted=wanted, got=size)
    group = Group(ask.event_id.encode(), messages, chosen, records[0].loop)
    return Decided(ask.event_id, ask.question, records, group)
