"""The steps of a loop's night, one command each; `nights` has all of them. Each is safe to run again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.commands.analysis.quality import show_quality
from pipelines.commands.engines import RayAddress, Where, Workers, opened
from pipelines.commands.outcome import DONE, REFUSED, Home, Json, Loop, Outcome, command, progress, who
from pipelines.operations.installation import Installation

if TYPE_CHECKING:
    from pipelines.promotion.watch import SimulatorWatched, Watched

_GAPS = 3
"""Actions named beside the dynamics gap of a simulator."""
_MOST_USERS = 1_000
Version = Annotated[str | None, typer.Option("--version", help="Version (default: the latest one trained).")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness in training.")]


@command
def ingest(
    home: Home = None,
    max_messages: Annotated[int | None, typer.Option(min=0, help="Stop after this many messages.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep going until interrupted.")] = False,
    json: Json = False,
) -> Outcome:
    """Move new messages from the event log into the lake, each exactly once, and their outcomes into the features.

    With --follow it goes on, joins what is mature, and merges small files every hour. Any number of followers share the
    partitions of the log.

    Example: `decision ingest --json`
    """
    if follow and max_messages is not None:
        raise typer.BadParameter("--max-messages is for a single run", param_hint="--max-messages")
    with Installation.at(home) as parts:
        if follow:
            total = _follow(parts)
        else:
            from pipelines.ingestion.ingest import Ingester

            ingester = Ingester(parts.log, parts.lake, loops=parts.loops or None)
            total = ingester.run(max_messages=max_messages, progress=progress)
            parts.push_features(progress)
    return _counted("ingested", msgspec.to_builtins(total))


def _follow(parts: Installation) -> Any:
    import signal
    import threading

    from pipelines.operations.follow import Follower
    from pipelines.state.state import State

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with State(parts.settings.state_url) as agreed, Follower(parts, agreed, progress=progress) as follower:
        return follower.run(parts.settings.commits_every_s, stop)


@command
def join(
    loop: Loop,
    home: Home = None,
    restate: Annotated[
        bool, typer.Option("--restate", help="Join the whole history again under the current reward definition.")
    ] = False,
    late: Annotated[bool, typer.Option("--late", help="With --restate: include outcomes that arrived late.")] = False,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    json: Json = False,
) -> Outcome:
    """Join decisions with their outcomes once the reward window is over.

    To redefine the reward, edit loop.toml and give the reward a new `version`; `--restate` then joins all history
    again, where `--engine` says. The old rows remain readable at the table's earlier version.

    Example: `decision join news --restate --late`
    """
    import pipelines.interactions.join as joins

    if late and not restate:
        raise typer.BadParameter("--late needs --restate", param_hint="--late")
    with Installation.at(home) as parts:
        settings, now = parts.loop(loop), datetime.now(UTC)
        joined: Any = (
            joins.restate(
                parts.lake,
                settings,
                now,
                late=late,
                engine=opened(engine, ray_address, workers),
                progress=progress,
            )
            if restate
            else joins.join(parts.lake, settings, now, progress=progress)
        )
        return _counted("restated" if restate else "joined", _plain(joined))


@command
def train(
    loop: Loop,
    home: Home = None,
    seed: Seed = 1,
    dsjson: Annotated[
        Path | None,
        typer.Option(help="Train on this dsjson file instead, in constant memory (logistic, vw or linear)."),
    ] = None,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    json: Json = False,
) -> Outcome:
    """Train a new version on the loop's interactions and register it. It serves no traffic until it is promoted.

    The rows to learn from are chosen where `--engine` says, and learned from here.

    Example: `decision train news --seed 7`
    """
    if dsjson is not None:
        return _train_from_dsjson(loop, home, seed, dsjson)
    from pipelines.fairness.standing import training_pairs
    from pipelines.training.train import train as run

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        pairs = training_pairs(parts.settings, parts.lake, settings)
        trained = run(
            parts.lake,
            parts.registry,
            settings,
            seed=seed,
            now=datetime.now(UTC),
            pairs=pairs,
            progress=progress,
            engine=opened(engine, ray_address, workers),
        )
    data = _plain(trained)

    def show(out: Console) -> None:
        out.print(f"version [bold]{trained.version}[/] of {loop}, learned from {trained.rows} decisions")
        if trained.session:
            _show_methods(trained.session, out)

    return Outcome(data, show)


def _show_methods(session: dict[str, Any], out: Console) -> None:
    """Print what the log holds, what each method's policy is judged to be worth, and what came of earlier versions."""
    show_quality(session["quality"], out)
    table = Table("method", "believed", "held-out simulator", "over the log there", "by trajectories", "log", "agreed")
    for name, told in session["methods"].items():
        if isinstance(told, str):
            table.add_row(name, told)
            continue
        gain = "{gain:+.4g} [{gain_low:+.4g}, {gain_high:+.4g}]".format_map(told)
        weighed = "-" if told["trajectories"] is None else f"{told['trajectories']:.4g} ({told['steps']} steps)"
        mark = " *" if name == session["chosen"] else ""
        numbers = (f"{told[key]:.4g}" for key in ("believed", "held_out"))
        table.add_row(name + mark, *numbers, gain, weighed, f"{told['logged']:.4g}", "yes" if told["agreed"] else "no")
    out.print(table)
    for name, told in session["methods"].items():
        if "steps_taken" in told and not isinstance(told, str):
            out.print(f"{name}: {_steps_of(told)}")
    for kept in session["record"]:
        seen = "has decided nothing" if kept["came_true"] is None else f"{kept['came_true']:.4g} came true"
        promised = f"{kept['held_out']:.4g} was promised"
        out.print(f"version {kept['version']} ({kept['method']}): {promised}, {seen} ({kept['decisions']} decisions)")


