"""Draws `architecture.svg` from the contracts of pyproject.toml and the imports of the code: `make picture`.

Layers come from the import-linter contracts, rooms from the folders, arrows from the code. Of the arrows inside a
package only those are drawn that no longer way round implies. `tests/test_architecture.py` draws the picture again and
compares.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_suffix(".svg")
PACKAGES = ("serving", "pipelines", "simulators", "decision")  # as the first contract has them
DRAWN = (*PACKAGES, "decision.ope")  # whose layers are drawn; any other room is one box

# What a room holds, on one or two lines. Every folder has a caption, every caption a folder.
CAPTIONS = {
    "serving.http": "routes, OpenAPI,|Personalizer's interface",
    "serving.fairness": "panels over HTTP",
    "serving.console": "pages for operators",
    "pipelines.commands": "one file for each stage|of a loop's life",
    "pipelines.demo": "the whole loop around|an application",
    "pipelines.studies": "the papers' claims,|measured again",
    "pipelines.operations": "processes, status,|init, erasure",
    "pipelines.promotion": "gate, promotion,|rollback, watch",
    "pipelines.retention": "what goes with age",
    "pipelines.evaluation": "a new version|on the holdout",
    "pipelines.replay": "any policy on any log",
    "pipelines.training": "window, fit, manifest",
    "pipelines.guard": "the guarded rollout",
    "pipelines.settings": "loop.toml, environment",
    "pipelines.fairness": "panels, verdicts, audit log",
    "pipelines.features": "Feast: uploads,|streams, lookups",
    "pipelines.formats": "other systems' logs",
    "pipelines.trajectories": "users' histories,|windows of them",
    "pipelines.interactions": "decisions joined with|outcomes; rewards, counters",
    "pipelines.ingestion": "log to lake: parse,|deduplicate, commit",
    "pipelines.lake": "Delta tables",
    "pipelines.log": "the event log",
    "pipelines.access": "keys, tokens, roles, tenants",
    "pipelines.engines": "here, or on Ray",
    "pipelines.online": "shared by replicas",
    "pipelines.registry": "versions on MLflow",
    "pipelines.state": "what machines|agree on",
    "pipelines.reports": "figures and pages",
    "simulators.studies": "one for each paper",
    "simulators.trainers": "policies with memory, judged",
    "simulators.offline": "policies from a log alone",
    "simulators.learned": "simulators fitted to logs",
    "simulators.sim2rec": "one policy, many simulators",
    "simulators.environments": "worlds and their users",
    "decision.conservative": "never below the baseline",
    "decision.exploration": "scores to|probabilities",
    "decision.fairness": "panels, mining, penalties",
    "decision.drift": "a night beside|training data",
    "decision.guard": "evidence, drift,|the weight",
    "decision.oracles": "reward models",
    "decision.ope": "off-policy evaluation",
    "serving.replicas": "agree on answers,|on pins of episodes",
    "serving.deciding": "in turns: question|to draw",
    "serving.telemetry": "metrics' catalogue,|traces",
    "serving.explaining": "what is on record,|drawn again",
    "serving.waiting": "a share of the queue|for each loop",
}
MODULES = {  # of the modules that stand in a package itself, those whose names leave a question
    "pipelines.logs": "one line a step",
    "serving.service": "BentoML's workers",
    "serving.client": "the service in process",
    "serving.core": "one answer per event id",
    "serving.loops": "follows the champion",
    "serving.sessions": "memories of subjects",
    "serving.start": "opens and closes all parts",
    "serving.routes": "one table: dispatch, OpenAPI",
    "serving.refresher": "a thread that keeps fresh",
    "serving.outcomes": "what became of it,|as records",
    "serving.spool": "on disk before|the answer",
    "serving.counters": "what decisions|became",
    "serving.event_ids": "UUIDv7",
    "serving.snapshot": "what an answer|depends on",
    "serving.errors": "the core's own",
    "serving.metrics": "Prometheus",
    "serving.problems": "errors over HTTP",
    "serving.wire": "requests and answers",
    "pipelines.cli": "names to commands",
    "pipelines.nightly": "the steps in order,|resumable",
    "pipelines.files": "replaced whole, locked",
    "pipelines.storage": "files by key, also on S3",
    "pipelines.scratch": "rows that do not fit",
    "decision.artifact": "files and manifest",
    "decision.gate": "is it no worse?",
    "decision.policy": "oracle under rule",
    "decision.generations": "weights by age",
    "decision.join": "decision and|outcomes",
    "decision.features": "JSON to flat|features",
    "decision.protocols": "the contracts",
    "decision.ragged": "sets of any size",
    "decision.reward": "outcomes to|one number",
    "decision.split": "holdout|by hash",
    "decision.batch": "decisions as arrays",
    "decision.options": "the choices",
    "decision.records": "what is logged",
    "decision.validation": "errors name fields",
    "decision.decay": "sums that fade",
    "decision.draw": "seed to action",
    "decision.parts": "arrays,|part by part",
}

WIDTH, MARGIN = 960, 14
HEIGHT, GAP = 46, 22  # of a room, between layers
LETTER = 6.3  # width of one letter of a caption, in pixels at 11 px
COLOURS = {
    "serving": ("#fff4e5", "#b45309"),
    "pipelines": ("#eaf2fd", "#1d4ed8"),
    "simulators": ("#f3edfc", "#6d28d9"),
    "decision": ("#e8f7ee", "#15803d"),
}


@dataclass
class Box:
    """A room in a layer, or (without a name) the lane of a line that passes the layer on its way to `target`."""

    room: str
    width: float
    target: str = ""
    x: float = 0.0  # centre
    y: float = 0.0  # top


@dataclass
class Stack:
    """The layers of one package, from the top, and the imports between their rooms."""

    name: str
    layers: list[list[str]]
    imports: dict[str, set[str]] = field(default_factory=dict)


def contracts(pyproject: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The layers of every package that a layers contract is about, rooms by full name, from the top."""
    found: dict[str, list[list[str]]] = {}
    for contract in pyproject["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            for container in contract.get("containers", []):
                found[container] = [
                    [f"{container}.{room.strip(' ()')}" for room in layer.replace(":", "|").split("|")]
                    for layer in contract["layers"]
                ]
    return found


def folders(package: str) -> list[str]:
    """The rooms of `package` in the tree: folders with code, by full name."""
    at = ROOT / package.replace(".", "/")
    return sorted(f"{package}.{folder.parent.name}" for folder in at.glob("*/__init__.py"))


def modules(package: str) -> list[str]:
    """The modules that stand in `package` itself, by full name."""
    at = ROOT / package.replace(".", "/")
    return sorted(f"{package}.{file.stem}" for file in at.glob("*.py") if file.stem != "__init__")


def between(graph: grimp.ImportGraph, rooms: Sequence[str]) -> dict[str, set[str]]:
    """Which of `rooms` imports which, over all their modules."""
    owner = {name: room for room in rooms for name in {room, *graph.find_descendants(room)}}
    imports: dict[str, set[str]] = {room: set() for room in rooms}
    for name, room in owner.items():
        imports[room] |= {owner[other] for other in graph.find_modules_directly_imported_by(name) if other in owner}
        imports[room].discard(room)
    return imports


def reduced(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """`imports` without those that a longer way round implies; for imports without circles."""

    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(other) for other in imports[room]))

    return {
        room: {other for other in others if not any(other in reach(via) for via in others - {other})}
        for room, others in imports.items()
    }


