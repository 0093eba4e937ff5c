"""The site is built without a warning, leads nowhere wrong, fetches nothing, has every setting, route and command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from mkdocs.config import load_config

from infra.site import hooks, reference
from pipelines.settings import Settings
from pipelines.settings.reading import setting_names
from serving.http import personalizer, v1
from tests.test_docs import commands

ROOT = Path(__file__).parents[3]
EVERYWHERE = {"--verbose", "-v", "--log-format", "--install-completion", "--show-completion"}
"""Options of every command, or of none."""
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: strict, so a warning fails."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "--quiet", "build", "-f", "infra/site/mkdocs.yml", "-d", str(folder))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DECISION_")}
    environ["NO_MKDOCS_2_WARNING"] = "1"
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Page(HTMLParser):
    """What a page fetches, links to, and can be linked to at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.scripts = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        self.classes |= set((given.get("class") or "").split())
        self._in_script = tag == "script"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if (
            tag in FETCHED
            and (address := given.get(FETCHED[tag]))
            and given.get("rel") not in ("next", "prev", "canonical")
        ):
            self.fetched.append(address)

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts += data


def read(site: Path) -> Iterator[tuple[Path, Page]]:
    for file in sorted(site.rglob("*.html")):
        yield file, Page(file.read_text("utf-8"))


def elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme not in ("", "data")


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = dict(read(site))
    assert len(pages) > 60
    assert {file.name: address for file, page in pages.items() for address in page.fetched if elsewhere(address)} == {}
    assert not any(re.search(r"[\"'](?:https?:)?//\w", page.scripts) for page in pages.values())
    assert not any("mermaid" in page.classes for page in pages.values())  # the theme would fetch it
    styles = [file.read_text("utf-8") for file in site.rglob("*.css")]
    assert styles
    assert not any(re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text) for text in styles)


def test_every_link_within_the_site_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    pages = dict(read(site))
    wrong = []
    for file, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if file.name == "404.html" or address.scheme or address.netloc:
                continue
            to = (file.parent / unquote(address.path)).resolve() if address.path else file
            place = unquote(address.fragment)
            if not to.exists() or (place and to in pages and place not in pages[to].ids | {"__top"}):
                wrong.append(f"{file.relative_to(site)}: {link}")
    assert wrong == []


def test_every_page_is_in_the_site(site: Path) -> None:
    built = {str(file.relative_to(site).with_suffix("")) for file in site.rglob("*.html")}
    pages = {str(page.relative_to(ROOT / "infra/docs").with_suffix("")) for page in (ROOT / "infra/docs").rglob("*.md")}
    assert {page.replace("README", "index") for page in pages} <= built


def test_what_python_leaves_beside_the_pages_is_no_part_of_the_site() -> None:
    excluded = load_config(str(ROOT / "infra/site/mkdocs.yml")).exclude_docs
    assert excluded is not None
    left = ["architecture.py", "__pycache__/architecture.cpython-311.pyc", "http.md"]
    assert [excluded.match_file(name) for name in left] == [True, True, False]


def test_the_page_of_settings_has_every_variable_and_every_key() -> None:
    settings = reference.settings()
    variables = {f"DECISION_{field.name.upper()}" for field in msgspec.structs.fields(Settings)}
    assert {name for name in variables if f"| `{name}` |" not in settings} == set()
    sections = {title: body for title, _, body in (part.partition("\n") for part in settings.split("\n### "))}
    for path in setting_names():
        section, _, key = path.rpartition(".")
        assert f"| `{key}` |" in sections[f"`[{section}]`" if section else "Without a section"], path


def test_the_page_of_commands_has_every_command_with_its_options() -> None:
    line, known = reference.commands(), commands()
    for name, options in known.items():
        if not any(other.startswith(f"{name} ") for other in known):  # else a group, which has no options
            body = line.split(f"\n## {name}\n")[1].split("\n## ")[0]
            missing = {option for option in options - EVERYWHERE if option.startswith("-") and option not in body}
            assert missing == set(), name


def test_the_page_of_operations_has_every_route(site: Path) -> None:
    text = (site / "reference/http.html").read_text("utf-8")
    routes = {f"{route.method} {route.path}" for route in (*v1.ROUTES, *personalizer.ROUTES)}
    assert {route for route in routes if route not in text} == set()


def test_every_room_of_the_core_has_a_page() -> None:
    rooms = {f"decision.{folder.parent.name}" for folder in (ROOT / "decision").glob("*/__init__.py")}
    assert {package for _, package in reference.ROOMS.values()} == {"decision"} | rooms


def test_links_lead_to_where_the_site_has_their_target() -> None:
    text = "[a](infra/docs/http.md#errors) [b](SECURITY.md) [`c[d]`](decision/gate.py) [e](#x) [f](https://feast.dev)"
    assert hooks.relocated(text, "CHANGELOG.md", "project/changelog.md") == (
        "[a](../http.md#errors) [b](security.md) `c[d]` [e](#x) [f](https://feast.dev)"
    )


def test_the_index_is_the_order_of_the_pages() -> None:
    index = "# Pages\n\n## Start\n\n- [One](one.md): first\n- [Two](two.md), with a [file](x.ipynb)\n\n## Reference\n"
    _, start, last = hooks.navigation(index)
    assert start == {"Start": [{"One": "one.md"}, {"Two": "two.md"}]}
    assert {"Settings": "reference/settings.md"} in last["Reference"]
