"""What a demonstration found, on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from decision.ope.estimate import Estimate
from pipelines.demo.result import DemoResult


def show_demo(result: DemoResult, out: Console) -> None:
    """Print the tables of a demonstration."""
    out.print(_generations(result))
    out.print(_books(result))
    if result.open_bandit:
        out.print(_open_bandit(result))
    out.print(f"report: [bold]{result.report}[/]   {result.seconds:.0f} s", highlight=False)


def _generations(result: DemoResult) -> Table:
    table = _table("Generations", "version", "value by the log", "true value", "greedy accuracy", "gate")
    for entry in result.generations:
        gate = "[green]promoted[/]" if entry.promoted else "[red]refused[/]"
        interval = f"{entry.value:.3f} \\[{entry.low:.3f}, {entry.high:.3f}]"
        table.add_row(entry.version, interval, f"{entry.true_value:.3f}", f"{entry.greedy_accuracy:.3f}", gate)
    table.caption = (
        f"regret {result.regret:.0f} against the oracle; uniform would have {result.regret_uniform:.0f} "
        f"(its value is {result.uniform:.2f}, the oracle's {result.optimum:.2f})"
    )
    return table


def _books(result: DemoResult) -> Table:
    summary, proof = result.summary(), result.proof
    table = _table("Books", "what", "count")
    for name in ("decided", "joined", "pending", "expired", "dropped", "late_outcomes", "duplicates_seen", "lost"):
        colour = "green" if name == "lost" and not summary[name] else "red" if name == "lost" else "default"
        table.add_row(name.replace("_", " "), f"[{colour}]{summary[name]}[/]")
    table.add_row("failed requests", str(proof.failed_requests))
    table.add_row("answers of mixed versions", str(proof.mixed_versions))
    numbers = proof.propensities.numbers
    checked = "[green]hold[/]" if proof.propensities.ok else "[red]fail[/]"
    redrawn = f"{numbers['redrawn']:.0f} of {numbers['decisions']:.0f} redrawn, p = {numbers['p_value']:.2f}"
    table.add_row("propensities", f"{checked} ({redrawn})")
    return table


def _open_bandit(result: DemoResult) -> Table:
    table = _table("Open Bandit", "log", "propensities", "policy", "SNIPS", "DR", "really earned")
    for entry in result.open_bandit:
        checked = "[green]plausible[/]" if entry.propensities.ok else "[red]fail[/]"
        estimates = entry.replay.estimates
        table.add_row(
            f"{entry.logging}/{entry.campaign}",
            checked,
            entry.replay.policy,
            _short(estimates["snips"]),
            _short(estimates["dr"]),
            _short(entry.own),
        )
    failed = [f"{entry.logging}/{entry.campaign}" for entry in result.open_bandit if not entry.propensities.ok]
    if failed:
        table.caption = f"{', '.join(failed)} fails the propensity check: no estimate from it should be used"
    return table


def _short(estimate: Estimate | None) -> str:
    if estimate is None:
        return "no support"
    return f"{estimate.value:.4f} \\[{estimate.low:.4f}, {estimate.high:.4f}]"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", highlight=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or column in {"gate", "policy"} else "right")
    return table