def _steps_of(told: dict[str, Any]) -> str:
    """Return in words what became of steps that users apart have to prove; see `simulators.offline.gated`."""
    users, taken = f"{told['users_apart']:.0f} users apart", told["steps_taken"]
    asked = sum(name.startswith("gain_low_at_") for name in told)
    if not asked:
        return f"{users} whom it imitates are too few, or their decisions, to prove its critic: a plain clone"
    if not taken:
        return f"{users} proved none of {asked} steps towards its critic: a plain clone"
    return f"{users} proved {taken:.0f} of {asked} steps towards its critic, the last at weight {told['beta']:g}"


def _train_from_dsjson(loop: str, home: Path | None, seed: int, path: Path) -> Outcome:
    from pipelines.training.dsjson import train_from_dsjson

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        trained = train_from_dsjson(
            path,
            parts.registry,
            settings,
            seed=seed,
            now=datetime.now(UTC),
            progress=lambda rows: progress(f"decisions of {path.name} learned from", rows),
        )

    def show(out: Console) -> None:
        out.print(f"version [bold]{trained.version}[/] of {loop}, learned from {trained.rows} decisions")

    return Outcome(_plain(trained), show)


@command
def evaluate(
    loop: Loop,
    home: Home = None,
    version: Version = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with champion, baseline or a version (default: the champion, if any).")
    ] = None,
    engine: Where = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    json: Json = False,
) -> Outcome:
    """Estimate the value of a version on decisions that no version was trained on, read where `--engine` says.

    Example: `decision evaluate news --version 4 --against baseline`
    """
    from pipelines.evaluation.evaluate import evaluate as run
    from pipelines.promotion.promote import latest

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        evaluated = run(
            parts.lake,
            parts.registry,
            settings,
            version or latest(parts.registry, loop),
            against=against,
            progress=progress,
            engine=opened(engine, ray_address, workers),
        )

    def show(out: Console) -> None:
        table = Table("policy", "value", "95% interval", "effective rows", title=f"{loop}, {evaluated.rows} rows")
        for value in evaluated.values:
            estimate = value.dr
            interval = f"[{estimate.low:.4f}, {estimate.high:.4f}]"
            table.add_row(value.policy, f"{estimate.value:.4f}", interval, f"{estimate.ess:.0f}")
        lift = evaluated.lift_estimate
        interval = f"[{lift.low:+.4f}, {lift.high:+.4f}]"
        table.add_row(f"lift over {evaluated.against}", f"{lift.value:+.4f}", interval, f"{lift.ess:.0f}")
        if evaluated.over_proven is not None:
            lift = evaluated.over_proven.lift.estimate()
            interval = f"[{lift.low:+.4f}, {lift.high:+.4f}]"
            table.add_row(f"lift over {evaluated.proven}", f"{lift.value:+.4f}", interval, f"{lift.ess:.0f}")
        out.print(table)
        since = f"{evaluated.proven}; verdicts since: {evaluated.looks.verdicts}"
        out.print(f"the gate's margin counts from {since}", highlight=False, markup=False)
        for alarm in evaluated.health.alarms:
            out.print(f"alarm: {alarm}", highlight=False, markup=False)

    return Outcome(_plain(evaluated), show)


@command
def promote(loop: Loop, home: Home = None, version: Version = None, json: Json = False) -> Outcome:
    """Submit a version to the gate, and promote it if it passes. The exit status is 3 if the gate refuses.

    Example: `decision promote news && echo promoted`
    """
    from pipelines.fairness.gate import PanelGate
    from pipelines.promotion.promote import promote as run

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        panels = PanelGate(parts.settings, parts.lake, parts.registry, settings, progress)
        now = datetime.now(UTC)
        promotion = run(
            parts.lake,
            parts.registry,
            settings,
            version=version,
            now=now,
            by=who(),
            panels=panels,
            progress=progress,
        )

    def show(out: Console) -> None:
        word = "[green]promoted[/]" if promotion.promoted else "[red]refused[/]"
        if promotion.candidate is not None:
            word = "[green]rolled out by the guard[/]" if promotion.candidate == promotion.version else "waiting"
        out.print(f"version [bold]{promotion.version}[/] of {loop}: {word}")
        for reason in promotion.reasons:
            out.print(f"  {reason}", markup=False)

    taken = promotion.promoted or promotion.candidate == promotion.version
    return Outcome(_plain(promotion), show, DONE if taken else REFUSED)


