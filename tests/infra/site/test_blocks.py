"""Every code block of every page is what it looks like: settings load, commands parse, bodies decode, Python compiles.

Blocks of the quickstart and the recipes are run besides, in `test_pages.py`.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import typer.main

from decision.errors import FieldError
from infra.site.blocks import blocks, calls, fenced, language
from pipelines import cli
from pipelines.replay.policies.rules import Rules
from pipelines.settings import parse_loop
from serving.http import operations, personalizer, v1

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "infra/docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SERVICE = ("localhost:8080", "127.0.0.1:8080")

ROUTES = (*v1.ROUTES, *personalizer.ROUTES, *operations.routes(bytes, lambda: None))
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


@cache
def line() -> Any:
    return typer.main.get_command(cli.app)


def parse(words: list[str]) -> None:
    """Parse a call of `decision` as the command line does, and run nothing; raises what the command line would say."""
    group, name = line(), "decision"
    _, rest = cli._apart(words)  # the options that may stand anywhere
    while hasattr(group, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        group = group.commands[name]
    if not {"--help", "-h"} & set(words) and not hasattr(group, "commands"):
        group.make_context(name, rest)


def ask(words: list[str]) -> None:
    """Decode the body of a call of curl as its route does."""
    urls = [
        urlsplit(word if "://" in word else f"http://{word}") for word in words[1:] if word.startswith(("http", "l"))
    ]
    for url in urls:
        if url.netloc not in SERVICE:
            continue
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
        parts = url.path.split("/")
        fits = [
            route
            for route in ROUTES
            for path in (route.path, *route.also_at)
            if route.method == method and len(parts) == path.count("/") + 1
            if all(want == got or want[:1] == "{" for want, got in zip(path.split("/"), parts, strict=True))
        ]
        assert fits, f"no route takes {method} {url.path}"
        if body is not None and fits[0].request is not None:
            msgspec.json.decode(body, type=fits[0].request)


def loads(text: str) -> None:
    """Read TOML as what it is about: a policy of rules, or settings of a loop."""
    if "rule" in tomllib.loads(text):
        Rules(text.encode())
    else:
        parse_loop(text, "news", {})


@each_page
def test_every_block_of_a_page_is_what_it_looks_like(page: Path) -> None:
    wrong: list[str] = []
    for block in blocks(page.read_text("utf-8")):
        try:
            if block.language == "sh":
                assert not re.match(r"# \S+\.\w+\n", block.text), (
                    "a file and commands are one block: say a word between"
                )
                for words in calls(block.text):
                    if words[0] == "decision" and len(words) > 1:
                        parse(words[1:])
                    elif words[0] == "curl":
                        ask(words)
            elif block.language == "toml":
                loads(block.text)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "python":
                compile(block.text, page.name, "exec")
        except (FieldError, KeyError, ValueError, SyntaxError, AssertionError, typer.TyperException) as error:
            said = error.format_message() if isinstance(error, typer.TyperException) else error
            wrong.append(f"{page.name}:{block.first + 1}: {said}")
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("decision init news\n", "sh"),
        ("DECISION_PORT=9 decision serve\n", "sh"),
        ("whoami\ndecision doctor\n", "sh"),
        ("curl -s localhost:8080/livez\n", "sh"),
        ("[reward]\nwindow_s = 2\n", "toml"),
        ('{"a": 1}\n', "json"),
        ("from decision import ope\nope.evaluate\n", "python"),
        ("# app.py\nprint(1)\n", "python"),
        ('import { Client } from "decision-client";\n', "ts"),
        ("application --decide--> service\n", "text"),
        ("GET  /fairness/tasks\n", "text"),
    ],
)
def test_a_block_without_a_fence_is_told_by_its_looks(code: str, kind: str) -> None:
    assert language(code) == kind


def test_blocks_are_found_and_fenced_where_they_stand() -> None:
    page = "A line\n    goes on.\n\n    decision init news\n\n    decision serve\n\nText\n\n```toml\na = 1\n```\n"
    found = list(blocks(page))
    assert [(each.language, each.text) for each in found] == [
        ("sh", "decision init news\n\ndecision serve\n"),
        ("toml", "a = 1\n"),
    ]
    made = fenced(page)
    assert "```sh\ndecision init news\n\ndecision serve\n```\n" in made
    assert [each.text for each in blocks(made)] == [each.text for each in found]


def test_code_in_an_item_of_a_list_stays_in_it() -> None:
    page = "1. Check it:\n\n       make check\n\n   It takes\n   a while.\n2. Go on.\n"
    assert [(each.language, each.text) for each in blocks(page)] == [("sh", "make check\n")]
    assert (
        fenced(page) == "1. Check it:\n\n    ```sh\n    make check\n    ```\n\n    It takes\n   a while.\n\n2. Go on.\n"
    )


def test_words_of_a_call_are_those_of_a_shell() -> None:
    code = "$ curl localhost:8080/x -d '{\n  \"a\": 1}'   # a comment\ndecision train a && decision promote a\n"
    assert calls(code) == [
        ["curl", "localhost:8080/x", "-d", '{\n  "a": 1}'],
        ["decision", "train", "a"],
        ["decision", "promote", "a"],
    ]
    with pytest.raises(ValueError, match="no end"):
        calls("decision init 'news\n")


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (parse, ["init"]),
        (parse, ["train", "news", "--nothing"]),
        (parse, ["nothing"]),
        (parse, ["import", "nothing"]),
        (ask, ["curl", "localhost:8080/v1/loops/news/decides", "-d", "{}"]),
        (ask, ["curl", "localhost:8080/v1/loops/news/decide", "-d", '{"contexts": {}}']),
        (loads, "[reward]\nwindow = 2\n"),
        (loads, "[[rule]]\nwhen = 'a ='\naction = 'b'\n"),
    ],
)
def test_a_block_that_would_fail_is_found(check: Any, given: Any) -> None:
    with pytest.raises((FieldError, KeyError, ValueError, AssertionError, typer.TyperException)):
        check(given)
