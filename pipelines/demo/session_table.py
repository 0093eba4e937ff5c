"""What the demo of policies with memory found, on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.demo.session_result import SessionResult


def show_sessions(result: SessionResult, out: Console) -> None:
    """Print the tables of the demo."""
    table = _table("Returns", "policy", "users", "return per user", "95%")
    for one in result.served:
        table.add_row(one.policy, str(one.users), f"{one.value:.1f}", f"{one.low:.1f} to {one.high:.1f}")
    table.add_row("optimum", "", f"{result.optimum:.1f}", "")
    gap, low, high, share = result.gain
    table.caption = f"the policy with memory over the bandit: {gap:+.1f} ({low:+.1f} to {high:+.1f}), {share:+.1%}"
    out.print(table)
    table = _table("Nights", "version", "what", "learned from", "gate")
    for night in result.nights:
        table.add_row(night.version or "-", night.oracle, str(night.learned_from), night.verdict.replace("_", " "))
    out.print(table)
    proof = result.proof
    table = _table("Books", "what", "count")
    table.add_row("decided", str(result.decided))
    for name in ("lost", "failed_requests", "differing_answers", "differing_propensities"):
        count = getattr(proof, name)
        table.add_row(name.replace("_", " "), f"[{'red' if count else 'green'}]{count}[/]")
    out.print(table)
    out.print(f"report: [bold]{result.report}[/]   {result.seconds:.0f} s", highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", highlight=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or column in {"gate", "what"} else "right")
    return table
