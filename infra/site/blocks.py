"""The code blocks of a page: fenced ones, and indented ones with the language that they are in."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

_SHELL = re.compile(
    r"(?:\$ )?(?:\(?(?:cd|export|pip|npm|python3?|bentoml|feast|sleep) |(?:\.venv/bin|infra)/|[A-Z][A-Z_]+=\S)"
)
_OURS = re.compile(r"^(?:\$ )?(?:decision|curl|make) ", re.MULTILINE)
_PYTHON = re.compile(r"from \w|import [a-z]\w*$|with |def |# \w+\.py\n", re.MULTILINE)
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_MARK = re.compile(r"<!-- not run: (.*) -->$")
_FENCE = re.compile(r"(`{3,}|~{3,})\s*(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: ``sh``, ``toml``, ``json``, ``python``, ``ts``, ``yaml``; ``text`` for anything else.
        text: the code, without the indentation.
        first: the line of the page that it begins in, from 0: of fenced code, that of the fence.
        end: the line behind it.
        margin: its indentation: 4, or more in an item of a list; 0 where fences tell it.
        mark: why no test runs it: REASON where ``<!-- not run: REASON -->`` stands in the lines before it, else empty.
    """

    language: str
    text: str
    first: int
    end: int
    margin: int
    mark: str = ""


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page of Markdown, in order."""
    lines = page.splitlines()
    at, before, mark = 0, "", ""
    while at < len(lines):
        line = lines[at]
        fence = _FENCE.match(line)
        if fence:
            end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence[1]), len(lines) - 1)
            yield Block(fence[2] or "text", "\n".join(lines[at + 1 : end]) + "\n", at, end + 1, 0, mark)
            at, before, mark = end + 1, "", ""
        elif line.startswith("    ") and line.strip() and not before:
            end = at
            for n in range(at, len(lines)):
                if lines[n].startswith("    "):
                    end = n + 1
                elif lines[n].strip():
                    break
            margin = min(len(each) - len(each.lstrip()) for each in lines[at:end] if each.strip())
            code = "\n".join(each[margin:] for each in lines[at:end]) + "\n"
            yield Block(language(code), code, at, end, margin, mark)
            at, mark = end, ""
        else:
            before = line.strip()
            marked = _MARK.match(before)
            if before:
                mark = marked[1] if marked else ""
            at += 1


def fenced(page: str) -> str:
    """Return the page as the site's Markdown wants it.

    Every indented block stands between fences that name its language, and what goes on in an item of a list behind an
    empty line is indented by four spaces.
    """
    lines = page.splitlines()
    for block in reversed([each for each in blocks(page) if each.margin]):
        fence = "````" if "```" in block.text else "```"
        made = [f"{fence}{block.language}", *block.text.splitlines(), fence]
        lines[block.first : block.end] = [f"{' ' * 4 * (block.margin > 4)}{line}" for line in made]
    return "\n".join(_items(lines)) + "\n"


def _items(lines: list[str]) -> Iterator[str]:
    item, goes_on, code, before = False, False, False, ""
    for line in lines:
        code ^= line.lstrip().startswith("```")
        if line and not line.startswith(" "):
            item = bool(_ITEM.match(line))
            if item and goes_on and before:
                yield ""
            goes_on = False
        moved = item and not before and not code and bool(re.match(r" {2,3}\S", line))
        goes_on |= moved
        yield f"    {line.lstrip()}" if moved else line
        before = line.strip()


def language(code: str) -> str:
    """Return the language that code is in, as far as its looks tell."""
    if _SHELL.match(code) or _OURS.search(code):
        return "sh"
    if code.startswith(("{", "[")) and _reads(json.loads, code):
        return "json"
    if code.startswith("import {"):
        return "ts"
    if _PYTHON.match(code) and _reads(lambda text: compile(text, "page", "exec"), code):
        return "python"
    if re.match(r"[a-z_]+:\n {2,}", code):
        return "yaml"
    return "toml" if _reads(tomllib.loads, code) else "text"


def calls(code: str) -> list[list[str]]:
    """Return the commands of shell code as words, without comments: a quoted word may have several lines."""
    found: list[list[str]] = []
    held = ""
    for line in code.splitlines():
        held = f"{held}\n{line}" if held else line.removeprefix("$ ")
        if held.endswith("\\"):
            held = held[:-1]
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation that goes on
            continue
        held = ""
        command: list[str] = []
        for word in words:
            if word in ("&&", "||", "|", ";", "&"):
                found.append(command)
                command = []
            else:
                command.append(word)
        found.append(command)
    if held:
        raise ValueError(f"a quotation has no end: {held}")
    return [words for words in found if words]


def _reads(reader: object, code: str) -> bool:
    try:
        reader(code)  # type: ignore[operator]
    except (ValueError, SyntaxError):
        return False
    return True
