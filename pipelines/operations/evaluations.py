"""Off-policy evaluations that a service was asked for: each a record in State, worked out by a process of its own.

Every policy is judged on the same rows: those that no version learns from, within the times asked for. A policy that is
given as settings is trained first, on the other rows. The process gets the installation's settings on its standard
input, works at low priority, and writes what it found into the record; a service that ends meanwhile loses nothing.
Few run at once, whatever is asked for and deleted again: the others wait, and one whose record is gone ends.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from decision.errors import DecisionError, FieldError
from decision.validation import prepared
from pipelines.operations.apply import flat
from pipelines.operations.init import loop_toml
from pipelines.operations.installation import Installation
from pipelines.operations.processes import let_others_first
from pipelines.settings import LoopSettings, Settings, load_loop, parse_loop
from pipelines.state.failures import StaleError, StateError
from pipelines.state.rows import read_json
from pipelines.state.state import State

_log = logging.getLogger(__name__)
PREFIX = "evaluation/"
MOST = 100
"""Evaluations that a loop keeps."""
MOST_POLICIES = 10
MOST_AT_ONCE = 2
"""Evaluations of a loop that are under way, and processes that work for a service's worker."""
MOST_S = 3_600.0
"""Seconds after which one is given up."""
MAX_ID_CHARS = 128
_REPLICATES = 200
_NICE = 10
_LOOK_S = 1.0
_places = threading.BoundedSemaphore(MOST_AT_ONCE)
_lines = threading.BoundedSemaphore(MOST)

Status = Literal["pending", "completed", "failed", "timeout"]
Origin = Literal["Online", "Baseline", "Random", "Custom"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A policy to judge, by what it changes in the loop's settings.

    Attributes:
        name: its name.
        arguments: as the caller wrote it.
        values: {path: value}, as in ``{"policy.bag": 3}``.
    """

    name: str
    arguments: str
    values: dict[str, Any]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy is known to earn up to a moment: the confidence sequence, in reward per decision."""

    until: str
    low: float
    high: float


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would have earned.

    Attributes:
        name: its name.
        arguments: as it was asked for; "" for the loop's own.
        origin: where it comes from.
        rows: decisions it was judged on.
        value: the estimate to read first, in reward per decision; None where the log cannot support one.
        low: lower end of its 95% interval.
        high: upper end.
        ips: estimate by inverse propensities; None as `value`.
        mean_weight: mean importance weight.
        reasons: what speaks against the estimates, in words.
        trend: as the log grew.
    """

    name: str
    arguments: str
    origin: Origin
    rows: int
    value: float | None
    low: float | None
    high: float | None
    ips: float | None
    mean_weight: float
    reasons: list[str]
    trend: list[Moment]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation.

    Attributes:
        id: its id, unique in the loop.
        loop: the loop.
        name: what the caller calls it.
        start: earliest time of the decisions.
        end: time after them.
        asked: further policies to judge.
        created_at: when it was asked for.
        status: how far it is.
        reason: why it failed, in words.
        judged: what was found.
    """

    id: str
    loop: str
    name: str
    start: datetime
    end: datetime
    asked: list[Asked]
    created_at: datetime
    status: Status = "pending"
    reason: str = ""
    judged: list[Judged] = []

    @property
    def best(self) -> str | None:
        """Name of the policy whose lower bound is the highest; None while none has one."""
        known = [(one.low, one.name) for one in self.judged if one.low is not None]
        return max(known)[1] if known else None


class TooManyEvaluationsError(DecisionError):
    """The loop has as many evaluations, or as many under way, as it may."""


class EvaluationExistsError(DecisionError):
    """Another evaluation has the id."""


def add(state: State, asked: Evaluation, *, now: datetime, by: str) -> Evaluation:
    """Record an evaluation that is asked for; the same again returns the one that there is.

    Raises:
        FieldError: its id is too long, its times are none, or it asks for too many policies.
        EvaluationExistsError: another one has its id.
        TooManyEvaluationsError: the loop has too many.
        StateError: State cannot be reached.
    """
    _check(asked)
    there = listed(state, asked.loop, now=now)
    known = next((one for one in there if one.id == asked.id), None)
    if known is not None:
        if (known.name, known.start, known.end, known.asked) != (asked.name, asked.start, asked.end, asked.asked):
            raise EvaluationExistsError(f"another evaluation of {asked.loop} has the id {asked.id!r}")
        return known
    if len(there) >= MOST:
        raise TooManyEvaluationsError(f"{asked.loop} has {MOST} evaluations; delete some")
    if sum(one.status == "pending" for one in there) >= MOST_AT_ONCE:
        raise TooManyEvaluationsError(f"{MOST_AT_ONCE} evaluations of {asked.loop} are under way; wait for one to end")
    try:
        state.put({_key(asked.loop, asked.id): (None, msgspec.json.encode(asked))}, by=by)
    except StaleError as error:
        raise EvaluationExistsError(f"another evaluation of {asked.loop} has the id {asked.id!r}") from error
    return asked


def listed(state: State, loop: str, *, now: datetime) -> list[Evaluation]:
    """Return the evaluations of a loop, the latest first.

    Raises:
        StateError: State cannot be reached.
    """
    rows = state.entries(_key(loop, "")).items()
    found = [_aged(read_json(key, entry.value, Evaluation), now) for key, entry in rows]
    return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)


