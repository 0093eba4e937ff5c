"""An old log, played against a loop: what it would refuse, answer or count otherwise, and what the log cannot tell.

Lines are read as `decision import dsjson` reads them. What a request was is made out of its line, so what the service
does with a request before it is logged (excluded actions, refusals, keys) is not in it. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from decision.artifact import manifest_of, unpack
from decision.errors import FieldError
from decision.exploration.mix import with_floor
from decision.options import SESSION
from decision.policy import baseline_policy
from pipelines.formats.dsjson.line import DsjsonLine, Row, Skipped, line_of, rows_in
from pipelines.formats.dsjson.read import SUFFIXES, table_of
from pipelines.formats.lines import Line, lines_of
from pipelines.formats.registry import LEFT_OUT
from pipelines.formats.repeats import Repeats
from pipelines.formats.rows import check_rows
from pipelines.interactions.arrays import sizes_of
from pipelines.lake.features import Reading, flat_actions, flat_contexts
from pipelines.operations.installation import Installation
from pipelines.operations.migration.answers import Agreed, Answers
from pipelines.operations.migration.findings import Finding, Tally
from pipelines.operations.migration.names import Compared, Names
from pipelines.operations.migration.questions import check_question
from pipelines.operations.migration.rewards import Rewards
from pipelines.progress import Progress, silent
from pipelines.settings import LoopSettings
from pipelines.storage import Storage

LATEST = 5_000
"""Decisions of the loop from which its features and actions are known."""
_ROWS = 2_000


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of a log found.

    Attributes:
        loop: the loop that it was played against; "" for a new one.
        mode: the loop's.
        lines: how many were read.
        events: of them, those with a decision.
        decisions: rows of these, one for each slot.
        refused: how many requests, reports or lines are refused.
        findings: see `Tally.findings`.
        answers: how the policy in charge agrees with the log; None where it was not asked.
        untold: what the log could not tell.
    """

    loop: str
    mode: str
    lines: int
    events: int
    decisions: int
    refused: int
    findings: list[Finding]
    answers: Agreed | None
    untold: list[str]


def check_log(path: Path, loop: LoopSettings, parts: Installation | None, progress: Progress = silent) -> Checked:
    """Return what a log would find at a loop.

    Args:
        path: a file, a folder, a pattern or ``-``, see `lines_of`.
        loop: the loop's settings.
        parts: where its decisions and versions are; None for a loop that is not there yet.
        progress: told of the lines that were checked.

    Raises:
        FieldError: there is no such file.
        RegistryError: the registry cannot be reached.
    """
    return _Check(loop, parts).run(path, progress)


