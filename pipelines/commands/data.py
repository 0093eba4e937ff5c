"""Logs in, logs out, and what is forgotten of them: import, export, erase."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from decision.errors import FieldError
from pipelines.commands.outcome import DONE, FAILED, Home, Json, Outcome, command, console
from pipelines.commands.replay import Log, logged
from pipelines.operations.installation import Installation

Name = Annotated[str, typer.Option("--name", help="Name of the import, used like a loop's by `decision replay`.")]
Given = Annotated[Path, typer.Argument(help="File or folder to read.", show_default=False)]


@command
def import_open_bandit(
    path: Annotated[Path | None, typer.Argument(help="Folder of the data set (default: the shipped sample).")] = None,
    home: Home = None,
    name: Name = "open-bandit",
    json: Json = False,
) -> Outcome:
    """Import Open Bandit logs: every policy and campaign below PATH as NAME-POLICY-CAMPAIGN.

    The data set publishes the propensity of the item shown and not the whole distribution; the import keeps it so.

    Example: `decision import open-bandit && decision replay open-bandit-bts-women`
    """
    from pipelines.formats.open_bandit import ATTRIBUTION, find_logs, read_open_bandit, shipped_sample
    from pipelines.formats.store import save_import

    root = path or shipped_sample()
    notes: list[Any] = []
    with Installation.at(home) as parts:
        for policy, campaign, folder in find_logs(root):
            full = f"{name}-{policy}-{campaign}"
            source = f"{root.name}/{policy}/{campaign}"
            batches = read_open_bandit(folder, name=full)
            notes.append(
                save_import(parts.settings, full, batches, format="open-bandit", source=source, attribution=ATTRIBUTION)
            )
            console.print(f"  {full}: {notes[-1].rows} decisions", highlight=False)
    return _imported(notes)


@command
def import_dsjson(path: Given, home: Home = None, name: Name = "dsjson", json: Json = False) -> Outcome:
    """Import a dsjson log, as VW's reinforcement learning library and Azure Personalizer write it.

    Example: `decision import dsjson personalizer.json --name news-2025`
    """
    from pipelines.formats.dsjson import read_dsjson
    from pipelines.formats.store import save_import

    with Installation.at(home) as parts:
        return _imported([save_import(parts.settings, name, read_dsjson(path), format="dsjson", source=path.name)])


@command
def import_parquet(path: Given, home: Home = None, name: Name = "parquet", json: Json = False) -> Outcome:
    """Import interactions from Parquet: the columns of `decision export --format parquet`.

    Needed: event_id, ts, action_ids, action_index, propensity, reward. Everything else may be missing.

    Example: `decision import parquet march.parquet --name march`
    """
    from pipelines.formats.store import read_parquet, save_import

    with Installation.at(home) as parts:
        return _imported([save_import(parts.settings, name, read_parquet(path), format="parquet", source=path.name)])


@command
def import_obp(path: Given, home: Home = None, name: Name = "obp", json: Json = False) -> Outcome:
    """Import an Open Bandit Pipeline `bandit_feedback` from an npz file (`numpy.savez(path, **bandit_feedback)`).

    Needed: n_actions, action, reward, pscore; context, action_context, position and pi_b where they are there.

    Example: `decision import obp feedback.npz --name synthetic`
    """
    from pipelines.formats.obp import read_obp
    from pipelines.formats.store import save_import

    with Installation.at(home) as parts:
        rows = read_obp(path, name=name)
        return _imported([save_import(parts.settings, name, rows, format="obp", source=path.name)])


@command
def import_scope_rl(path: Given, home: Home = None, name: Name = "scope-rl", json: Json = False) -> Outcome:
    """Import a SCOPE-RL `logged_dataset` with discrete actions from an npz file; a trajectory becomes an episode.

    Example: `decision import scope-rl logged.npz --name rec`
    """
    from pipelines.formats.scope_rl import read_scope_rl
    from pipelines.formats.store import save_import

    with Installation.at(home) as parts:
        rows = read_scope_rl(path, name=name)
        return _imported([save_import(parts.settings, name, rows, format="scope-rl", source=path.name)])


@command
def import_minari(path: Given, home: Home = None, name: Name = "minari", json: Json = False) -> Outcome:
    """Import a Minari data set with discrete actions in its Arrow layout; propensities come from `infos["propensity"]`.

    Example: `decision import minari ~/.minari/datasets/shop/clicks-v0 --name clicks`
    """
    from pipelines.formats.minari import read_minari
    from pipelines.formats.store import save_import

    with Installation.at(home) as parts:
        rows = read_minari(path, name=name)
        return _imported([save_import(parts.settings, name, rows, format="minari", source=path.name)])


@command
def export(
    log: Log,
    path: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    format: Annotated[
        Literal["parquet", "dsjson", "obp"] | None, typer.Option(help="Format (default: by the file's suffix).")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Write a loop's settled interactions, or an import, to a file.

    Examples: `decision export news march.parquet`, `decision export news march.dsjson`, `decision export news obp.npz`
    """
    from pipelines.formats.dsjson import write_dsjson
    from pipelines.formats.store import write_parquet

    kind = format or {".parquet": "parquet", ".dsjson": "dsjson", ".json": "dsjson", ".npz": "obp"}.get(path.suffix)
    if kind is None:
        raise FieldError("format", wanted="--format parquet, dsjson or obp", got=path.suffix)
    if not path.absolute().parent.is_dir():
        raise FieldError("path", wanted="a file in a folder that exists", got=str(path))
    with Installation.at(home) as parts:
        rows = logged(parts, log)
    if kind == "obp":
        from pipelines.formats.obp import write_obp

        written, left_out = write_obp(rows, path)
    else:
        written, left_out = (write_parquet(rows, path), 0) if kind == "parquet" else write_dsjson(rows, path)
    data = {"log": log, "format": kind, "path": str(path), "rows": written, "left_out": left_out}
    note = f", {left_out} left out (several slots, other actions, or no distribution known)" if left_out else ""
    return Outcome(data, lambda out: out.print(f"{written} decisions of {log} in {path}{note}", highlight=False))


