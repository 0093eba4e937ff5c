"""The audit log: checked, signed, repaired and taken elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from decision.errors import FieldError
from decision.validation import prepared
from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command, progress, who
from pipelines.operations.installation import Installation
from pipelines.progress import counted

_AT_ONCE = 1_000


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    seq: int
    at: str
    actor: str
    kind: str
    subject: str
    body: str
    previous: str
    hash: str


@command
def verify(
    home: Home = None,
    file: Annotated[Path | None, typer.Option("--file", help="Check an exported log instead of the store.")] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="COUNT:HASH, or a file of `decision audit head`, that the log must match."),
    ] = None,
    json: Json = False,
) -> Outcome:
    """Check the audit log: every hash, its order, the heads noted of it, and that all tables say what it tells.

    The exit status is 1 if anything was edited, deleted, reordered, cut off or written anew. What no check can tell is
    printed too.

    Example: `decision audit verify --json`
    """
    from decision.fairness.audit_log import Entry, check
    from pipelines.fairness.store import Governance
    from pipelines.fairness.verify import verify as run

    signed = [] if head is None or ":" in head else [_signed(Path(head))]
    noted = [one.anchor for one in signed] if head is None or signed else [_anchor(head)]
    unknown: tuple[str, ...] = ()
    with Installation.at(home) as parts:
        if file is None:
            with Governance.at(parts.settings) as store:
                checked = run(store, *noted, heads=signed, progress=progress)
            unknown = checked.unknown
        else:
            entries: list[Entry] = []
            if not file.is_file():
                raise FieldError("file", wanted="an exported audit log", got=str(file))
            lines = file.read_text().splitlines()
            read = counted(lines, progress, "entries of the audit log read", total=len(lines), every=_AT_ONCE)
            for number, line in enumerate(read, 1):
                try:
                    entries.append(Entry(**msgspec.structs.asdict(msgspec.json.decode(line, type=prepared(_Line)))))
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    raise FieldError(f"line {number}", wanted="an entry of the audit log", got=error) from error
            checked = check(entries, noted)
    faults = [{"entry": fault.seq, "what": fault.what} for fault in checked.faults]
    data = {
        "ok": not faults,
        "entries": checked.entries,
        "head": checked.head,
        "faults": faults,
        "unknown": list(unknown),
    }

    def show(out: Console) -> None:
        out.print(f"{checked.entries} entries, head {checked.head[:16]}: " + ("whole" if not faults else "NOT whole"))
        for fault in checked.faults:
            out.print(f"  entry {fault.seq}: {fault.what}" if fault.seq else f"  {fault.what}", markup=False)
        for what in unknown:
            out.print(f"  cannot be told: {what}", markup=False, highlight=False)

    return Outcome(data, show, FAILED if faults else DONE)


@command
def head(
    home: Home = None,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("audit-head.json"),
    json: Json = False,
) -> Outcome:
    """Write the head of the audit log, signed, for somebody else to keep.

    `decision audit verify --head FILE` holds the log to it.

    Example: `decision audit head --out 2026-03-01.json`
    """
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        made = store.sign_head(datetime.now(UTC))
    out.write_bytes(msgspec.json.encode(made) + b"\n")
    data = {"file": str(out), **msgspec.to_builtins(made)}
    return Outcome(data, lambda to: to.print(f"head of {made.entries} entries written to {out}, key {made.key}"))


@command
def repair(home: Home = None, json: Json = False) -> Outcome:
    """Take torn lines out of anchors.jsonl, and begin the heads in State anew where they are gone; the log says so.

    Example: `decision audit repair && decision audit verify`
    """
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        done = store.repair(datetime.now(UTC), who())
    return Outcome({"done": done}, lambda out: out.print("; ".join(done) or "nothing to repair", markup=False))


@command
def export(
    home: Home = None,
    out: Annotated[Path, typer.Option("--out", help="File of JSON lines to write.")] = Path("audit.jsonl"),
    json: Json = False,
) -> Outcome:
    """Write the audit log as JSON lines, which `decision audit verify --file` checks anywhere.

    Example: `decision audit export --out evidence.jsonl`
    """
    from pipelines.fairness.report import export as lines
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        count, total = 0, store.head().entries
        written = counted(lines(store), progress, "entries of the audit log written", total=total, every=_AT_ONCE)
        with out.open("w") as file:
            for line in written:
                file.write(line + "\n")
                count += 1
        head = store.head()
    data = {"file": str(out), "entries": count, "head": head.head}
    return Outcome(data, lambda to: to.print(f"{count} entries written to {out}"))


def _signed(path: Path) -> Any:
    from pipelines.fairness.heads import Head

    try:
        return msgspec.json.decode(path.read_bytes(), type=prepared(Head))
    except (OSError, msgspec.DecodeError) as error:
        raise FieldError("head", wanted="COUNT:HASH, or a file of `decision audit head`", got=str(path)) from error


def _anchor(text: str) -> Any:
    from decision.fairness.audit_log import Anchor

    count, _, head = text.partition(":")
    if not (count.isascii() and count.isdigit() and len(head) == 64):
        raise FieldError("head", wanted="COUNT:HASH as `decision audit verify` prints them", got=text)
    return Anchor(int(count), head)