class _Check:
    def __init__(self, loop: LoopSettings, parts: Installation | None) -> None:
        self._loop, self._parts = loop, parts
        self._tally = Tally()
        self._untold = [
            "excluded actions: they were not logged; requests that list them in excludedActions go on to",
            "requests that were refused there, and what was never logged",
        ]
        self._rewards = Rewards(loop.reward, self._tally)
        self._names = Compared(self._known(), self._tally)
        self._answers = self._policy()
        self._events, self._requests = Repeats(), Repeats()
        self._held: list[tuple[Row, str]] = []
        self._lines = self._decided = self._decisions = self._forced = 0
        self._first = ""

    def run(self, path: Path, progress: Progress) -> Checked:
        before = None
        for line in self._read(path):
            self._lines += 1
            if self._lines % 1_000 == 0:
                progress("lines checked", self._lines)
            if not line.text.strip():
                continue
            try:
                decoded = line_of(line.text, line.place, ended=line.ended)
                rows = rows_in(decoded, line.place, before=before)
            except Skipped as error:
                kind = "dangling" if error.reason == "dangling" else "skipped"
                about = ("", "") if kind == "dangling" else (LEFT_OUT[error.reason], error.reason)
                self._tally.add(kind, line.place, *about)
                continue
            except FieldError as error:
                field = error.field.removeprefix(f"{line.place}: ")
                self._tally.add("not_read", line.place, str(error).removeprefix(f"{line.place}: "), field)
                continue
            before = rows[0]["ts"]
            self._check(decoded, line.place, rows)
        self._flush()
        return self._checked()

    def _read(self, path: Path) -> Iterator[Line]:
        lines = lines_of(path, SUFFIXES)
        try:
            yield from lines
        except FieldError as error:
            if not self._lines:
                raise  # there is no such file
            self._tally.add("damaged", error.field, error)

    def _check(self, line: DsjsonLine, place: str, rows: list[Row]) -> None:
        tally, event = self._tally, rows[0]["event_id"]
        if line.event_id is not None and not self._new(event, rows, place):
            return
        self._decided += 1
        self._decisions += len(rows)
        check_question(line, place, tally)
        self._rewards.check(line, place)
        actions: list[dict[str, Any]] = (line.c or {})["_multi"]
        self._names.check(rows, place, named=rows[0]["action_ids"][0] == actions[0].get("_tag"))
        if line.skip_learn:
            tally.add("never_activated", place)
        if line.pdrop:
            tally.add("sampled", place, f"pdrop {line.pdrop:g}")
        self._check_draw(rows, place)
        self._held += [(row, place) for row in rows]
        if len(self._held) >= _ROWS:
            self._flush()

    def _new(self, event: str, rows: list[Row], place: str) -> bool:
        """Return whether an event is the first of its id; what comes again is counted."""
        asked = "\0".join([event, *(f"{row['slot']}\0{row['context']}\0{row['actions']}" for row in rows)])
        first, new = self._events.first(event), self._requests.first(asked)
        if not first:
            self._tally.add("reused_id" if new else "repeated", place, event)
        return first

    def _check_draw(self, rows: list[Row], place: str) -> None:
        if len(rows) > 1 or rows[0]["slot"]:
            return  # what a slot's first action is, is not logged
        row = rows[0]
        if row["pmf"] is None:
            self._tally.add("no_distribution", place)
        elif min(row["pmf"]) <= 0.0 < 1.0 - max(row["pmf"]):
            self._tally.add("zero_probability", place, f"p of {row['action_ids'][row['pmf'].index(min(row['pmf']))]}")
        if row["action_index"] == 0 and row["propensity"] >= 1.0 and len(row["action_ids"]) > 1:
            self._forced += 1
            self._first = self._first or place
        elif row["action_index"] and self._loop.mode != "online":
            self._tally.add("not_first", place, row["action_ids"][row["action_index"]])

    def _flush(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        kept = list(self._importable(held))
        if not kept:
            return
        table = table_of([row for row, _ in kept])
        _, bad = flat_contexts(table["context"], pa.array(["{}"] * len(table)), Reading(cut=False))
        _, more = flat_actions(table["actions"], sizes_of(table), Reading(cut=False))
        for at, error in sorted({**more, **bad}.items()):
            self._tally.add("features", kept[at][1], error, error.field.partition("[")[0].partition(".")[0])
        good = [at for at in range(len(kept)) if at not in bad and at not in more]
        if self._answers is not None and good:
            self._answers.add(table.take(good))

    def _importable(self, held: list[tuple[Row, str]]) -> Iterator[tuple[Row, str]]:
        try:
            check_rows(table_of([row for row, _ in held]))
            yield from held
        except FieldError:
            for row, place in held:
                try:
                    check_rows(table_of([row]))
                except FieldError as error:
                    self._tally.add("not_read", place, str(error).partition(": ")[2], error.field.rpartition(": ")[2])
                else:
                    yield row, place

    def _known(self) -> Names | None:
        if self._parts is None:
            return None
        name, there = self._loop.name, Storage(self._parts.settings.lake_url).has("interactions")
        rows = self._parts.lake.interactions(name, latest=LATEST) if there else None
        if rows is None or not len(rows):
            self._untold.append(f"which features and actions are new: {name} has no decisions to compare with")
            return None
        return Names.of(rows)

    def _policy(self) -> Answers | None:
        loop, parts = self._loop, self._parts
        champion = None if parts is None else parts.registry.aliases(loop.name).get("champion")
        if parts is None or champion is None:
            explore = loop.explored
            return Answers(
                baseline_policy(loop.reference, steepness=loop.steepness),
                f"{loop.reference} policy, which answers until a version is in charge",
                (lambda pmf, offsets: with_floor(pmf, offsets, explore)) if explore else None,
            )
        files = parts.registry.files(loop.name, champion)
        if manifest_of(files).oracle == SESSION:
            self._untold.append(f"how version {champion} would answer: it remembers each user, which no line names")
            return None
        if loop.features.enabled:
            self._untold.append("looked-up features, without which the version in charge was asked here")
        return Answers(unpack(files)[0], f"version {champion}")

    def _checked(self) -> Checked:
        single = self._decided
        if self._loop.mode == "online" and single and self._forced == single:
            self._tally.add("always_first", self._first, count=single)
        self._names.finish()
        untold = [*self._untold, *self._rewards.finish()]
        findings = self._tally.findings()
        return Checked(
            loop="" if self._parts is None else self._loop.name,
            mode=self._loop.mode,
            lines=self._lines,
            events=self._decided,
            decisions=self._decisions,
            refused=sum(found.count for found in findings if found.weight == "refused"),
            findings=findings,
            answers=None if self._answers is None else self._answers.agreed(),
            untold=untold,
        )