def read(state: State, loop: str, id: str, *, now: datetime) -> Evaluation | None:
    """Return an evaluation; None where there is none of this id.

    Raises:
        StateError: State cannot be reached.
    """
    entry = state.get(_key(loop, id)) if _fits(id) else None
    return None if entry is None else _aged(read_json(_key(loop, id), entry.value, Evaluation), now)


def remove(state: State, loop: str, id: str, *, by: str) -> bool:
    """Remove an evaluation, and return whether there was one; one under way leaves nothing behind.

    Raises:
        StateError: State cannot be reached.
    """
    if not _fits(id):
        return False
    while (entry := state.get(_key(loop, id))) is not None:
        try:
            state.put({_key(loop, id): (entry.version, None)}, by=by)
        except StaleError:
            continue  # its process has just written what it found
        return True
    return False


def start(settings: Settings, loop: str, id: str) -> None:
    """Have an evaluation worked out, in a process of its own once there is a place for it; returns at once.

    Raises:
        TooManyEvaluationsError: too many wait.
    """
    if not _lines.acquire(blocking=False):
        raise TooManyEvaluationsError(f"{MOST} evaluations wait; wait for one to end")
    threading.Thread(target=_in_line, args=(settings, loop, id), name="evaluation", daemon=True).start()


def work_out(settings: Settings, loop: str, id: str) -> None:
    """Work an evaluation out and write what was found into its record; does nothing where it is not pending.

    Raises:
        StateError: State cannot be reached.
    """
    with State(settings.state_url) as state, Installation(settings) as parts:
        entry = state.get(_key(loop, id))
        if entry is None or (asked := read_json(_key(loop, id), entry.value, Evaluation)).status != "pending":
            return
        try:
            judged = _judged(parts, asked)
            done = msgspec.structs.replace(asked, status="completed", judged=judged)
        except Exception as error:  # whatever it is, who asked is told that there will be no answer
            if not isinstance(error, DecisionError):
                _log.exception("the evaluation %s of %s failed", id, loop)
            done = msgspec.structs.replace(asked, status="failed", reason=str(error)[:1_000] or type(error).__name__)
        try:
            state.put({_key(loop, id): (entry.version, msgspec.json.encode(done))}, by="evaluation")
        except StaleError:
            _log.warning("the evaluation %s of %s was deleted meanwhile", id, loop)


def _judged(parts: Installation, asked: Evaluation) -> list[Judged]:
    from pipelines.replay.policy import PolicySpec, spec_of
    from pipelines.replay.replay import Options, replay_log
    from pipelines.replay.source import Cut, TableSource
    from pipelines.training.window import window

    loop = load_loop(parts.settings, asked.loop, os.environ)
    held = window(parts.lake, loop, None).holdout
    source = TableSource(held, Cut(since=asked.start, until=asked.end))
    champion = parts.registry.aliases(loop.name).get("champion")
    if champion is None:
        online = PolicySpec(kind=loop.reference, name=f"{loop.reference} policy", steepness=loop.steepness)
    else:
        online = PolicySpec(kind="version", name=f"version {champion}", files=parts.registry.files(loop.name, champion))
    policies: list[tuple[str, str, Origin, PolicySpec]] = [
        ("Online Policy", "", "Online", online),
        ("Baseline Policy", "", "Baseline", PolicySpec(kind="first", name="first policy")),
        ("Random Policy", "", "Random", PolicySpec(kind="uniform", name="uniform policy")),
    ]
    for one in asked.asked:
        trained = spec_of(_trained(parts, loop, one.values, champion), one.name)
        policies.append((one.name, one.arguments, "Custom", trained))
    found: list[Judged] = []
    for name, arguments, origin, spec in policies:
        result = replay_log(source, spec, Options(reward_model="logistic", replicates=_REPLICATES), log=loop.name)
        first, ips = result.estimates.get(result.recommended or ""), result.estimates.get("ips")
        found.append(
            Judged(
                name=name,
                arguments=arguments,
                origin=origin,
                rows=result.rows,
                value=None if first is None else first.value,
                low=None if first is None else first.low,
                high=None if first is None else first.high,
                ips=None if ips is None else ips.value,
                mean_weight=result.diagnostics.mean_weight,
                reasons=[*result.refused, *result.reasons],
                trend=[Moment(until=one.until, low=one.low, high=one.high) for one in result.trend],
            )
        )
    return found


