"""Off-policy evaluation on the command line: what a policy that never ran would have earned, or why nobody can say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from decision.errors import FieldError
from decision.options import SESSION
from pipelines.commands.analysis.given import Log, generations_of, holdout_of, logged, policy_of, rows_of
from pipelines.commands.analysis.quality import show_quality
from pipelines.commands.engines import RayAddress, Where, Workers, opened
from pipelines.commands.outcome import DONE, FAILED, REFUSED, Home, Json, Outcome, command, console, progress
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    import pyarrow as pa

    from decision.drift.segments import Found
    from pipelines.replay.replay import Replay
    from pipelines.replay.source import Cut, Source


@command
def replay(
    log: Log,
    policy: Annotated[
        str,
        typer.Option(
            help="champion, uniform, first, ranking, a version, file.py:function, rules.toml, or a folder with a model."
        ),
    ] = "uniform",
    since: Annotated[
        str | None, typer.Option("--from", help="Time of the first decision, ISO 8601 (UTC unless stated).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Time to stop before, ISO 8601 (UTC unless stated).")
    ] = None,
    where: Annotated[str | None, typer.Option(help="NAME=VALUE: only the decisions of this segment.")] = None,
    segment: Annotated[
        str | None,
        typer.Option(help="Also estimate each value of this context field, or of policy_version, separately."),
    ] = None,
    find_segments: Annotated[
        bool,
        typer.Option(
            "--find-segments", help="Also search the contexts for segments in which the policy gains or loses."
        ),
    ] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Feature that groups actions, for the estimators MIPS and OffCEM.")
    ] = None,
    table_version: Annotated[
        int | None, typer.Option(help="Version of the interactions table (default: the latest).")
    ] = None,
    reward_model: Annotated[
        Literal["vw", "logistic", "means", "none"],
        typer.Option(help="Reward model of the doubly robust estimators; `means` reads no features and is fast."),
    ] = "vw",
    level: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates, 2 or more; 0 for none.")] = 1_000,
    lift: Annotated[
        float | None,
        typer.Option(help="Also say how many decisions it takes to see a lift of so much reward per decision."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Also weight by the mixture of all generations in the log.")
    ] = False,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Include the decisions that the version was trained on (optimistic).")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Show the numbers even if the log cannot support them.")
    ] = False,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    check_propensities: Annotated[
        bool, typer.Option("--check-propensities", help="Only test the log; the exit status is 1 if it fails.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="Only describe the log: how exploratory, how good, which trainers it suits."),
    ] = False,
    html: Annotated[
        str | None, typer.Option(help="Write a report with plots to this file, a path or s3://bucket/key.")
    ] = None,
    track: Annotated[
        bool | None,
        typer.Option("--track/--no-track", help="Log the result to MLflow (default: for versions of a loop)."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Estimate what a policy would have earned on decisions that were logged under another.

    All estimators are computed in one pass, with intervals; the confidence sequence is valid at every moment.
    If the log cannot answer, the reason is printed instead and the exit status is 3.

    A version of the loop is replayed on its holdout: the decisions no version was trained on. `file.py:function` names
    a Python function of the context and the actions of a decision; it returns an action's id or probabilities. Try one
    by `decision policy check`, which also says what else may stand here.

    `--check-propensities` repeats every draw from its seed and tests the choices against the logged probabilities.

    Examples: `decision replay news --policy champion --html report.html`,
    `decision replay news --policy mine:policy --from 2026-03-01 --segment country`,
    `decision replay news --policy phones.toml`, `decision replay news --policy 7 --find-segments`,
    `decision replay news --check-propensities`, `decision replay news --report`
    """
    if html is not None and not html.startswith("s3://") and not Path(html).absolute().parent.is_dir():
        raise FieldError("html", wanted="a file in a folder that exists, or s3://bucket/key", got=html)
    from pipelines.replay.propensities import check_propensities as check
    from pipelines.replay.replay import Options, replay_log
    from pipelines.storage import write_file

    with Installation.at(home) as parts:
        if check_propensities:
            progress("decisions read", 0)
            rows = _decided(parts, log)
            progress("decisions checked", 0, len(rows))
            return _checked(log, check(rows))
        cut = _cut(since, until)
        source, left_out, low, high = rows_of(parts, log, cut, table_version)
        if report:
            return _described(log, source, opened(engine, ray_address, workers), _sessions(parts, log, table_version))
        spec = policy_of(parts, log, policy)
        registered = spec.kind == "version" and log in parts.loops
        if registered and not all_rows:
            source, left_out = holdout_of(parts, log, cut, table_version)
        options = Options(
            reward_model=reward_model,
            level=level,
            where=_pair(where),
            segment=segment,
            find_segments=find_segments,
            grouping=group_by,
            replicates=replicates,
            low=low,
            high=high,
            force=force,
            lift=lift,
        )
        result = replay_log(
            source,
            spec,
            options,
            log=log,
            left_out=left_out,
            engine=opened(engine, ray_address, workers),
            generations=generations_of(parts, log) if balanced else None,
            progress=progress,
        )
        data: dict[str, Any] = msgspec.to_builtins(result)
        page = "" if html is None else _page(result)
        if html is not None:
            write_file(html, page.encode())
            data["report"] = html
            console.print(f"report: {html}", highlight=False)
        if track or (track is None and registered):
            data["run_id"] = _tracked(parts, result, options, page)
    return Outcome(data, lambda out: _show(result, out), REFUSED if result.refused else DONE)


