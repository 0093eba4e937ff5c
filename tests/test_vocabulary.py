"""Words that the vocabulary has retired stay away, and every word is defined once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "infra/docs/vocabulary.md"
PLACES = ("decision", "simulators", "pipelines", "serving", "tests", "infra/docs", ".github")
KINDS = {".py", ".md", ".html", ".ipynb", ".toml", ".yml", ".css", ".js"}
KEEPING = (PAGE, ROOT / "infra/docs/adr")  # the page itself, and records, which keep the words of their day


def rows(title: str) -> list[tuple[str, str]]:
    """The rows of the table under a heading of the page, without its head."""
    section = PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("|")]
    return [(line[0], line[1]) for line in lines[2:]]


def retired() -> dict[str, str]:
    """Replacement by retired word."""
    return {word.strip(): say for words, say in rows("Retired words") for word in words.split(",")}


def spelled(word: str) -> re.Pattern[str]:
    """A pattern of the word in prose and in names: spaces may be underscores or line breaks, a plural counts."""
    inner = r"[\s_]+".join(re.escape(part) for part in word.split()).replace("behaviour", "behaviou?r")
    return re.compile(rf"(?<![A-Za-z]){inner.replace('policy', 'polic(?:y|ies)')}s?(?![A-Za-z])", re.IGNORECASE)


def found(text: str) -> list[str]:
    return [word for word in retired() if spelled(word).search(text)]


def files() -> list[Path]:
    inside = [file for place in PLACES for file in (ROOT / place).rglob("*") if file.suffix in KINDS]
    kept = [file for file in inside if not any(file == keep or keep in file.parents for keep in KEEPING)]
    return [*kept, *ROOT.glob("*.md"), ROOT / "Makefile"]


def test_no_retired_word_is_used() -> None:
    used = {
        str(file.relative_to(ROOT)): words
        for file in files()
        if file != Path(__file__) and (words := found(file.read_text("utf-8")))
    }
    assert used == {}, f"say instead: {retired()}"


def test_every_word_is_defined_once_in_one_sentence() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    tables = [rows(title) for title in titles if title not in ("Counters", "Retired words")]
    words = [word.strip() for table in tables for words, _ in table for word in words.split(",")]
    assert len(words) == len(set(words))
    assert all(len(meaning) > 10 and ". " not in meaning for table in tables for _, meaning in table)
    assert not set(words) & retired().keys()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the behavior policy of the log", "behaviour policy"),
        ("two target\npolicies", "target policy"),
        ("def own_rates() -> None", "own rate"),
        ("Arms are pulled", "arm"),
    ],
)
def test_a_retired_word_is_found_in_prose_and_in_names(text: str, word: str) -> None:
    assert found(text) == [word]


@pytest.mark.parametrize("text", ["harm is done in an alarm", "a candidate and its parameters", "the payment was off"])
def test_a_word_that_only_contains_a_retired_one_is_not_found(text: str) -> None:
    assert found(text) == []
