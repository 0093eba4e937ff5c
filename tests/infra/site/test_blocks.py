"""Every code block of every page is what it looks like: settings load, commands parse, bodies decode, Python compiles.

Blocks are run besides, by the tests of `FOLLOWED`. A block that no test can run says so in its page, by a comment
before it: ``<!-- not run: REASON -->``. `MARKED` lists all of them.
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
import yaml

from decision.errors import FieldError
from infra.site.blocks import blocks, calls, fenced, language
from pipelines import cli
from pipelines.replay.policies.rules import Rules
from pipelines.settings import load_settings, parse_loop
from serving.http import operations, personalizer, v1
from tests.promtool import promtool

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    page
    for pattern in ("*.md", "infra/**/*.md", "pipelines/**/*.md", ".github/**/*.md", "tests/bench/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts
)
FOLLOWED = ("tests/infra/site/test_reading.py", "tests/infra/site/test_pages.py", "tests/infra/test_runbook.py")
"""Tests that run what pages tell to run, and name the pages."""
REASONS = {
    "a broker": "wants Java, and a broker that Maven fetches; the tests start their own (`tests/kafka_broker.py`)",
    "a cluster": "wants Kubernetes and a registry; `tests/infra/test_deployments.py` holds the files",
    "a picture": "a drawing or a formula, and nothing to run",
    "by hand": "somebody writes it into a file of another program",
    "minutes": "takes minutes to hours; options and targets are parsed, and short forms are among the tests",
    "packages": "installs or builds packages; tests do so where they have the packages already",
    "processes": "starts more processes than a test may; `tests/contracts/test_engine.py` runs the engine",
}
"""Why a block is not run, by what its mark says."""
MARKED = {
    "CONTRIBUTING.md": ["minutes"],
    "README.md": ["minutes", "a picture"],
    "SECURITY.md": ["a picture"],
    "infra/docs/clients.md": ["packages", "packages"],
    "infra/docs/evaluation.md": ["processes"],
    "infra/docs/operating.md": ["a picture", "by hand"],
    "infra/docs/quickstart.md": ["packages"],
    "infra/docs/releasing.md": ["by hand", "minutes", "packages", "packages"],
    "infra/docs/robustness.md": ["a picture"],
    "infra/docs/sim2rec.md": ["minutes", "minutes", "minutes"],
    "infra/docs/studies.md": ["minutes", "minutes", "minutes"],
    "infra/kafka/README.md": ["a broker"],
    "infra/kubernetes/README.md": ["a cluster", "a cluster"],
}
"""The marks of each page, in order."""
SERVICE = ("localhost:8080", "127.0.0.1:8080")

ROUTES = (*v1.ROUTES, *personalizer.ROUTES, *operations.routes(bytes, lambda: None))
each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


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


def environ(text: str) -> None:
    """Load the variables that a block of commands sets as an installation's."""
    found = re.findall(r"(?:^|\s)(DECISION_[A-Z_]+)=(\S+)", text)
    load_settings({name: value for name, value in found if not name.startswith("DECISION_LOOP_")})


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
                environ(block.text)
                for words in calls(block.text):
                    if words[0] == "decision" and len(words) > 1:
                        parse(words[1:])
                    elif words[0] == "curl":
                        ask(words)
            elif block.language == "yaml":
                yaml.safe_load(block.text)
            elif block.language == "toml" and block.mark != "by hand":
                loads(block.text)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "python":
                compile(block.text, page.name, "exec")
        except (FieldError, KeyError, ValueError, SyntaxError, AssertionError, typer.TyperException) as error:
            said = error.format_message() if isinstance(error, typer.TyperException) else error
            wrong.append(f"{page.name}:{block.first + 1}: {said}")
    assert wrong == []


def test_prometheus_reads_every_scrape_configuration_that_a_page_shows(tmp_path: Path) -> None:
    shown = [block.text for page in PAGES for block in blocks(page.read_text("utf-8")) if block.language == "yaml"]
    found = [text for text in shown if text.startswith("scrape_configs:")]
    assert len(found) == 2
    for number, text in enumerate(found):
        path = tmp_path / f"{number}.yml"
        # Debian's is built without Kubernetes
        path.write_text(re.sub(r"kubernetes_sd_configs: .*", "static_configs: []", text))
        done = promtool("check", "config", "--syntax-only", path)
        assert done.returncode == 0, done.stderr


def test_every_block_is_run_or_loaded_or_says_why_not() -> None:
    """Settings, policies and scrapers' files are loaded by the test above."""
    named = {name for test in FOLLOWED for name in re.findall(r'"([\w/.-]+\.md)"', (ROOT / test).read_text())}
    followed = {page for page in PAGES if {page.name, str(page.relative_to(ROOT))} & named}
    marked: dict[str, list[str]] = {}
    left: list[str] = []
    for page in PAGES:
        for block in blocks(page.read_text("utf-8")):
            if block.mark:
                marked.setdefault(str(page.relative_to(ROOT)), []).append(block.mark)
            elif page not in followed and block.language not in ("toml", "yaml"):
                left.append(f"{page.relative_to(ROOT)}:{block.first + 1}")
    assert left == [], "name the page in a test that follows it, or mark the block"
    assert marked == MARKED
    assert {reason for reasons in MARKED.values() for reason in reasons} == REASONS.keys()


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


def test_a_mark_is_of_the_next_block_alone() -> None:
    page = (
        "<!-- not run: minutes -->\n\n    make a\n\nText\n\n    make b\n\n<!-- not run: x -->\n\nText\n\n    make c\n"
    )
    assert [each.mark for each in blocks(page)] == ["minutes", "", ""]
    assert [each.mark for each in blocks("1. Do:\n\n   <!-- not run: x -->\n\n       make a\n")] == ["x"]


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
        (environ, "DECISION_NOTHING=1 decision serve\n"),
    ],
)
def test_a_block_that_would_fail_is_found(check: Any, given: Any) -> None:
    with pytest.raises((FieldError, KeyError, ValueError, AssertionError, typer.TyperException)):
        check(given)