@command
def watch(
    loop: Loop,
    home: Home = None,
    length: Annotated[int, typer.Option(min=10, help="Rewarded decisions to examine per user.")] = 20,
    group: Annotated[str, typer.Option(help="Judge groups too, by this context field, as context.city.")] = "",
    seed: Seed = 0,
    users: Annotated[
        bool, typer.Option("--users", help="List the users whose reports no simulator explains, up to 1,000 of them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; change nothing.")] = False,
    json: Json = False,
) -> Outcome:
    """Check that users still respond as a simulator expects; if they do not, go back to the previous version.

    For policies trained in simulators; requires the extra `sim2rec`. The exit status is 3 on an alarm.

    Examples: `decision watch feed --dry-run`, `decision watch feed --dry-run --users`
    """
    from pipelines.promotion.watch import MAX_TOLD
    from pipelines.promotion.watch import watch as run

    with Installation.at(home) as parts:
        now = datetime.now(UTC)
        found = run(
            parts.lake,
            parts.registry,
            parts.loop(loop),
            now=now,
            by=who(),
            length=length,
            group=group,
            seed=seed,
            act=not dry_run,
            most_users=_MOST_USERS if users else MAX_TOLD,
            progress=progress,
        )

    return Outcome(_plain(found), lambda out: show_watched(loop, found, users, out), REFUSED if found.alarmed else DONE)


@command
def rollback(
    loop: Loop,
    home: Home = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Version to go back to (default: the previous champion).")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the verdict.")] = "",
    json: Json = False,
) -> Outcome:
    """Roll back to the previous champion, to a given version, or to the baseline.

    Example: `decision rollback news --reason "clicks fell after noon"`
    """
    from pipelines.promotion.rollback import rollback as run
    from pipelines.registry.mirror import mirror_apart

    with Installation.at(home) as parts:
        parts.loop(loop)
        written = run(parts.registry, loop, now=datetime.now(UTC), by=who(), reason=reason, to=to, mirror=False)
        mirror_apart(parts.settings)

    def show(out: Console) -> None:
        out.print(
            f"{loop}: champion is now [bold]{written.to_version or 'the baseline'}[/] (was {written.from_version})"
        )

    return Outcome(_plain(written), show)


def show_watched(loop: str, found: Watched, users: bool, out: Console) -> None:
    """Print what a watch found; with `users`, a row for each user whose reports no simulator explains."""
    if found.surprise is not None:
        out.print(
            f"surprise {found.surprise:.2f}, alarm above {found.limit:.2f}; {found.users} users, simulators "
            f"learned from {found.learned_from}"
        )
    out.print(found.reason, markup=False)
    for one in found.groups:
        told = f"{one.group or '(none)'}: surprise {one.surprise:.2f}, alarm above {one.limit:.2f}; {one.users} users"
        out.print(told, markup=False, style="red" if one.alarmed else None)
    for simulator in found.simulators:
        out.print(_gaps(simulator), markup=False, highlight=False)
    if found.odd_limit is not None:
        chance = 0.01 * found.users
        told = f"{found.odd} users surprise above {found.odd_limit:.2f} ({chance:.0f} would by chance)"
        names = ", ".join(one.user for one in found.oddest)
        out.print(f"{told}: {names}" if found.odd and not users else told, markup=False)
    if users and found.oddest:
        listed = Table("user", "surprise", title=f"Users of {loop} whose reports no simulator explains")
        for one in found.oddest:
            listed.add_row(Text(one.user), f"{one.surprise:.2f}")
        out.print(listed)
    if found.moved:
        out.print(f"{loop}: champion is now [bold]{found.to_version or 'the baseline'}[/] (was {found.version})")


def _gaps(found: SimulatorWatched) -> str:
    told = f"simulator {found.simulator}: dynamics gap {_gap(found.gap)} ({_gap(found.before)} before)"
    largest = [f"{one.action} {_gap(one.gap)} ({_gap(one.before)} before)" for one in found.actions[:_GAPS]]
    return f"{told}; the largest on {', '.join(largest)}" if largest else told


def _gap(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _counted(what: str, counts: dict[str, Any]) -> Outcome:
    return Outcome(counts, lambda out: out.print(f"{what}: {_counts(counts)}", highlight=False))


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())


def _plain(value: Any) -> dict[str, Any]:
    return msgspec.to_builtins(value)
