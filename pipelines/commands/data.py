"""Logs out, and what is forgotten of them: export, erase."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError
from pipelines.commands.analysis.given import Log, logged
from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command, progress
from pipelines.files import room_for
from pipelines.formats.registry import FORMATS, format_of
from pipelines.operations.installation import Installation
from pipelines.storage import Storage

if TYPE_CHECKING:
    from pipelines.online.connection import Online

WRITABLE = tuple(name for name, entry in FORMATS.items() if entry.suffixes)
"""Formats that `decision export` writes."""


@command
def export(
    log: Log,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write.", show_default=False)],
    format: Annotated[str | None, typer.Option(help=f"{', '.join(WRITABLE)} (default: by the file's suffix).")] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Write a loop's settled interactions, or an import, to a file.

    Examples: `decision export news march.parquet`, `decision export news march.dsjson`, `decision export news obp.npz`
    """
    kind = format or next((name for name, entry in FORMATS.items() if path.suffix in entry.suffixes), None)
    if kind not in WRITABLE:
        raise FieldError.choice("format", list(WRITABLE), kind or path.suffix)
    if not path.absolute().parent.is_dir():
        raise FieldError("path", wanted="a file in a folder that exists", got=str(path))
    progress("decisions exported", 0)
    with Installation.at(home) as parts:
        rows = logged(parts, log)
    write = format_of(kind).write
    if write is None:
        raise FieldError.choice("format", list(WRITABLE), kind)
    with room_for(path):
        written, left_out = write(rows, path, progress)
    data = {"log": log, "format": kind, "path": str(path), "rows": written, "left_out": left_out}
    note = (
        f", {left_out} left out (no distribution known, or rows that the format has no place for)" if left_out else ""
    )
    return Outcome(data, lambda out: out.print(f"{written} decisions of {log} in {path}{note}", highlight=False))


