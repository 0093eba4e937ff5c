"""The changelog is in the form of Keep a Changelog, and goes with the version of the package."""

from __future__ import annotations

import datetime
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASE = re.compile(r"\[?(\d+)\.(\d+)\.(\d+)\]? - (\d{4}-\d{2}-\d{2})")


def faults(changelog: str, version: str, today: datetime.date) -> list[str]:
    """What is wrong with a changelog of a package of this version."""
    found: list[str] = []
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    titles = [section.splitlines()[0].strip() for section in sections]
    if not titles or titles[0].strip("[]") != "Unreleased":
        found.append("the first section is not Unreleased")
    releases: list[tuple[tuple[int, ...], datetime.date]] = []
    for title, section in zip(titles, sections, strict=True):
        match = RELEASE.fullmatch(title)
        released = match is not None
        if match:
            try:
                day = datetime.date.fromisoformat(match[4])
            except ValueError:
                found.append(f"{title}: no such day")
                continue
            releases.append((tuple(int(match[part]) for part in (1, 2, 3)), day))
            if day > today:
                found.append(f"{title}: in the future")
        elif title.strip("[]") != "Unreleased":
            found.append(f"{title}: neither Unreleased nor X.Y.Z - YYYY-MM-DD")
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        found += [f"{title}: {kind} is no kind of change" for kind in kinds if kind not in KINDS]
        found += [f"{title}: {kind} stands twice" for kind in KINDS if kinds.count(kind) > 1]
        if released and not re.search(r"^- ", section, re.MULTILINE):
            found.append(f"{title}: says nothing")
    for newer, older in pairwise(releases):
        if newer[0] <= older[0] or newer[1] < older[1]:
            found.append(f"{older[0]} stands below {newer[0]}, but is not older")
    own = tuple(int(part) for part in version.split("."))
    newest = releases[0][0] if releases else (0, 0, 0)
    if own < newest:
        found.append(f"the package is {version}, older than the newest release in the changelog")
    if own > newest and not (sections and re.search(r"^- ", sections[0], re.MULTILINE)):
        found.append(f"nothing is told of {version}, neither as a release nor as Unreleased")
    return found


def test_the_changelog_goes_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    today = datetime.datetime.now(datetime.UTC).date()
    assert faults((ROOT / "CHANGELOG.md").read_text("utf-8"), version, today) == []


GOOD = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-02-03

### Fixed

- A thing.

## [0.1.0] - 2026-01-31

### Added

- Everything.
"""


def test_a_changelog_after_a_release_is_accepted() -> None:
    assert faults(GOOD, "0.2.0", datetime.date(2026, 2, 3)) == []


@pytest.mark.parametrize(
    ("before", "after", "version", "fault"),
    [
        ("", "", "0.1.0", "older than the newest release"),
        ("", "", "0.3.0", "nothing is told of 0.3.0"),
        ("## [Unreleased]\n", "", "0.2.0", "the first section is not Unreleased"),
        ("2026-02-03", "2026-02-30", "0.2.0", "no such day"),
        ("2026-02-03", "2026-02-04", "0.2.0", "in the future"),
        ("2026-02-03", "3 February 2026", "0.2.0", "neither Unreleased nor"),
        ("2026-01-31", "2026-02-04", "0.2.0", "is not older"),
        ("0.1.0", "0.2.1", "0.2.0", "is not older"),
        ("### Fixed", "### Mended", "0.2.0", "Mended is no kind of change"),
        ("- A thing.", "### Fixed\n\n- A thing.", "0.2.0", "Fixed stands twice"),
        ("- A thing.\n", "", "0.2.0", "says nothing"),
    ],
)
def test_a_changelog_with_a_fault_is_refused(before: str, after: str, version: str, fault: str) -> None:
    changelog = GOOD.replace(before, after, 1) if before else GOOD
    assert any(fault in told for told in faults(changelog, version, datetime.date(2026, 2, 3)))