@command
def erase(
    subject: Annotated[str, typer.Option("--subject", help="The subject_id to erase.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Erase everything about a subject: tables, the local log, features, imports, panels. Keep a proof of how much.

    Stop ingestion and joins meanwhile. Messages on a Kafka broker go with the broker's own retention; what is ingested
    of them again is erased by running this again.

    Example: `decision erase --subject user-17 --yes`
    """
    from pipelines.commands.outcome import who
    from pipelines.fairness.erase import erase_payloads
    from pipelines.formats.store import forget_subject
    from pipelines.ingestion.ingest import ingest
    from pipelines.log.sqlite.log import LocalLog
    from pipelines.operations.erase import erase as run

    if not yes and not typer.confirm(f"Erase every decision and outcome of {subject!r} for good?", err=True):
        raise typer.Exit(FAILED)
    with Installation.at(home) as parts:
        ingest(parts.log, parts.lake, loops=parts.loops or None)
        pairs = erase_payloads(parts.settings, parts.lake, subject, now=datetime.now(UTC), by=who())
        spool = LocalLog(parts.settings.spool_path) if parts.settings.spool_path.is_file() else None
        try:
            forget = None if spool is None else spool.redact
            proof = run(parts.lake, subject, forget=forget, now=datetime.now(UTC))
        finally:
            if spool is not None:
                spool.close()
        imported = forget_subject(parts.settings, subject)
        features = sum(_forget_features(parts, name, subject) for name in parts.loops)
        kept = parts.settings.root / "erasures" / f"{proof.digest}.json"
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(msgspec.json.format(msgspec.json.encode(proof)))
    counts = {"imported_rows": imported, "feature_rows": features, "panel_pairs": pairs}
    data = {**msgspec.to_builtins(proof), **counts, "proof": str(kept)}

    def show(out: Console) -> None:
        rows = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in proof.rows.items())
        out.print(
            f"erased {proof.events} decisions: {rows}, {imported} imported rows, {features} features", highlight=False
        )
        out.print(f"proof: {kept}", highlight=False)

    return Outcome(data, show, DONE if proof.remaining == 0 else FAILED)


def _forget_features(parts: Installation, loop: str, subject: str) -> int:
    if not parts.loop(loop).features.enabled:
        return 0
    from pipelines.features.store import Features

    features = Features(parts.settings, parts.loop(loop))
    try:
        return features.erase(subject)
    finally:
        features.close()


def _imported(notes: list[Any]) -> Outcome:
    data = {"imports": msgspec.to_builtins(notes), "rows": sum(note.rows for note in notes)}

    def show(out: Console) -> None:
        table = Table("import", "decisions", "with distribution", "first", "last")
        for note in notes:
            first, last = (text[:19] if text else "" for text in (note.first, note.last))
            table.add_row(note.name, str(note.rows), str(note.with_pmf), first, last)
        out.print(table)

    return Outcome(data, show)