@command
def erase(
    subject: Annotated[str, typer.Option("--subject", help="The subject_id to erase.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Erase everything about a subject from tables, local log, features, imports and panels, and keep a proof.

    Others may go on writing meanwhile. Messages on a Kafka broker stay there until the broker's own retention removes
    them, and the spools of other machines forget as their services hear of it: the proof says by when. If messages are
    ingested again, run this again.

    Example: `decision erase --subject user-17 --yes`
    """
    from pipelines.commands.outcome import who
    from pipelines.fairness.erase import erase_payloads
    from pipelines.formats.store import forget_subject
    from pipelines.ingestion.ingest import ingest
    from pipelines.log.protocol import DECISIONS
    from pipelines.log.sqlite.log import LocalLog
    from pipelines.online.answers import forget_answers
    from pipelines.online.connection import open_online
    from pipelines.operations.erase import erase as run
    from pipelines.retention.erasures import announce
    from pipelines.state.state import State

    if not yes and not typer.confirm(f"Erase every decision and outcome of {subject!r} for good?", err=True):
        raise typer.Exit(FAILED)
    with Installation.at(home) as parts, ExitStack() as opened:
        online = open_online(parts.settings)
        if online is not None:
            opened.callback(online.close)
            if online.ask([("PING",)]) is None:  # first of all: what is erased elsewhere is not found a second time
                raise ConnectionError("online: Redis does not answer; nothing was erased")
        ingest(parts.log, parts.lake, loops=parts.loops or None, progress=progress)
        pairs = erase_payloads(parts.settings, parts.lake, subject, now=datetime.now(UTC), by=who())
        spool = LocalLog(parts.settings.spool_path) if parts.settings.spool_path.is_file() else None
        if spool is not None:
            opened.callback(spool.close)

        now = datetime.now(UTC)

        def forget(topic: str, keys: Iterable[bytes]) -> int:
            event_ids = list(keys)
            if online is not None:
                forget_answers(online, parts.loops, event_ids)
            if parts.settings.state and topic == DECISIONS:
                with State(parts.settings.state_url) as state:
                    announce(state, event_ids, now, by=who())
            return 0 if spool is None else spool.redact(topic, event_ids)

        known = spool is not None or online is not None or bool(parts.settings.state)
        elsewhere = _elsewhere(parts, now)
        proof = run(
            parts.lake,
            subject,
            forget=forget if known else None,
            elsewhere=elsewhere,
            now=now,
            progress=progress,
        )
        imported = forget_subject(parts.settings, subject)
        features = _forget_features(parts, subject)
        remembered = _forget_memories(parts, subject, online)
        files, key = Storage.of(parts.settings), f"erasures/{proof.digest}.json"
        files.write(key, msgspec.json.format(msgspec.json.encode(proof)))
        kept = f"{files.url}/{key}"
    counts = {"imported_rows": imported, "feature_rows": features, "panel_pairs": pairs, "remembered_turns": remembered}
    data = {**msgspec.to_builtins(proof), **counts, "proof": kept}

    def show(out: Console) -> None:
        rows = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in proof.rows.items())
        out.print(
            f"erased {proof.events} decisions: {rows}, {imported} imported rows, {features} features", highlight=False
        )
        for where, until in elsewhere.items():
            out.print(f"{where}: {until}", highlight=False)
        out.print(f"proof: {kept}", highlight=False)

    return Outcome(data, show, DONE if proof.remaining == 0 else FAILED)


def _elsewhere(parts: Installation, now: datetime) -> dict[str, str]:
    """Return where messages of the subject stay for a while, and until when."""
    from pipelines.retention.erasures import SPOOLED_FOR

    found: dict[str, str] = {}
    if parts.settings.log != "local:":
        from pipelines.log.kafka.log import KafkaLog
        from pipelines.log.protocol import TOPICS

        log = parts.log
        kept = [log.kept_for_s(topic) if isinstance(log, KafkaLog) else None for topic in TOPICS]
        longest = max(math.inf if one is None else one for one in kept)
        found["kafka"] = "for ever: its topics have no retention.ms"
        if math.isfinite(longest):
            found["kafka"] = f"until {(now + timedelta(seconds=longest)).isoformat()}, by its topics' retention"
    if parts.settings.state:
        until = (now + SPOOLED_FOR).isoformat()
        found["spools of other machines"] = f"until their services have heard of it, in seconds; else until {until}"
    return found


def _forget_features(parts: Installation, subject: str) -> int:
    """Remove the subject from the features of every loop, one whose file went wrong included; return how many rows."""
    from pipelines.settings import LOOP_NAME, FeatureSettings, LoopSettings

    readable = parts.readable()
    loops = [loop for loop in readable.values() if loop.features.enabled]
    unread = [name for name in parts.loops if name not in readable and LOOP_NAME.fullmatch(name)]
    files = Storage.of(parts.settings)
    kept = [name for name in unread if files.has(f"features/{name}")]
    loops += [LoopSettings(name=name, features=FeatureSettings(enabled=True)) for name in kept]
    removed = 0
    for loop in loops:
        from pipelines.features.store import Features  # imports Feast: only loops that use it pay the seconds

        features = Features(parts.settings, loop)
        try:
            removed += features.erase(subject)
        finally:
            features.close()
    return removed


def _forget_memories(parts: Installation, subject: str, online: Online | None) -> int:
    """Remove the subject from the memories of every loop; return how many turns that were."""
    from pipelines.trajectories.memories import MEMORIES, Memories
    from pipelines.trajectories.shared_memories import SharedMemories

    removed = 0
    if online is not None:
        removed += sum(SharedMemories(online, name, 0.0).erase(subject) for name in parts.loops)
    for path in sorted((parts.settings.root / "loops").glob(f"*/{MEMORIES}")):
        memories = Memories(path, path.parent.name)
        try:
            removed += memories.erase(subject)
        finally:
            memories.close()
    return removed
