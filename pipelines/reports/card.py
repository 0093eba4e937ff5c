"""A version's card, as Markdown: what it is, what it learned from, what it is worth, and what to mind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from decision.artifact import Manifest

_SETTINGS = 40


def summary(manifest: Manifest, evaluated: Mapping[str, Any] | None = None) -> str:
    """Return a version in a sentence or two.

    Args:
        manifest: of the version.
        evaluated: fields of its evaluation; None before there is one.
    """
    data = manifest.data
    learned = f"A policy for {manifest.loop}: {manifest.oracle} under {manifest.exploration.kind}"
    if "rows" in data:
        learned += f", learned from {data.get('sampled') or data['rows']:,} of {data['rows']:,} decisions"
    if data.get("first_ts"):
        learned += f" from {data['first_ts'][:16]} to {data['last_ts'][:16]} UTC"
    if evaluated is None:
        return f"{learned}. Not evaluated yet."
    lift = evaluated["lift_estimate"]
    beside = f"{_signed(lift)} a decision beside {evaluated['against']}"
    return f"{learned}. Worth {beside}, on {evaluated['rows']:,} held-out decisions."


def card(manifest: Manifest, version: str = "", evaluated: Mapping[str, Any] | None = None) -> str:
    """Return the card of a version as Markdown; `version` is "" while it has no number, the rest as in `summary`."""
    lines = [f"# {manifest.loop}{f', version {version}' if version else ''}", "", summary(manifest, evaluated), ""]
    lines += ["## What it is for", ""]
    lines += [
        f"It gives each action that is offered to loop `{manifest.loop}` a probability, so that rewards are high.",
        f"Rewards are defined by `{_inline(manifest.reward)}`; it knows no other loop and no other reward.",
        "",
    ]
    lines += _section("What it learned from", _of(manifest.data, leave=("days", "offsets", "trainings")))
    training = {**manifest.training, "seed": manifest.seed, "parent": manifest.parent or "none"}
    lines += _section("How it was trained", _of(training, leave=("alarms", "variants")))
    if evaluated is not None:
        lines += _worth(evaluated)
    doubts = [*manifest.training.get("alarms", []), *((evaluated or {}).get("health") or {}).get("alarms", [])]
    doubts += [f"the lift: {reason}" for reason in ((evaluated or {}).get("lift_estimate") or {}).get("reasons", [])]
    lines += ["## What to mind", "", *[f"- {doubt}" for doubt in doubts or ["Nothing was found."]], ""]
    code = {"code_version": manifest.code_version, "created_at": manifest.created_at, **manifest.libraries}
    lines += _section("Made with", _of(code))
    return "\n".join(lines)


def _worth(evaluated: Mapping[str, Any]) -> list[str]:
    rows = [(value["policy"], value["dr"]) for value in evaluated["values"]]
    rows.append((f"lift over {evaluated['against']}", evaluated["lift_estimate"]))
    held = f"Doubly robust, on {evaluated['rows']:,} decisions that no version learned from."
    lines = ["## What it is worth", "", held, ""]
    lines += ["| policy | value | 95% interval | effective rows |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {_number(one['value'])} | {_number(one['low'])} to {_number(one['high'])} | {one['ess']:,.0f} |"
        for name, one in rows
    ]
    return [*lines, ""]


def _section(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"## {title}", "", "| | |", "| --- | --- |", *[f"| {name} | {value} |" for name, value in rows], ""]


def _of(fields: Mapping[str, Any], leave: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(name, _inline(value)) for name, value in fields.items() if name not in leave][:_SETTINGS]


def _inline(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")[:200]


def _signed(estimate: Mapping[str, Any]) -> str:
    low, high = _number(estimate["low"]), _number(estimate["high"])
    return f"{estimate['value']:+.4g} [{low}, {high}]"


def _number(value: float | None) -> str:
    return "unbounded" if value is None or abs(value) == float("inf") else f"{value:.4g}"
