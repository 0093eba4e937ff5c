"""The reference pages of the site, made from the code whenever it is built: settings, HTTP, command line, Python.

Nothing of them is kept in the repository, so they cannot fall behind.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer.main

from decision.validation import in_words
from pipelines import cli
from pipelines.operations.init import as_toml, meanings, summary
from pipelines.settings import LoopSettings, Settings

ROOT = Path(__file__).parents[2]
TITLES = {
    "reference/settings.md": ("Settings", "every variable of an installation and every key of `loop.toml`"),
    "reference/http.md": ("HTTP operations", "every path, with its fields, its errors and the role that it wants"),
    "reference/cli.md": ("Command line", "every command and option"),
    "reference/client.md": ("Python client", "`decision_client`"),
    "reference/python.md": ("Python in process", "evaluation in a notebook, and the service in your own process"),
}
"""Title and purpose by the page's path in the site."""
_MADE = "<!-- Made from the code by infra/site/reference.py. -->\n\n"
ROOMS = {
    "reference/core/records.md": ("Records, features, rewards", "decision"),
    "reference/core/exploration.md": ("Exploration", "decision.exploration"),
    "reference/core/oracles.md": ("Oracles", "decision.oracles"),
    "reference/core/ope.md": ("Off-policy evaluation", "decision.ope"),
    "reference/core/guard.md": ("The guard", "decision.guard"),
    "reference/core/drift.md": ("Drift", "decision.drift"),
    "reference/core/conservative.md": ("Policies that keep a promise", "decision.conservative"),
    "reference/core/fairness.md": ("Panels", "decision.fairness"),
}
"""Pages of the pure core: title and package by the page's path in the site."""


def pages() -> dict[str, str]:
    """Return the pages, {path in the site: Markdown}."""
    client = "::: decision_client\n    options: {show_root_toc_entry: false, members_order: __all__}\n"
    made = {
        "reference/settings.md": settings(),
        "reference/http.md": http(openapi()),
        "reference/cli.md": commands(),
        "reference/client.md": "# Python client\n\n[How to use it](../clients.md).\n\n" + client,
        "reference/python.md": _python(),
    }
    made |= {path: _room(title, package) for path, (title, package) in ROOMS.items()}
    return {path: _MADE + text for path, text in made.items()}


def settings() -> str:
    """Return the page of every setting: of an installation, then of a loop."""
    said = meanings(Settings)
    rows = [
        (
            f"`DECISION_{field.name.upper()}`",
            in_words(field.type),
            _default(getattr(Settings(), field.name)),
            re.sub(r"\s*\(`+DECISION_\w+`+\)", "", said[field.name]),
        )
        for field in msgspec.structs.fields(Settings)
    ]
    out = [
        "# Settings",
        "",
        "## An installation",
        "",
        "They stand in the environment. A variable that begins with `DECISION_` and is no setting is refused.",
        "",
        *_table(("variable", "takes", "default", "meaning"), rows),
        "",
        "## A loop",
        "",
        "They stand in `loops/NAME/loop.toml` of the home folder; `decision init NAME` writes it with all of them. On "
        "one machine, a variable overrides the file, with the loop's name and the key in capitals and a hyphen as an "
        "underscore. Machines that share State take what `decision apply` puts there.",
    ]
    default = LoopSettings(name="name")
    sections = [("", LoopSettings, default)]
    sections += [
        (field.name, type(value), value)
        for field in msgspec.structs.fields(LoopSettings)
        if isinstance(value := getattr(default, field.name), msgspec.Struct)
    ]
    for section, kind, values in sections:
        variable = f"`DECISION_LOOP_NAME__{section.upper()}__KEY`" if section else "`DECISION_LOOP_NAME__KEY`"
        out += ["", f"### `[{section}]`" if section else "### Without a section", ""]
        out += [f"{summary(kind)} As a variable: {variable}.", ""]
        said, rows = meanings(kind), []
        for field in msgspec.structs.fields(kind):
            value = getattr(values, field.name)
            if isinstance(value, msgspec.Struct):
                continue
            shown = "the folder's" if field.name == "name" else _default(value)
            rows.append((f"`{field.name}`", in_words(field.type), shown, said[field.name]))
        out += _table(("key", "takes", "default", "meaning"), rows)
    return "\n".join(out) + "\n"


def openapi() -> dict[str, Any]:
    """Return what the service says of itself, as it answers at ``/openapi.json``."""
    command = (sys.executable, "-P", "-m", "serving.http.app")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603 - our own module
    return json.loads(done.stdout)


def http(document: Mapping[str, Any]) -> str:
    """Return the page of every operation and shape of an OpenAPI document."""
    out = [
        "# HTTP operations",
        "",
        "`/openapi.json` of a running service has the same for programs. [HTTP](../http.md) says what is meant by it, "
        "[Who may ask what](../access.md) what the roles are.",
    ]
    operations = [(path, method, of) for path, methods in document["paths"].items() for method, of in methods.items()]
    for tag in document["tags"]:
        out += ["", f"## {tag['name'].capitalize()}", "", f"{tag['description']}."]
        for path, method, operation in operations:
            if tag["name"] in operation["tags"]:
                out += ["", *_operation(path, method, operation)]
    out += ["", "## Shapes"]
    for name, schema in sorted(document["components"]["schemas"].items()):
        out += ["", f"### {name}", "", *_shape(schema)]
    return "\n".join(out) + "\n"


