"""What a log of sessions holds, printed before a training and by a replay's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show_quality(quality: Mapping[str, Any], out: Console) -> None:
    """Print the row, the versions that drew, and which learner may be believed."""
    known = ("users", "decisions", "TQ", "semi-variance", "by users")
    table = Table(*known, "effective actions", "shown", "counts", "residual", title="sessions in the log")
    table.add_row(
        str(quality["users"]),
        str(quality["decisions"]),
        _number(quality["tq"], ".2f"),
        f"{quality['semivariance']:.3f}",
        f"{quality['share_of_users']:.0%}",
        _number(quality["effective_actions"], ".1f"),
        f"{quality['executed']} of {quality['actions']}",
        f"{quality['counts']:.1%}",
        _number(quality["residual"], ".2f"),
    )
    out.print(table)
    if len(quality["versions"]) > 1:
        drew = Table("version", "trajectories", "reward per decision", "deviation")
        for each in quality["versions"]:
            drew.add_row(each["name"], str(each["users"]), f"{each['mean']:.4g}", f"{each['deviation']:.4g}")
        out.print(drew)
    said = f"{quality['sampler']}: {quality['effective']:.0f} of {quality['users']} trajectories are effective"
    out.print(said, markup=False, highlight=False)
    for sentence in quality["advice"]:
        out.print(f"  {sentence}", markup=False, highlight=False)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
