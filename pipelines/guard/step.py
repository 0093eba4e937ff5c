"""One aggregation of a guard: fold what was settled, judge, move the weight, publish, and carry decided moves out.

Order makes every crash harmless: the state is committed first, the snapshot published from it, and aliases are moved
last. A decided move stands in the state as pending until it is known to be done, and the next step begins with it.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime

from msgspec.structs import replace

from decision.artifact import manifest_of
from decision.errors import FieldError
from decision.guard.evidence import log_mean_wealth
from pipelines.engines.engine import Engine
from pipelines.guard.rows import ROWS_PER_FOLD, episodes_until, marks, next_positions, read
from pipelines.guard.state import (
    REST_NAME,
    GuardState,
    Terms,
    begun,
    evidence_in,
    folded,
    judge,
    mean_weights,
    next_version,
    rules_in,
    terms_of,
    weighed,
)
from pipelines.guard.store import FencedError, GuardStore, Move, move
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.settings import LoopSettings, Settings

_ATTEMPTS = 5
_UNDER_WAY = ("climbing", "frozen")
_BY = "guard"


@step("guard aggregated")
def guard(
    settings: Settings,
    loop: LoopSettings,
    lake: Lake,
    registry: Registry,
    now: datetime,
    progress: Progress = silent,
    *,
    engine: Engine | None = None,
) -> GuardState:
    """Run one aggregation and return the state after it; safe to repeat and to cut short anywhere.

    Args:
        settings: the installation.
        loop: the loop; without ``guard.enabled`` nothing is done.
        lake: the tables; only decisions that the join settled are counted.
        registry: where the aliases ``champion`` and ``candidate`` stand.
        now: the time, with its UTC offset.
        progress: told of the decisions folded in.
        engine: who reads the log's partitions; None for this process, one after the other.

    Raises:
        FieldError: `now` has no offset.
        FencedError: operators or aggregators elsewhere kept moving the guard.
        RegistryError: the registry cannot be reached; a decided move stays pending.
    """
    if not loop.guard.enabled:
        return GuardState(loop=loop.name, status="off")
    if now.tzinfo is None:
        raise FieldError("now", wanted="a time with its UTC offset", got=now.isoformat())
    store = GuardStore(settings, loop.name)
    for attempt in range(_ATTEMPTS):
        try:
            return _Step(store, loop, lake, registry, now, progress, engine).run()
        except FencedError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


class _Step:
    """One aggregation; `run` makes it."""

    def __init__(
        self,
        store: GuardStore,
        loop: LoopSettings,
        lake: Lake,
        registry: Registry,
        now: datetime,
        progress: Progress,
        engine: Engine | None,
    ) -> None:
        self.store, self.loop, self.lake, self.registry, self.now = store, loop, lake, registry, now
        self.progress, self.engine = progress, engine
        self.before = store.load()
        self.moves: list[Move] = []
        self.begun: list[GuardState] = []
        self.folds: list[tuple[int, dict[int, int]]] = []

    def run(self) -> GuardState:
        if self.before.pending:
            self.before = self.carried_out(self.before)
        aliases = self.registry.aliases(self.loop.name)
        champion, candidate = aliases.get("champion"), aliases.get("candidate", "")
        baseline = champion or f"baseline:{self.loop.reference}"
        state = self.before
        if candidate and candidate != champion:
            terms = self.terms(candidate)
            if state.terms is not None:  # one that began before there was a centre goes on without
                terms = replace(terms, center=state.terms.center)
            asked = (baseline, candidate, terms)
            runs = (state.baseline_version, state.candidate_version, state.terms)
            if state.status not in _UNDER_WAY or runs != asked:
                state = self.begin(replace(state, baseline_version=baseline, candidate_version=candidate))
            state = self.moved(self.fold(state))
        elif state.status in _UNDER_WAY:
            state = self.weighed(replace(state, status="idle", reason="the alias candidate was taken away"))
            self.tell("withdrawn", state)
        state = self.commit(state)
        return self.carried_out(state) if state.pending else state

    def begin(self, state: GuardState, *, kind: str = "started", reason: str = "") -> GuardState:
        """Return the state at the start of another attempt; a new rollout begins behind all that is settled."""
        restarted = kind != "started"
        state = begun(
            replace(
                state,
                terms=self.terms(state.candidate_version),
                positions=state.positions if restarted else self.settled(),
            ),
            attempt=self.store.attempts_of(state.candidate_version) + len(self.begun) + 1,
            version=self.next_version(),
            reason=reason,
        )
        self.begun.append(state)
        state = self.weighed(state)
        self.tell(kind, state, numbers={"attempt": state.attempt, "delta": rules_in(state).delta})
        return state

    def fold(self, state: GuardState) -> GuardState:
        settled = self.settled()
        first = dict(state.positions)
        rows = ROWS_PER_FOLD if self.loop.guard.unit == "decision" else None  # slates are folded in whole
        while True:
            until = next_positions(state.positions, settled, rows)
            if all(state.positions.get(number, 0) == end for number, end in until.items()):
                return state
            state = fold_until(self.lake, state, until, self.engine)
            self.folds.append((state.attempt_number, until))
            if rows is not None:  # an episode's positions are times
                done, there = (sum(end - first.get(p, 0) for p, end in ends.items()) for ends in (until, settled))
                self.progress("decisions folded", done, there)

    def moved(self, state: GuardState) -> GuardState:
        """Return the state after what its evidence asks for."""
        asked, reason = judge(state)
        if asked == "killed":
            state = self.weighed(replace(state, status="killed", pending="kill", reason=reason))
            self.tell("killed", state, numbers=numbers_of(state))
        elif asked == "frozen" and state.status != "frozen":
            state = self.weighed(replace(state, status="frozen", reason=reason))
            self.tell("frozen", state, numbers=numbers_of(state))
        elif asked == "drifted" and state.status != "frozen":
            return self.begin(state, kind="drifted", reason=reason)
        elif asked == "promoted":
            return replace(state, pending="promote", reason=reason)
        else:
            before, state = state, self.weighed(state)
            for name, part in state.parts.items():
                if part.killed and not before.parts[name].killed:
                    where = f"{self.loop.guard.segment} is {name}" if name else "no listed segment applies"
                    told = replace(state, reason=f"it is worse than the policy in charge where {where}")
                    self.tell("excluded", told, numbers=numbers_of(state))
            shares = [(before.parts[name].weight, part.weight) for name, part in state.parts.items()]
            if any(was != now for was, now in shares):
                raised = sum(now - was for was, now in shares) > 0
                self.tell("raised" if raised else "lowered", state, numbers=numbers_of(state))
        return state

    def weighed(self, state: GuardState) -> GuardState:
        return weighed(state, self.loop.guard.cap)

    def carried_out(self, state: GuardState) -> GuardState:
        """Move the aliases as decided, then write down that it is done."""
        self.moves, self.begun, self.folds = [], [], []
        self.before = state
        fields = {"at": self.now.astimezone(UTC).isoformat(), "by": _BY, "numbers": numbers_of(state)}
        name, candidate = self.loop.name, state.candidate_version
        try:
            if state.pending == "kill":
                verdict = {**fields, "verdict": "killed", "reasons": [state.reason]}
                self.registry.set_alias(name, "candidate", None, verdict, expected=candidate)
            elif not state.stopped:
                expected = None if state.baseline_version.startswith("baseline:") else state.baseline_version
                if self.registry.aliases(name).get("champion") != candidate:
                    verdict = {**fields, "verdict": "promoted", "reasons": [state.reason]}
                    self.registry.set_alias(name, "champion", candidate, verdict, expected=expected)
                if self.registry.aliases(name).get("candidate") == candidate:
                    verdict = {**fields, "verdict": "set", "reasons": ["it is the champion"]}
                    self.registry.set_alias(name, "candidate", None, verdict, expected=candidate)
                state = self.weighed(replace(state, status="promoted"))
                self.tell("promoted", state, numbers=numbers_of(state))
        except AliasMovedError as error:
            # Someone else moved it meanwhile: the next look at the aliases begins from what they say now.
            state = replace(state, reason=str(error))
            self.tell("failed", state)
        return self.commit(replace(state, pending=""))

    def commit(self, state: GuardState) -> GuardState:
        if _published(state) != _published(self.before):
            state = replace(state, guard_version=self.next_version())
        ttl = self.loop.guard.ttl_s
        state = replace(state, expires_at=max(state.expires_at, self.now.timestamp() + ttl))
        state = self.store.commit(state, moves=self.moves, begun=self.begun, folds=self.folds)
        self.store.publish(self.loop.guard.alpha, ttl)
        return state

    def terms(self, candidate: str) -> Terms:
        manifest = manifest_of(self.registry.files(self.loop.name, candidate))
        told = manifest.data.get("episode_high"), manifest.training.get("mean_reward")
        return terms_of(self.loop, manifest.exploration, *told)

    def next_version(self) -> int:
        return next_version(self.before, self.now)

    def settled(self) -> dict[int, int]:
        if self.loop.guard.unit == "episode":
            return episodes_until(self.lake, self.loop.name, self.loop.guard.episode_s)
        return marks(self.lake, self.loop.name)

    def tell(self, kind: str, state: GuardState, numbers: dict[str, float] | None = None) -> None:
        self.moves.append(move(kind, self.before, state, self.next_version(), self.now, numbers))


def fold_until(lake: Lake, state: GuardState, until: dict[int, int], engine: Engine | None = None) -> GuardState:
    """Return the state with every settled decision below `until` folded in."""
    rows, skipped, inexact = read(lake, state, until, engine)
    return replace(
        folded(state, rows),
        positions=state.positions | until,
        skipped=dict(sorted((Counter(state.skipped) + Counter(skipped)).items())),
        inexact=state.inexact + inexact,
    )


def numbers_of(state: GuardState) -> dict[str, float]:
    """Return the numbers that a judgement rests on; wealth as its logarithm."""
    rules, evidence = rules_in(state), evidence_in(state)
    (candidate, _), (baseline, _) = mean_weights(evidence)
    found = {
        "n": float(evidence.decisions),
        "needed": -math.log(rules.delta_promotion),
        "top_rung": float(log_mean_wealth(evidence.ladder)[-1]),
        "futility": float(log_mean_wealth(evidence.futility)),
        "promotion": float(log_mean_wealth(evidence.promotion)),
        "mean_weight_candidate": candidate,
        "mean_weight_baseline": baseline,
    }
    if len(state.parts) > 1:
        found |= {f"weight[{name or REST_NAME}]": part.weight for name, part in state.parts.items()}
    return {name: round(number, 6) for name, number in found.items()}


def _published(state: GuardState) -> tuple[object, ...]:
    fields = (state.baseline_version, state.candidate_version, state.status, state.attempt_number)
    return (*fields, *((name, part.weight) for name, part in state.parts.items()), state.stopped, state.cap)