def commands() -> str:
    """Return the page of every command."""
    out = [
        "# Command line",
        "",
        "`decision COMMAND --help` says the same. `--verbose` (`-v`, `-vv`) and `--log-format` may stand anywhere.",
    ]
    for name, command in _walk(typer.main.get_command(cli.app), ""):
        context = command.context_class(command, info_name=f"decision {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        out += ["", f"## {name}", "", f"```text\n{usage}\n```", "", inspect.cleandoc(command.help or ""), ""]
        records = [record for each in command.params if (record := each.get_help_record(context)) is not None]
        out += _table(("argument or option", "meaning"), [(f"`{called}`", meant) for called, meant in records])
    return "\n".join(out) + "\n"


def _walk(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> list[str]:
    role = operation.get("x-decision-role")
    out = [f"### {method.upper()} {path}", "", f"{operation['summary']}.".replace("..", ".")]
    if role:
        out[-1] += f" Role: `{role}`."
    if "description" in operation:
        out += ["", f"{operation['description']}."]
    if parameters := [each for each in operation.get("parameters", ()) if each["in"] != "path"]:
        rows = [
            (f"`{each['name']}`", each["in"], "required" if each["required"] else "", each["description"])
            for each in parameters
        ]
        out += ["", *_table(("parameter", "in", "", "meaning"), rows)]
    if "requestBody" in operation:
        ((kind, content),) = operation["requestBody"]["content"].items()
        out += ["", f"Takes {_kind(content['schema'])} (`{kind}`)."]
        if "example" in content:
            out += ["", "```json", json.dumps(content["example"], indent=2), "```"]
    rows = []
    for status, answer in operation["responses"].items():
        shown = answer.get("description", "")
        if "$ref" in answer:
            name = answer["$ref"].rpartition("/")[2]
            shown = f"[{name}](#{name.lower()})"
        else:
            kinds = [_kind(each["schema"]) for each in answer.get("content", {}).values() if "schema" in each]
            shown += ": " + " or ".join(kinds) if kinds else ""
        rows.append((status, shown))
    merged: dict[str, list[str]] = {}
    for status, shown in rows:
        merged.setdefault(shown, []).append(status)
    return [*out, "", *_table(("status", "answer"), [(", ".join(many), shown) for shown, many in merged.items()])]


def _shape(schema: Mapping[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = [
        (f"`{name}`", _kind(each), "required" if name in required else "", _flat(each.get("description", "")))
        for name, each in schema.get("properties", {}).items()
    ]
    said = [f"{_flat(schema['description'])}", ""] if "description" in schema else []
    return said + (_table(("field", "is", "", "meaning"), rows) if rows else [_kind(schema)])


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a schema in words, with links to the shapes that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        most = f"at most {schema['maxItems']:,} of " if "maxItems" in schema else ""
        return f"a list of {most}{_kind(schema.get('items', {}))}"
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits |= {"minLength": "of characters from", "maxLength": "of characters to"}
    told = " ".join(f"{word} {schema[key]:,}" for key, word in limits.items() if key in schema)
    told = told.replace(" of characters to", " to")
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    words |= {"object": "object", "null": "null"}
    return f"{words.get(str(kind), 'any value')} {told}".strip()


def _python() -> str:
    return """# Python in process

## Evaluation

`decision.ope` is imported as [Off-policy evaluation](../evaluation.md) shows it.

::: decision.ope.frames.evaluate
    options: {heading_level: 3}

::: decision.ope.frames.evaluate_feedback
    options: {heading_level: 3}

::: decision.ope.arrays
    options: {heading_level: 3, show_root_toc_entry: false}

## The service in your own process

::: serving.client.Client
    options: {heading_level: 3}

::: serving.wire
    options: {heading_level: 3, show_root_toc_entry: false}
"""


def _room(title: str, package: str) -> str:
    """Return the page of a package of the pure core: what is public in each of its modules."""
    out = [f"# {title}", "", "Arrays and records in, arrays and records out: no files, no clock, no network.", ""]
    return "\n".join([*out, *(f"::: {name}\n" for name in _modules(package))])


def _modules(room: str) -> list[str]:
    folder = ROOT / room.replace(".", "/")
    found = folder.glob("*.py") if room == "decision" else folder.rglob("*.py")
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in found if file.name != "__init__.py"]
    return sorted(names)


def _default(value: Any) -> str:
    return "none" if value is None else f"`{as_toml(value)}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [" | ".join(_cell(each) for each in row) for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {row} |" for row in cells)]


def _cell(text: str) -> str:
    """Return text as a cell of a table: a bar ends a cell, but for one in code."""
    parts = _flat(text).split("`")
    return "`".join(part if at % 2 else part.replace("|", "\\|") for at, part in enumerate(parts)) or " "


def _flat(text: str) -> str:
    """Return text on one line, with code in Markdown's way."""
    return " ".join(text.replace("``", "`").split())
