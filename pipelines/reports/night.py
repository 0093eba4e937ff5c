"""A night in words, for who looks at it in the morning: as text, and as one HTML file that fetches nothing.

It is made of the run's manifest alone, so a night that failed has one, too, and an earlier one can be told again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.runs import Run
from pipelines.settings import Settings
from pipelines.storage import Storage

_log = logging.getLogger(__name__)

_FEATURES, _REWARDS = 12, 8
_ERRORS = {
    "ingest": "what the log had was not brought into the lake",
    "join": "decisions did not get their rewards",
    "train": "nothing was learned",
    "evaluate": "nobody knows what the new version is worth",
    "promote": "who is in charge has not changed",
}
_VERDICTS = {
    "promoted": "Version {version} was promoted.",
    "rolling_out": "Version {version} passed the gate; the guard rolls it out.",
    "waiting": "Version {version} waits: another one is being rolled out.",
    "refused": "Version {version} was refused; {before} stays in charge.",
    "skipped": "Nothing was learned.",
    "open": "The night is not finished.",
}


class Table(NamedTuple):
    """Columns and rows of texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A part of a report: sentences, and a table where there is one."""

    title: str
    lines: list[str]
    table: Table | None = None


class Told(NamedTuple):
    """A night in words.

    Attributes:
        title: loop and run.
        headline: what came of it, in a sentence or two.
        good: whether nobody needs to look.
        sections: the rest, those that matter first.
    """

    title: str
    headline: str
    good: bool
    sections: list[Section]


def night_told(run: Run, to_do: Mapping[Any, str]) -> Told:
    """Return what a run's manifest says, in words.

    Args:
        run: the night.
        to_do: what to do about an alarm, by its kind.
    """
    alarmed = [
        f"{_sentence(alarm['text'])} {to_do.get(alarm['kind'], '')}".rstrip()
        for alarm in (run.result("alarms") or {}).get("alarms", [])
    ]
    doubts = (run.result("train") or {}).get("alarms", [])
    doubts = doubts + ((run.result("evaluate") or {}).get("health") or {}).get("alarms", [])
    doubts = [_sentence(doubt) for doubt in doubts]
    sections = [
        *_failure(run),
        Section("What to watch", alarmed + doubts or ["Nothing."]),
        *_verdict(run),
        *_learned(run),
        *_data(run),
        *_drift(run),
        *_steps(run),
    ]
    good = run.status != "failed" and not alarmed
    return Told(f"Night of {run.loop}, {run.run_id}", _headline(run), good, sections)


def night_key(loop: str, run_id: str, kind: str) -> str:
    """Return the key of a report in the installation's files; `kind` is ``html`` or ``txt``."""
    return f"reports/nights/{loop}/{run_id}.{kind}"


def keep_night(settings: Settings, run: Run, to_do: Mapping[Any, str]) -> str:
    """Write a run's report in both forms and return where its page is; "" with a warning where that is not possible."""
    try:
        from pipelines.reports.pages import render  # imports Jinja

        told = night_told(run, to_do)
        page, text = render("night.html", told=told), as_text(told)
        files = Storage.of(settings)
        files.write(night_key(run.loop, run.run_id, "txt"), text.encode())
        files.write(night_key(run.loop, run.run_id, "html"), page.encode())
    except Exception as error:  # whatever a manifest holds, its report is no reason for a night to fail
        _log.warning("the report of night %s of %s was not written: %r", run.run_id, run.loop, error)
        return ""
    return f"{files.url}/{night_key(run.loop, run.run_id, 'html')}"


def forget_nights(settings: Settings, gone: Iterable[Run]) -> None:
    """Remove the reports of runs.

    Raises:
        StorageError: object storage does not answer.
    """
    keys = [night_key(run.loop, run.run_id, kind) for run in gone for kind in ("html", "txt")]
    if keys:
        Storage.of(settings).delete(*keys)