def stack(graph: grimp.ImportGraph, package: str, layers: Mapping[str, list[list[str]]]) -> Stack:
    """The package's layers as its contract has them; without a contract, its folders in one layer."""
    rows = [[room for room in row if room in graph.modules] for row in layers.get(package, [folders(package)])]
    depth = {room: level for level, row in enumerate(rows) for room in row}
    imports = between(graph, [room for row in rows for room in row])
    # An import that does not point down is import-linter's to refuse.
    down = {room: {other for other in others if depth[other] > depth[room]} for room, others in imports.items()}
    return Stack(package, [row for row in rows if row], reduced(down))


def with_lanes(tower: Stack, width: float) -> tuple[list[list[Box]], list[tuple[Box, Box]]]:
    """Boxes by layer, with a lane in every layer that a line passes, and the lines between neighbouring layers.

    Lines to the same room share their lanes, so that a room that many import is reached by one line.
    """
    rows = [[Box(room, min(width, (WIDTH - 160) / len(row) - 12)) for room in row] for row in tower.layers]
    at = {box.room: (level, box) for level, row in enumerate(rows) for box in row}
    lines: dict[tuple[int, int], tuple[Box, Box]] = {}
    lanes: dict[tuple[str, int], Box] = {}
    for room, others in tower.imports.items():
        for other in sorted(others):
            level, here = at[room]
            last, target = at[other]
            for between_them in range(level + 1, last):
                lane = lanes.get((other, between_them))
                if lane is None:
                    lane = lanes[other, between_them] = Box("", 10, target=other)
                    rows[between_them].append(lane)
                lines[id(here), id(lane)] = (here, lane)
                here = lane
            lines[id(here), id(target)] = (here, target)
    return rows, list(lines.values())


