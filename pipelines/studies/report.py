"""What a study leaves behind: its result as JSON, tables as Markdown, figures as SVG, and all of it as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from decision.errors import FieldError
from pipelines.reports.figures import INK, MUTED, SERIES
from pipelines.reports.pages import render

_COLOURS = {"--ink": INK, "--muted": MUTED} | {f"--s{number}": colour for number, colour in enumerate(SERIES, 1)}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table.

    Attributes:
        title: what it shows.
        columns: their headings; the first column names the row. A single one holds sentences.
        rows: cells as text.
        note: what a reader must know to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing.

    Attributes:
        name: of its file, without the ending.
        svg: as `pipelines.reports.figures.svg` returns it.
        caption: what it shows.
    """

    name: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Findings:
    """A study's end.

    Attributes:
        name: the study's.
        about: what was done, in a sentence or two.
        result: the JSON object.
        sheets: its tables.
        figures: its drawings.
    """

    name: str
    about: str
    result: dict[str, Any]
    sheets: Sequence[Sheet]
    figures: Sequence[Figure]


def show(findings: Findings, console: Console) -> None:
    """Print the tables; where one is too wide for the console, without its intervals."""
    for sheet in findings.sheets:
        widths = [max(len(row[i]) for row in [sheet.columns, *sheet.rows]) for i in range(len(sheet.columns))]
        narrow = len(widths) > 1 and sum(widths) + 3 * len(widths) > console.width
        table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD)
        for index, column in enumerate(sheet.columns):
            first = index == 0
            table.add_column(column, justify="left" if first else "right", no_wrap=first and len(widths) > 1)
        for row in sheet.rows:
            table.add_row(*(cell.split(" [")[0] if narrow else cell for cell in row))
        console.print(table)
        if sheet.note:
            console.print(sheet.note, style="dim", markup=False, highlight=False)


def prepare(folder: Path) -> None:
    """Make `folder`, before a study spends minutes on what could not be written.

    Raises:
        FieldError: it cannot be made or is a file.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FieldError("out", wanted="a folder that can be written", got=str(folder)) from error


def write(findings: Findings, folder: Path) -> list[Path]:
    """Write ``result.json``, ``tables.md``, ``report.html`` and ``figures/*.svg`` to `folder`; return the paths."""
    prepare(folder)
    encoded = msgspec.json.format(msgspec.json.encode(findings.result), indent=2)
    written = {
        folder / "result.json": encoded.decode() + "\n",
        folder / "tables.md": markdown(findings),
        folder / "report.html": page(findings),
    } | {folder / "figures" / f"{figure.name}.svg": standalone(figure.svg) for figure in findings.figures}
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)


def markdown(findings: Findings) -> str:
    """Return the tables as Markdown."""
    parts = [f"# Study: {findings.name}", findings.about]
    for sheet in findings.sheets:
        rule = [":--", *["--:"] * (len(sheet.columns) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in [sheet.columns, rule, *sheet.rows]]
        parts += [f"## {sheet.title}", "\n".join(lines)]
        if sheet.note:
            parts.append(sheet.note)
    return "\n\n".join(parts) + "\n"


def page(findings: Findings) -> str:
    """Return one HTML page that needs nothing from a network."""
    return render("study.html", findings=findings)


def standalone(svg: str) -> str:
    """Return a figure for use outside of a page: fixed colours on white."""
    for variable, colour in _COLOURS.items():
        svg = svg.replace(f"var({variable})", colour)
    start = svg.index(">", svg.index("<svg ")) + 1
    return svg[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` as a cell."""
    return "-" if value is None else f"{value:,.{digits}f}"


def worst_member(row: dict[str, Any]) -> str:
    """Return the member of the set where a policy does worst, and its share of the member's optimum, as a cell."""
    return f"{row['worst']}: {number(row['worst_share'])}" if "worst" in row else "-"


def with_interval(row: dict[str, Any], key: str, digits: int = 3) -> str:
    """Return ``row[key]`` with the interval beside it as a cell."""
    ends: Sequence[float | None] = row[f"{key}_ci"]
    if ends[0] is None and ends[1] is None:
        return number(row[key], digits)
    return f"{number(row[key], digits)} [{number(ends[0], digits)}, {number(ends[1], digits)}]"