def as_text(told: Told) -> str:
    """Return a report as plain text."""
    lines = [told.title, "=" * len(told.title), "", told.headline]
    for section in told.sections:
        lines += ["", section.title, "-" * len(section.title), *section.lines]
        if section.table is not None:
            rows = [list(section.table.columns), *map(list, section.table.rows)]
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            lines += [
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
            ]
    return "\n".join(lines) + "\n"


def _headline(run: Run) -> str:
    if run.status == "failed":
        return f"The night failed in its step {run.error.partition(':')[0]!r}."
    promoted = run.result("promote") or {}
    before = f"version {promoted['champion']}" if promoted.get("champion") else "the baseline"
    text = _VERDICTS[run.verdict].format(version=promoted.get("version", ""), before=before)
    return f"{text} {_sentence(promoted['skipped'])}" if run.verdict == "skipped" else text


def _failure(run: Run) -> list[Section]:
    if run.status != "failed":
        return []
    step, _, cause = run.error.partition(": ")
    what, _, remedy = cause.partition("; ")
    done = ", ".join(entry.name for entry in run.steps) or "none"
    return [
        Section(
            "What failed",
            [
                f"Step: {step}{', so ' + _ERRORS[step] if step in _ERRORS else ''}. Finished before: {done}.",
                f"Cause: {what}",
                f"What to do: {remedy or 'look at the cause; `decision doctor` checks what the night needs'}.",
                f"Then: `decision nightly {run.loop}` goes on with this step; finished ones are kept for 24 hours.",
            ],
        )
    ]


def _verdict(run: Run) -> list[Section]:
    evaluated, promoted = run.result("evaluate") or {}, run.result("promote") or {}
    if "skipped" in promoted or "skipped" in evaluated:
        return [Section("Who won, and why", [_sentence((promoted or evaluated)["skipped"])])]
    if not evaluated:
        return []
    lift = evaluated["lift_estimate"]
    rows = [(value["policy"], *_estimate(value["dr"])) for value in evaluated["values"]]
    rows.append((f"lift over {evaluated['against']}", *_estimate(lift)))
    lines = [_sentence(reason) for reason in promoted.get("reasons", [])]
    lines.append(f"Values are doubly robust, on {evaluated['rows']:,} decisions that no version learned from.")
    table = Table(("policy", "value", "95% interval", "effective rows"), rows)
    return [Section("Who won, and why", lines, table)]


def _learned(run: Run) -> list[Section]:
    trained = run.result("train") or {}
    if "version" not in trained:
        return []
    data, metrics = trained["data"], trained["metrics"]
    lines = [
        f"Version {trained['version']} learned from {trained['rows']:,} decisions from {data['first_ts'][:16]} to "
        f"{data['last_ts'][:16]} UTC, of {data['rows']:,} in the window; {data['holdout']:,} are kept to judge on.",
        f"Rewards were {metrics.get('train.mean_reward', 0.0):.4g} on average, from {data['reward_low']:.4g} to "
        f"{data['reward_high']:.4g}, under definition {data['reward_version']!r}.",
    ]
    if data["other_definitions"]:
        lines.append(f"{data['other_definitions']:,} rows carry another reward definition and were left out.")
    compared = trained.get("compared") or []
    if len(compared) < 2:
        return [Section("What was learned", lines)]
    rows = [
        (
            _variant(entry["variant"]),
            "-" if entry.get("loss") is None else f"{entry['loss']:.5g}",
            "chosen" if entry["chosen"] else "",
        )
        for entry in compared
    ]
    return [Section("What was learned", lines, Table(("configuration", "loss", "choice"), rows))]


def _variant(variant: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in variant.items() if value is not None)
    return told or "the loop's own"