def _trained(parts: Installation, loop: LoopSettings, values: dict[str, Any], champion: str | None) -> Any:
    """Return the policy that the loop would have under other settings, learned from the rows that are not held out.

    As in a training, auxiliary outcomes are weighed, and a margin keeps what the champion does.
    """
    from decision.exploration.sigma import MOST_ROWS
    from decision.oracles.factory import new_oracle
    from decision.policy import CappedPolicy, OraclePolicy
    from decision.protocols import FitsChunks
    from pipelines.settings import Variant
    from pipelines.training.aligned import aligned_with
    from pipelines.training.train import blinded_log, keeping_from, scheduled_policy
    from pipelines.training.trial import unfit_is_refused
    from pipelines.training.variants import configuration, learned
    from pipelines.training.window import window

    stands = flat(msgspec.to_builtins(loop))
    defaults = flat(msgspec.to_builtins(LoopSettings(name=loop.name)))
    given = {path: value for path, value in stands.items() if value != defaults[path]} | values
    changed = parse_loop(loop_toml(loop.name, given), loop.name, {})
    with unfit_is_refused(loop.name):
        rows, _ = aligned_with(window(parts.lake, changed, None), changed, 0)
    made = configuration(changed, Variant(), 0, rows.reward)
    by_chunks = isinstance(new_oracle(made.oracle), FitsChunks)

    def policy_without(supplied: Sequence[str]) -> tuple[str, OraclePolicy]:
        read = rows.chunks() if by_chunks else [rows.learned()]
        with unfit_is_refused(loop.name):
            kind, oracle, tally = learned(((blinded_log(log, supplied), age) for log, age in read), made, [])
        unseen, ages = rows.unseen(MOST_ROWS)
        return kind, scheduled_policy(changed, made, oracle, tally, (blinded_log(unseen, supplied), ages))

    (kind, full), supplied = policy_without(()), changed.features.supplied_by_caller
    if supplied:
        _, trusted = policy_without(supplied)
        return CappedPolicy(full, trusted, supplied=supplied, cap=changed.policy.cap)
    if champion is None:
        return full
    keeping = keeping_from(parts.registry, loop.name, champion, full, kind, changed.training.margin)
    return full if keeping is None else keeping


def _check(asked: Evaluation) -> None:
    if not _fits(asked.id):
        raise FieldError("id", wanted=f"1 to {MAX_ID_CHARS} printable characters", got=asked.id)
    if not asked.start < asked.end:
        raise FieldError("end", wanted=f"after start = {asked.start.isoformat()}", got=asked.end.isoformat())
    if len(asked.asked) > MOST_POLICIES:
        raise FieldError("policies", wanted=f"at most {MOST_POLICIES} policies", got=len(asked.asked))
    names = [one.name for one in asked.asked]
    if len(set(names)) != len(names):
        raise FieldError("policies", wanted="policies whose names differ", got=names)


def _fits(id: str) -> bool:
    return 1 <= len(id) <= MAX_ID_CHARS and id.isprintable()


def _key(loop: str, id: str) -> str:
    return f"{PREFIX}{loop}/{id}"


def _aged(one: Evaluation, now: datetime) -> Evaluation:
    late = one.status == "pending" and now - one.created_at > timedelta(seconds=MOST_S)
    return msgspec.structs.replace(one, status="timeout", reason=f"given up after {MOST_S:g} s") if late else one


def _in_line(settings: Settings, loop: str, id: str) -> None:
    try:
        with _places:
            if _is_wanted(settings, loop, id):
                _watched(settings, loop, id)
    finally:
        _lines.release()


def _is_wanted(settings: Settings, loop: str, id: str) -> bool:
    try:
        with State(settings.state_url) as state:
            entry = state.get(_key(loop, id))
    except StateError:
        return True  # nobody said that it is not
    if entry is None:
        return False
    return _aged(read_json(_key(loop, id), entry.value, Evaluation), datetime.now(UTC)).status == "pending"


def _watched(settings: Settings, loop: str, id: str) -> None:
    """Run an evaluation's process to its end, or until nobody waits for what it finds."""
    command = [sys.executable, "-m", "pipelines.operations.evaluations", loop, id]
    given: bytes | None = msgspec.json.encode(settings)
    process = subprocess.Popen(  # noqa: S603 - our own module; loop and id are arguments and pass no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    let_others_first(process.pid, steps=_NICE)
    while True:
        try:
            _, told = process.communicate(given, timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            given = None  # it has been sent
            if _is_wanted(settings, loop, id):
                continue
            process.kill()
            process.communicate()
            _log.warning("the evaluation %s/%s was deleted, or given up after %g s", loop, id, MOST_S)
            return
        if process.returncode:
            _log.warning(
                "the process of the evaluation %s/%s ended with %d: %s", loop, id, process.returncode, told[-500:]
            )
        return


def main(loop: str, id: str) -> None:
    """Work an evaluation out; the settings of the installation come as JSON on standard input."""
    work_out(msgspec.json.decode(sys.stdin.buffer.read(), type=prepared(Settings)), loop, id)


if __name__ == "__main__":
    main(*sys.argv[1:])
