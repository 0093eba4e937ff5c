"""The study of Sim2Rec in other worlds than long-term satisfaction: their tables."""

from __future__ import annotations

from typing import Any

from pipelines.studies.report import Sheet, number, with_interval, worst_member

COLUMNS = {
    "value": "value",
    "ratio_there": "/ same student trained there",
    "over_logged": "over the log",
    "believed": "believed",
    "belief_true": "believed / true",
    "belief": "believed / its own simulators",
}

_DIGITS = {"clicks": 1, "trained": 1}


def driver_sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of the driver programme."""
    rows, seeded = result["methods"], len(result["seeds"])
    values = [
        [method, *(with_interval(row, key) if key in row else "-" for key in COLUMNS)] for method, row in rows.items()
    ]
    note = (
        "Value: reward over that of usual orders, from the second week on. Believed: what the simulators trained in "
        "promise; its own simulators: those learned from the fifth city's log, which no student but `there` saw. No "
        "worst member is told: what is best in a learned city is not known."
    )
    out = [Sheet(f"Driver programme, fifth city unseen: {seeded} seeds", ["method", *COLUMNS.values()], values, note)]
    changes = []
    for method, row in rows.items():
        theirs = result["paper"].get(method, {})
        cells = [_percent(row.get(key)) for key in ("orders_change", "orders_trained", "cost_change", "cost_trained")]
        cells += [_percent(theirs.get(key)) for key in ("orders", "orders_trained", "cost", "cost_trained")]
        changes.append([method, *cells])
    names = ["orders", "orders, trained", "cost", "cost, trained"]
    columns = ["method", *names, *(f"authors: {name}" for name in names)]
    note = (
        "Change against the logging policy: orders and bonus money in the fifth city, and in the simulators trained "
        "in. The authors' figures are of their drivers and their log, which are not public: another world."
    )
    out.append(Sheet("Driver programme: orders and cost", columns, changes, note))
    checks = [
        [
            method,
            number(row["known"], 2),
            f"{row['promoted']} of {seeded}",
            number(row["surprise"], 3),
            f"{row['alarmed']} of {seeded}",
            *(f"{100 * week['lift']:+.1f} +- {100 * week['half']:.1f}%" for week in row["weeks"]),
            _percent(result["paper"]["week"].get(method)),
        ]
        for method, row in rows.items()
        if "known" in row
    ]
    columns = ["method", "known to the log", "gate promotes", "surprise", "watch alarmed"]
    columns += [f"A/B, seed {seed}" for seed in result["seeds"]]
    note = (
        "Known to the log: mean importance weight. A/B: seven days, half of the drivers, each against his own three "
        "weeks before, with 95% intervals. The authors' A/B had another policy before and no interval."
    )
    out.append(Sheet("Driver programme: gate, watch, A/B", [*columns, "authors: A/B"], checks, note))
    return out


def retention_sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the table of retention."""
    named = {
        "clicks": "clicks in 60 days",
        "ratio_there": "/ same student trained there",
        "over_constant": "/ best level held",
        "trained": "in the groups trained on",
    }
    rows = [
        [
            method,
            *(with_interval(row, key, _DIGITS.get(key, 3)) if key in row else "-" for key in named),
            worst_member(row),
        ]
        for method, row in result["methods"].items()
    ]
    note = (
        "Groups trained on are bored by 6, 7, 9 and 10 clicks on a topic within five visits, the one deployed to by 8. "
        "The worst member is the group trained on with the least share of what its best level brings, held: its "
        "optimum is not known."
    )
    title = f"Retention, fifth group unseen: {len(result['seeds'])} seeds"
    return [Sheet(title, ["method", *named.values(), "worst member, / best level held"], rows, note)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f}%"