def place(rows: list[list[Box]], lines: list[tuple[Box, Box]], left: float, right: float) -> None:
    """Set `x` of every box: order by the neighbours' mean, then as near to it as the boxes' widths allow."""
    above: dict[int, list[Box]] = defaultdict(list)
    below: dict[int, list[Box]] = defaultdict(list)
    for upper, lower in lines:
        above[id(lower)].append(upper)
        below[id(upper)].append(lower)
    for row in rows:
        spread(row, [left + (right - left) * (n + 0.5) / len(row) for n in range(len(row))], left, right)
    best, places = float("inf"), [[(box, box.x) for box in row] for row in rows]
    for sweep in range(24):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            want = {}
            for box in row:
                beside = (above if down else below)[id(box)] or (below if down else above)[id(box)]
                want[id(box)] = sum(other.x for other in beside) / len(beside) if beside else box.x
            row.sort(key=lambda box: want[id(box)])
            spread(row, [want[id(box)] for box in row], left, right)
        cost = crossings(rows, lines) * 1000 + sum(abs(upper.x - lower.x) for upper, lower in lines)
        if cost < best:
            best, places = cost, [[(box, box.x) for box in row] for row in rows]
    for row, kept in zip(rows, places, strict=True):
        row[:] = [box for box, _ in kept]
        for box, x in kept:
            box.x = x


def spread(row: list[Box], want: Sequence[float], left: float, right: float) -> None:
    """Set `x` in the order given: least squares from `want` under the gaps (pool adjacent violators)."""
    offset, before = [], 0.0
    for n, box in enumerate(row):
        if n:
            before += (row[n - 1].width + box.width) / 2 + 12
        offset.append(before)
    pools: list[tuple[float, int]] = []
    for n, x in enumerate(want):
        mean, size = x - offset[n], 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    low, high = left + row[0].width / 2, right - row[-1].width / 2 - offset[-1]
    starts = [mean for mean, size in pools for _ in range(size)]
    for n, box in enumerate(row):
        box.x = round(max(low, min(high, starts[n])) + offset[n], 1)


def crossings(rows: list[list[Box]], lines: list[tuple[Box, Box]]) -> int:
    """How many pairs of lines cross."""
    level = {id(box): n for n, row in enumerate(rows) for box in row}
    count = 0
    for n, (a, b) in enumerate(lines):
        for c, d in lines[n + 1 :]:
            count += level[id(a)] == level[id(c)] and (a.x - c.x) * (b.x - d.x) < 0
    return count


