"""Panels: what they look at, who judges it, how they stand, and what a dispute comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from decision.errors import FieldError
from pipelines.commands.outcome import DONE, REFUSED, Home, Json, Loop, Outcome, Seed, command, progress, who
from pipelines.operations.installation import Installation

Task = Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.", show_default=False)]


@command
def mine(
    loop: Loop,
    home: Home = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Version whose probabilities are compared (default: the champion).")
    ] = None,
    decisions: Annotated[int, typer.Option(help="Number of latest decisions to search.")] = 2_000,
    mined: Annotated[int, typer.Option(help="Mined pairs to open: a large gap over a small distance.")] = 20,
    probe: Annotated[int, typer.Option(help="Random pairs to open; they estimate the violation rate.")] = 10,
    types: Annotated[
        int, typer.Option(help="Pairs to open that tell kinds of auditors apart, where there are several.")
    ] = 5,
    gold: Annotated[int, typer.Option(help="Pairs with a known answer to ask again.")] = 0,
    seed: Seed = 1,
    json: Json = False,
) -> Outcome:
    """Find pairs of similar people treated differently among a loop's latest decisions, and open a task for each.

    Example: `decision audit mine credit --mined 20 --probe 10 && decision audit assign credit`
    """
    from pipelines.fairness.mine import mine as run
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        with Governance.at(parts.settings) as store:
            done = run(
                store,
                parts.lake,
                parts.registry,
                settings,
                now=datetime.now(UTC),
                by=who(),
                seed=seed,
                version=version,
                decisions=decisions,
                mined=mined,
                probe=probe,
                types=types,
                gold=gold,
                progress=progress,
            )

    def show(out: Console) -> None:
        out.print(
            f"{done.window_id}: {done.mined} mined, {done.probe} probe, {done.types} telling, {done.gold} gold and "
            f"{done.appeals} appeal tasks from {done.pairs} near pairs of {done.people} people "
            f"(version {done.policy_version})"
        )

    return Outcome(msgspec.to_builtins(done), show)


@command
def assign(loop: Loop, home: Home = None, seed: Seed = 1, json: Json = False) -> Outcome:
    """Draw a panel for each open pair that has none, and close the pairs whose deadline has passed.

    If the loop clamps, the pairs upheld so far are published to the service.

    Example: `decision audit assign credit`
    """
    import numpy as np

    from pipelines.fairness.publish import publish
    from pipelines.fairness.store import Governance
    from pipelines.fairness.tasks import assign as run
    from pipelines.fairness.verdicts import close_overdue

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        now, by = datetime.now(UTC), who()
        with Governance.at(parts.settings) as store:
            closed = close_overdue(store, now=now, by=by)
            counts = {"closed": closed, **run(store, loop, now=now, by=by, rng=np.random.default_rng(seed))}
            counts["clamped"] = publish(parts.settings, store, parts.lake, settings)

    def show(out: Console) -> None:
        out.print(f"{counts['assigned']} assigned, {counts['waiting']} wait for auditors, {closed} closed by deadline")

    return Outcome(counts, show)


@command
def status(loop: Loop, home: Home = None, json: Json = False) -> Outcome:
    """Show the state of a loop's panels: tasks, backlog, agreement, violation rate with its interval, worst pairs.

    Example: `decision audit status credit --json`
    """
    from pipelines.fairness.report import status as run
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts:
        parts.loop(loop)
        with Governance.at(parts.settings) as store:
            seen = run(store, loop, now=datetime.now(UTC))

    def show(out: Console) -> None:
        table = Table("what", "how many", title=f"panels of {loop}")
        for name, count in sorted(seen.tasks.items()):
            table.add_row(f"pairs {name.replace('_', ' ')}", str(count))
        table.add_row("judgements", str(seen.judgements))
        table.add_row("judgements asked for", str(seen.backlog))
        table.add_row("overdue", str(seen.overdue))
        alpha = "" if seen.alpha is None else f" (Krippendorff's alpha {seen.alpha:.3f})"
        table.add_row("the auditors", f"{seen.agreement}{alpha}")
        rate = "-" if seen.rate is None else f"{seen.rate:.4f} [{seen.rate_low:.4f}, {seen.rate_high:.4f}]"
        table.add_row("violation rate among near pairs", rate)
        table.add_row("audit log entries", str(seen.entries))
        out.print(table)

    return Outcome(msgspec.to_builtins(seen), show)


@command
def types(loop: Loop, home: Home = None, seed: Seed = 1, json: Json = False) -> Outcome:
    """Look for auditors of several kinds among those who judged a loop's pairs; note the result for the dashboard.

    A number of types is taken over a smaller one when it predicts held-out judgements better by two standard errors.

    Example: `decision audit types credit`
    """
    from pipelines.fairness.judges.judge_types import judge_types, note, told
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts:
        parts.loop(loop)
        with Governance.at(parts.settings) as store:
            seen = told(store, loop, judge_types(store, loop, seed=seed))
            with store.write(datetime.now(UTC), who()) as writing:
                note(writing, loop, seen)

    def show(out: Console) -> None:
        out.print(f"{seen.judgements} judgements of {seen.judges} auditors: ", end="")
        out.print({0: "too few to tell kinds apart", 1: "of one kind"}.get(len(seen.types), f"{len(seen.types)} types"))
        if not seen.types:
            return
        table = Table(
            "type", "auditors", "holds unfair", "asked", "weighs, by standard deviation", title=f"auditors of {loop}"
        )
        for number, one in enumerate(seen.types, 1):
            weighs = ", ".join(f"{name} {weight:+.2f}" for name, weight in one.weighs)
            table.add_row(str(number), f"{one.judges:.1f}", f"{one.unfair:.0%}", "yes" if one.asked else "no", weighs)
        out.print(table)
        table = Table("types", "log-likelihood of a held-out judgement", "standard error of the gain over one")
        for number, (value, error) in enumerate(zip(seen.held_out, seen.gain_error, strict=True), 1):
            table.add_row(str(number), f"{value:.4f}", "-" if number == 1 else f"{error:.4f}")
        out.print(table)
        out.print(f"{seen.backed} of {seen.upheld} upheld pairs are backed by each type that a clamp asks")

    return Outcome(msgspec.to_builtins(seen), show)


@command
def adjudicate(
    task: Task,
    verdict: Annotated[str, typer.Option("--verdict", help="upheld or dismissed.")],
    note: Annotated[str, typer.Option("--note", help="Why; kept with the verdict.")],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Decide a pair on which the panel is divided.

    Example: `decision audit adjudicate t1f2e3d4c5b6 --verdict upheld --note "same income, same debt"`
    """
    from pipelines.fairness.errors import NoTaskError
    from pipelines.fairness.store import Governance
    from pipelines.fairness.verdicts import adjudicate as run

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        try:
            done = run(store, task, verdict, note=note, now=datetime.now(UTC), by=who())
        except NoTaskError as error:
            raise FieldError("task", wanted="the id of a task", got=task) from error
    return Outcome(done, lambda out: out.print(f"{task}: {done['status']}"))