def _data(run: Run) -> list[Section]:
    alarms, joined = run.result("alarms") or {}, (run.result("join") or {}).get("joined") or {}
    lines = [_settled(joined)] if joined else []
    if alarms.get("rows"):
        lines.append(f"The night has {alarms['rows']:,} decisions; {alarms['before']:,} before are beside them.")
    for name, what, form in (
        ("value", "Mean reward", ".4g"),
        ("join_rate", "Share that met an outcome", ".1%"),
        ("entropy", "Exploration, the entropy of the probabilities beside that of choosing at random", ".1%"),
    ):
        if alarms.get(name) is not None:
            before = alarms.get(f"{name}_before")
            lines.append(f"{what}: {alarms[name]:{form}}{'' if before is None else f', {before:{form}} before'}.")
    return [Section("From what", lines)] if lines else []


def _settled(joined: dict[str, Any]) -> str:
    parts = [
        f"{joined.get('joined', 0):,} decisions met an outcome",
        f"{joined.get('expired', 0):,} had none when their time was over",
        *(
            f"{number:,} were dropped ({why.replace('_', ' ')})"
            for why, number in (joined.get("dropped") or {}).items()
        ),
        f"{joined.get('pending', 0):,} are open",
    ]
    if clipped := joined.get("clipped"):
        parts.append(f"{clipped:,} rewards were cut to the range of `[reward]`")
    return f"{', '.join(parts)}."


def _drift(run: Run) -> list[Section]:
    drift = (run.result("alarms") or {}).get("drift") or {}
    found = drift.get("found")
    if found is None:
        return [Section("Drift", [_sentence(f"not looked for: {drift['skipped']}")])] if drift.get("skipped") else []
    beside = (
        f"Beside the {found['before']:,} decisions of version {drift['version']}'s training data that its profile has."
    )
    explained = (
        "The stability index is 0 where a feature is spread as it was, and .1 or more where it is spread otherwise. "
        "What moved the most is the value, or tenth of the numbers, whose share of the decisions changed the most."
    )
    of_actions = [moved | {"name": f"of actions: {moved['name']}"} for moved in found.get("actions", [])[:_FEATURES]]
    features = [*found["features"][:_FEATURES], *of_actions, *([found["offers"]] if found.get("offers") else [])]
    rows = [
        (
            moved["name"],
            f"{moved['psi']:.3f}",
            f"{moved['missing']:.2%} ({moved['missing_before']:.2%})",
            f"{moved['cell']}: {moved['share']:.2%} ({moved['share_before']:.2%})",
            ", ".join([*moved["new"], *(f"{value} gone" for value in moved["gone"])]) or "-",
            "alarm" if moved["alarmed"] else "",
        )
        for moved in features
    ]
    columns = ("feature", "stability index", "missing (before)", "moved the most (before)", "new and gone", "raised")
    sections = [Section("Drift", [beside, explained], Table(columns, rows))]
    rewards = [
        (
            changed["of"] or "all",
            f"{changed['mean']:.4g}",
            f"{changed['mean_before']:.4g}",
            f"{changed['share']:.1%}",
            f"{changed['effective']:.0f}",
            "alarm" if changed["alarmed"] else "",
        )
        for changed in found["rewards"][:_REWARDS]
    ]
    if rewards:
        text = "Rewards of actions that are drawn blindly, at their rates in training: no policy changes them."
        table = Table(("decisions", "reward", "before", "share", "effective rows", "raised"), rewards)
        sections.append(Section("Rewards beside training", [text], table))
    return sections


def _steps(run: Run) -> list[Section]:
    rows = [(entry.name, entry.finished_at[:19].replace("T", " ")) for entry in run.steps]
    lines = [f"Begun {run.started_at:%Y-%m-%d %H:%M:%S} UTC, seed {run.seed}."]
    return [Section("Steps", lines, Table(("step", "finished, UTC"), rows) if rows else None)]


def _estimate(estimate: dict[str, Any]) -> tuple[str, str, str]:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    interval = "unbounded" if low is None or high is None else f"{low:.4g} to {high:.4g}"
    return "-" if value is None else f"{value:.4g}", interval, f"{estimate['ess']:,.0f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