def text(x: float, y: float, words: str, style: str, anchor: str = "middle") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def draw_box(box: Box, colour: str, height: float = HEIGHT) -> list[str]:
    """A room: its name, the folders in it, and its caption."""
    name = box.room.rsplit(".", 1)[1]
    inside = [] if box.room in DRAWN else folders(box.room)
    title = f"{name}/" if (ROOT / box.room.replace(".", "/")).is_dir() else name
    words = {**CAPTIONS, **MODULES}.get(box.room, "") if height >= HEIGHT else ""
    fits = len(words) * LETTER < box.width - 10
    caption = ([words.replace("|", " ")] if fits else words.split("|")) if words else []
    rooms = "".join(f'<tspan data-room="{folder}">{folder.rsplit(".", 1)[1]}/ </tspan>' for folder in inside)
    first = box.y + (height - 14 * (len(caption) + 1 + bool(inside))) / 2 + 11
    out = [
        f'<g data-room="{box.room}">',
        f'<rect x="{box.x - box.width / 2:g}" y="{box.y:g}" width="{box.width:g}" height="{height:g}" rx="5" '
        f'fill="#fff" stroke="{colour}"/>',
        text(box.x, first, title, "room"),
    ]
    out += [text(box.x, first + 14 * (n + 1), line, "caption") for n, line in enumerate(caption)]
    if inside:
        y = first + 14 * (len(caption) + 1)
        out.append(f'<text x="{box.x:g}" y="{y:g}" class="caption within" text-anchor="middle">{rooms}</text>')
    return [*out, "</g>"]


def draw_stack(tower: Stack, top: float, left: float, right: float, width: float) -> tuple[list[str], float]:
    """The package's boxes and lines between `left` and `right`; also where they end."""
    colour = COLOURS[tower.name.split(".")[0]][1]
    rows, lines = with_lanes(tower, width)
    place(rows, lines, left, right)
    for level, row in enumerate(rows):
        for box in row:
            box.y = top + level * (HEIGHT + GAP)
    out = []
    leaving: dict[int, list[Box]] = defaultdict(list)
    for upper, lower in lines:
        leaving[id(upper)].append(lower)
    for upper, lower in lines:
        ends = sorted(leaving[id(upper)], key=lambda box: box.x)
        step = min(14.0, (upper.width - 20) / max(1, len(ends)))
        x = upper.x + (step * (ends.index(lower) - (len(ends) - 1) / 2) if upper.room else 0)
        y, end = upper.y + HEIGHT, lower.y - (3 if lower.room else 0)
        middle = (y + end) / 2
        path = f"M{x:g},{y:g} C{x:g},{middle:g} {lower.x:g},{middle:g} {lower.x:g},{end:g}"
        head = ' marker-end="url(#head)"' if lower.room else ""
        out.append(f'<path d="{path}" class="line" stroke="{colour}"{head}/>')
    for row in rows:
        for box in row:
            if box.room:
                out += draw_box(box, colour)
            else:
                out.append(f'<path d="M{box.x:g},{box.y:g} v{HEIGHT:g}" class="line" stroke="{colour}"/>')
    return out, top + len(rows) * (HEIGHT + GAP) - GAP


def frame(name: str, words: str, x: float, y: float, width: float, height: float) -> list[str]:
    """The background of a package with its name."""
    fill, colour = COLOURS[name]
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9" fill="{fill}" stroke="{colour}"/>',
        text(x + 14, y + 22, f"{name}/", "package", "start"),
        text(x + 22 + 9.5 * len(name), y + 22, words, "caption", "start"),
    ]


def wrapped(words: Iterable[str], width: float) -> list[str]:
    """Words with commas between them, in lines of at most `width` pixels."""
    lines = [""]
    for word in words:
        if (len(lines[-1]) + len(word) + 2) * LETTER > width and lines[-1]:
            lines.append("")
        lines[-1] += ("" if not lines[-1] else ", ") + word
    return [line + ("," if n < len(lines) - 1 else "") for n, line in enumerate(lines)]


def imported_from(graph: grimp.ImportGraph, package: str, other: str) -> list[str]:
    """The rooms of `other` that `package` imports, by their short names."""
    names = {package, *graph.find_descendants(package)}
    found = {to for name in names for to in graph.find_modules_directly_imported_by(name)}
    return sorted({to.split(".")[1] for to in found if to.startswith(f"{other}.")})