@command
def appeal(
    loop: Loop,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")],
    event: Annotated[str, typer.Option("--event", help="Event id of the decision that is appealed.")] = "",
    task: Annotated[str, typer.Option("--task", help="Or the task whose verdict is appealed.")] = "",
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Record an appeal: the decision is paired at the next mining, or the verdict becomes a dispute again.

    Example: `decision audit appeal credit --event e1 --reason "my neighbour got it"`
    """
    from pipelines.fairness.store import Governance
    from pipelines.fairness.verdicts import appeal as run

    with Installation.at(home) as parts:
        parts.loop(loop)
        with Governance.at(parts.settings) as store:
            made = run(store, loop, reason=reason, event_id=event, task_id=task, now=datetime.now(UTC), by=who())
    return Outcome({"appeal_id": made}, lambda out: out.print(f"appeal {made}"))


@command
def replay(
    loop: Loop,
    home: Home = None,
    quorum: Annotated[float, typer.Option(help="Share of the panel that must see a violation.")] = 0.6,
    sensitivity: Annotated[float, typer.Option(help="Margin by which a gap must exceed the acceptable one.")] = 0.0,
    json: Json = False,
) -> Outcome:
    """Recompute the verdicts under another quorum or sensitivity; nobody is asked and nothing changes.

    Example: `decision audit replay credit --quorum 0.8`
    """
    from pipelines.fairness.report import replay as run
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts:
        parts.loop(loop)
        with Governance.at(parts.settings) as store:
            done = run(store, loop, quorum=quorum, sensitivity=sensitivity)

    def show(out: Console) -> None:
        out.print(
            f"quorum {quorum:g}, sensitivity {sensitivity:g}: {done.upheld} upheld ({len(done.added)} more, "
            f"{len(done.removed)} fewer), {done.dismissed} dismissed, {done.disputed} disputed"
        )

    return Outcome(msgspec.to_builtins(done), show)


@command
def gate(
    loop: Loop,
    home: Home = None,
    version: Annotated[str | None, typer.Option("--version", help="Version (default: the latest one trained).")] = None,
    json: Json = False,
) -> Outcome:
    """Run the panels' part of the gate on a version without promoting it. The exit status is 3 if it would refuse.

    Example: `decision audit gate credit --version 4`
    """
    from pipelines.fairness.gate import assess
    from pipelines.fairness.store import Governance
    from pipelines.promotion.promote import latest

    with Installation.at(home) as parts:
        settings = parts.loop(loop)
        asked = version or latest(parts.registry, loop)
        champion = parts.registry.aliases(loop).get("champion")
        with Governance.at(parts.settings) as store:
            done = assess(store, parts.lake, parts.registry, settings, asked, champion, progress)

    def show(out: Console) -> None:
        out.print(f"version {asked} of {loop}: " + ("may pass" if done.passed else "refused"))
        for reason in done.reasons:
            out.print(f"  {reason}", markup=False)

    return Outcome({"version": asked, **msgspec.to_builtins(done)}, show, DONE if done.passed else REFUSED)
