"""What the site has beside the pages of `infra/docs`: their order, the reference, pages from elsewhere.

The index (`infra/docs/README.md`) says which pages there are, in which order and under which heading. MkDocs calls the
functions below by their names.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]  # MkDocs loads this file by its path

from infra.site import reference  # noqa: E402
from infra.site.blocks import fenced  # noqa: E402

DOCS = "infra/docs"
ELSEWHERE = {
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "SECURITY.md": "project/security.md",
    "infra/kubernetes/README.md": "project/kubernetes.md",
    "infra/kafka/README.md": "project/kafka.md",
    "tests/bench/history.md": "project/history.md",
}
"""Pages from elsewhere in the repository, and where the site has them."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FROM = {there: here for here, there in ELSEWHERE.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the order of the pages from their index."""
    config.nav = navigation((ROOT / DOCS / "README.md").read_text("utf-8"))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, and pages from elsewhere."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    for here, there in ELSEWHERE.items():
        files.append(File.generated(config, there, content=(ROOT / here).read_text("utf-8")))
    style = (Path(__file__).with_name("site.css")).read_text("utf-8")
    files.append(File.generated(config, "site.css", content=style))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to where the site has their target, and code say its language."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return markdown
    if here == "README.md":
        markdown = markdown.rstrip() + "\n" + _listed()
    return fenced(relocated(markdown, _FROM.get(here, f"{DOCS}/{here}"), here))


def navigation(index: str) -> list[Any]:
    """Return the tree of pages that the index has: its headings, and the links that its lists begin with."""
    tree: list[Any] = [{"Home": "README.md"}]
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        found = [{name: path} for name, path in re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", body, re.MULTILINE)]
        if title == "Reference":
            found += [{name: path} for path, (name, _) in reference.TITLES.items()]
            found += [{"Python core": [{name: path} for path, (name, _) in reference.ROOMS.items()]}]
        if found:
            tree.append({title: found})
    return tree


def relocated(markdown: str, source: str, here: str) -> str:
    """Return a page with its links as the site has them; a link to code, which the site has not, is its words alone.

    Args:
        markdown: the page.
        source: its path in the repository.
        here: its path in the site.
    """

    def moved(found: re.Match[str]) -> str:
        image, words, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if re.match(r"\w+:", target) or not path or path.startswith("reference/"):
            return found[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if there.startswith(f"{DOCS}/"):
            place = there.removeprefix(f"{DOCS}/")
        elif there in ELSEWHERE:
            place = ELSEWHERE[there]
        else:
            return words
        return f"{image}[{words}]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{hash_}{anchor})"

    return _LINK.sub(moved, markdown)


def _listed() -> str:
    rooms = ", ".join(f"[{name}]({path})" for path, (name, _) in reference.ROOMS.items())
    pages = "".join(f"- [{name}]({path}): {text}\n" for path, (name, text) in reference.TITLES.items())
    return f"{pages}- Python core, the functions of `decision/`: {rooms}\n"