def draw_between(graph: grimp.ImportGraph, package: str, other: str, y: float) -> list[str]:
    """The arrow from one package to the next, with what is imported."""
    _, colour = COLOURS[package]
    words = wrapped(["imports", *imported_from(graph, package, other)], WIDTH - 60)
    out = [f'<path d="M{WIDTH / 2 - 400:g},{y:g} v30" class="thick" stroke="{colour}" marker-end="url(#head)"/>']
    return out + [
        text(WIDTH / 2 - 384, y + 20 + 14 * n, line.replace("imports,", "imports"), "caption", "start")
        for n, line in enumerate(words)
    ]


def draw() -> str:
    """The picture as SVG; the same tree and contracts give the same text."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    layers = contracts(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")))
    body: list[str] = []
    left, right = 2 * MARGIN, WIDTH - 2 * MARGIN

    top = MARGIN
    inside, end = draw_stack(stack(graph, "serving", layers), top + 36, left, right, 170)
    words = "answers requests; reads what the night has published"
    body += frame("serving", words, MARGIN, top, WIDTH - 2 * MARGIN, end - top + 14) + inside
    body += draw_between(graph, "serving", "pipelines", end + 14)

    top = end + 50
    inside, end = draw_stack(stack(graph, "pipelines", layers), top + 36, left + 30, right, 180)
    words = "the loop, step by step: an arrow is an import; an import that others imply is not drawn"
    body += frame("pipelines", words, MARGIN, top, WIDTH - 2 * MARGIN, end - top + 14) + inside
    body.append(
        f'<path d="M{left + 4:g},{end:g} V{top + 44:g}" class="thick" stroke="#64748b" marker-end="url(#head)"/>'
        f'<text transform="translate({left + 20:g},{(top + end) / 2 + 20:g}) rotate(-90)" class="caption" '
        'text-anchor="middle">the loop: log, lake, join, train, evaluate, promote</text>'
    )
    body += draw_between(graph, "pipelines", "simulators", end + 14)

    top = end + 50
    half = 260.0
    inside, end = draw_stack(stack(graph, "simulators", layers), top + 40, left, half, 190)
    core, bottom = draw_inside(stack(graph, "decision.ope", layers), half + 62, top + 36, right)
    height = max(end, bottom) - top + 14
    body += frame("simulators", "", MARGIN, top, half, height) + inside
    body += frame("decision", "ope/ from inside", half + 48, top, right - half - 34, height) + core
    body += draw_between(graph, "simulators", "decision", top + height)

    top += height + 36
    inside, end = draw_stack(stack(graph, "decision", layers), top + 36, left, right, 150)
    height = end - top + 14
    words = "arrays and records in, arrays and records out"
    body += frame("decision", words, MARGIN, top, WIDTH - 2 * MARGIN, height) + inside

    total = top + height + MARGIN
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0,0.5 L8,4 L0,7.5 z" fill="#475569"/></marker>'
    )
    style = (
        "text{font-family:Helvetica,Arial,sans-serif;fill:#1e293b}"
        ".package{font-size:16px;font-weight:bold}.room{font-size:12.5px;font-weight:bold}"
        ".caption{font-size:11px;fill:#475569}.within{font-weight:bold}.line{fill:none;stroke-width:1.1}"
        ".thick{fill:none;stroke-width:2}"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:g}" width="{WIDTH}" height="{total:g}" '
        'role="img" aria-label="Packages and rooms in layers; imports point down">',
        f"<defs>{head}</defs><style>{style}</style>",
        f'<rect width="{WIDTH}" height="{total:g}" rx="9" fill="#fff"/>',
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def draw_inside(tower: Stack, left: float, top: float, right: float) -> tuple[list[str], float]:
    """The layers of a room as plain rows; also where they end."""
    out: list[str] = []
    for level, row in enumerate(tower.layers):
        width = (right - left) / len(row) - 8
        for n, room in enumerate(row):
            box = Box(room, width, x=left + (width + 8) * n + width / 2, y=top + 36 * level)
            out += draw_box(box, COLOURS["decision"][1], 28)
    return out, top + 36 * len(tower.layers) - 8


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