def _decided(parts: Installation, name: str) -> pa.Table:
    # Of a loop every decision counts, also those whose outcome is not known yet.
    return parts.lake.decisions(name) if name in parts.loops else logged(parts, name)


def _cut(since: str | None, until: str | None) -> Cut:
    from pipelines.replay.source import Cut

    start, end = _time("from", since), _time("to", until)
    if start is not None and end is not None and not start < end:
        raise FieldError("to", wanted=f"a time after {start.isoformat()}", got=end.isoformat())
    return Cut(since=start, until=end)


def _time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise FieldError(name, wanted="a time in ISO 8601, such as 2026-03-01T12:00", got=text) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _pair(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise FieldError("where", wanted="NAME=VALUE", got=text)
    return name, value


def _page(result: Replay) -> str:
    from pipelines.replay.report import replay_report

    return replay_report(result)


def _tracked(parts: Installation, result: Replay, options: Any, page: str) -> str:
    from pipelines.replay.track import track

    return track(parts.settings, result, options, page or _page(result))


def _sessions(parts: Installation, log: str, table_version: int | None) -> dict[str, Any] | None:
    """Return what the trajectories of a loop hold whose policy has memory; None of others."""
    if log not in parts.loops or parts.loop(log).policy.oracle != SESSION:
        return None
    from dataclasses import asdict

    from pipelines.training.session_log import log_of
    from simulators.offline.quality import advice, quality_of

    loop = parts.loop(log)
    version = parts.lake.version("interactions") if table_version is None else table_version
    found = quality_of(log_of(parts.lake, loop, version), asked=loop.session.weights)
    return asdict(found) | {"advice": advice(found)}


def _described(log: str, source: Source, engine: Any, sessions: dict[str, Any] | None) -> Outcome:
    from pipelines.replay.describe import describe

    found = describe(source, engine, log=log)

    def show(out: Console) -> None:
        kinds = dict.fromkeys(kind for part in (found.whole, *found.parts) for kind in part.suits)
        numbered = [f"({number + 1})" for number in range(len(kinds))]
        columns = ("of", "decisions", "coverage", "SACo", "TQ", "reward", "counts", *numbered)
        table = Table(*columns, title=f"the log of {log}")
        for part in (found.whole, *found.parts):
            table.add_row(
                part.name,
                str(part.rows),
                f"{part.coverage:.2f}",
                "" if part.saco is None else f"{part.saco:.2f}",
                "" if part.tq is None else f"{part.tq:.2f}",
                f"{part.reward:.4f}",
                f"{part.uniform_ess:.1%}",
                *("yes" if kind in part.suits else "" for kind in kinds),
            )
        out.print(table)
        for number, kind in enumerate(kinds):
            out.print(f"({number + 1}) suits: {kind}", markup=False, highlight=False)
        out.print(
            "counts: decisions that count for the uniform policy. SACo: pairs of context and action seen, of those"
        )
        out.print("a uniform log would hold. TQ: reward between the worst (0) and the best (1) policy known.")
        for reason in found.whole.reasons:
            out.print(f"  {reason}", markup=False, highlight=False)
        if sessions is not None:
            show_quality(sessions, out)

    data: dict[str, Any] = msgspec.to_builtins(found)
    return Outcome(data if sessions is None else data | {"sessions": sessions}, show)


def _checked(log: str, report: Any) -> Outcome:
    data = {"log": log, "ok": report.ok, "reasons": list(report.reasons), "numbers": report.numbers}

    def show(out: Console) -> None:
        out.print(
            f"propensities of {log}: " + ("[green]nothing speaks against them[/]" if report.ok else "[red]fail[/]")
        )
        for reason in report.reasons:
            out.print(f"  {reason}", markup=False)
        for name, value in report.numbers.items():
            out.print(f"  {name.replace('_', ' '):<20} {value:.6g}", highlight=False)

    return Outcome(data, show, DONE if report.ok else FAILED)


def _show(result: Replay, out: Console) -> None:
    table = Table(
        "estimator", "value", "95% interval", "bootstrap", "effective rows", title=f"{result.policy} on {result.log}"
    )
    table.columns[2].header = f"{result.logged.level:.0%} interval"
    for name, estimate in {"logged": result.logged, **result.estimates}.items():
        label = f"{name} ({result.tuned[name]:g})" if name in result.tuned else name
        label = f"[bold]{label}[/]" if name == result.recommended else label
        if estimate is None:
            table.add_row(label, "refused" if result.refused else "no support", "", "", "")
            continue
        ends = result.bootstrap.get(name)
        table.add_row(
            label,
            f"{estimate.value:.5f}",
            f"[{estimate.low:.5f}, {estimate.high:.5f}]",
            f"[{ends[0]:.5f}, {ends[1]:.5f}]" if ends else "",
            f"{estimate.ess:.0f} of {estimate.n}",
        )
    if result.stratum is not None:
        e = result.stratum
        table.add_row("drawn uniformly", f"{e.value:.5f}", f"[{e.low:.5f}, {e.high:.5f}]", "", f"{e.ess:.0f} of {e.n}")
    if result.trend:
        last = result.trend[-1]
        table.add_row("at any time", "", f"[{last.low:.5f}, {last.high:.5f}]", "", f"{last.rows} rows")
        table.add_row("lift at any time", "", f"[{last.lift_low:+.5f}, {last.lift_high:+.5f}]", "", f"{last.rows} rows")
    out.print(table)
    if result.segments:
        parts = Table("segment", "value", "intervals that hold together", "rows")
        for name, estimate in result.segments.items():
            if estimate is None:
                parts.add_row(name or "(none)", "too few rows count", "", "")
                continue
            parts.add_row(
                name or "(none)", f"{estimate.value:.5f}", f"[{estimate.low:.5f}, {estimate.high:.5f}]", str(estimate.n)
            )
        out.print(parts)
    if result.found is not None:
        _searched(result.found, out)
    _first(result, out)
    if result.left_out:
        out.print(f"left out: {result.left_out}", highlight=False)
    for reason in result.refused:
        out.print(f"refused: {reason}", style="red", markup=False, highlight=False)
    for reason in result.reasons:
        if reason not in result.refused:
            out.print(f"doubt: {reason}", style="red", markup=False, highlight=False)


def _searched(found: Found, out: Console) -> None:
    if found.segments:
        title = f"segments: lift over what was logged, {found.level:.0%} intervals that hold together"
        table = Table("segment", "share", "lift", "interval", "beyond the rest", "interval", "", title=title)
        for one in found.segments:
            table.add_row(
                Text(one.of),
                f"{one.share:.1%}",
                *(f"{one.lift.value:+.5f}", f"[{one.lift.low:+.5f}, {one.lift.high:+.5f}]"),
                *(f"{one.beyond.value:+.5f}", f"[{one.beyond.low:+.5f}, {one.beyond.high:+.5f}]"),
                ("loses" if one.beyond.value < 0 else "gains") if one.apart else "",
            )
        out.print(table)
    from pipelines.replay.segments import in_words

    out.print(in_words(found), markup=False, highlight=False)


def _first(result: Replay, out: Console) -> None:
    if result.trend:
        # The values at any time are not those of the whole log: rewards may have risen since it began.
        out.print("at any time: without the first fifth of the log's time, which taught their model", highlight=False)
    read = result.estimates[result.recommended] if result.recommended else None
    if read is None:
        return
    line = f"read first: {result.recommended} {read.value:.5f} [{read.low:.5f}, {read.high:.5f}]"
    if result.lift is not None:
        e = result.lift
        line += f", {e.value:+.5f} [{e.low:+.5f}, {e.high:+.5f}] over what was logged"
    out.print(line, markup=False, highlight=False)
    if result.apart:
        names = ", ".join(result.apart)
        out.print(f"further from {result.recommended} than both intervals allow: {names}", markup=False, style="yellow")
    if result.needed is not None:
        e = result.needed
        line = f"to see a lift of {e.lift:g} in {e.power:.0%} of cases: {e.replay} logged decisions like these, or "
        line += f"{e.side} in each side of a test; as long a log as this shows one of {e.smallest:.2g}"
        out.print(line, markup=False, highlight=False)
