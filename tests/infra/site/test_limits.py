"""Every limit on the page of limits is that of the code, or the default of its setting."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from pipelines.settings import LoopSettings, Settings

PAGE = (Path(__file__).parents[3] / "infra/docs/limits.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.+?) \| ([\d.,e]+(?: [KMG]iB)?) \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def value(said: str) -> float:
    number, _, unit = said.partition(" ")
    return float(number.replace(",", "")) * UNITS.get(unit, 1)


def held(name: str) -> Any:
    """Return what a constant is, a variable's default, a setting's default, or the length that a list may have."""
    if name.startswith("DECISION_"):
        return getattr(Settings(), name.removeprefix("DECISION_").lower())
    module, _, constant = name.rpartition(".")
    if name.count(".") > 1:
        return getattr(importlib.import_module(module), constant)
    section = getattr(LoopSettings(name="news"), module)
    found = getattr(section, constant)
    if isinstance(found, tuple):
        (field,) = [field for field in msgspec.structs.fields(type(section)) if field.name == constant]
        return next(meta.max_length for meta in get_args(field.type) if isinstance(meta, msgspec.Meta))
    return found


@pytest.mark.parametrize(("what", "said", "name"), ROWS, ids=[name for _, _, name in ROWS])
def test_a_limit_is_that_of_the_code(what: str, said: str, name: str) -> None:
    assert held(name) == value(said), what


def test_every_row_of_the_page_is_held() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    heads = [line for line in rows if line.endswith("setting or constant |")]
    assert len(ROWS) == len(rows) - len(heads)
    assert len(ROWS) > 50


def test_a_figure_that_has_drifted_is_seen() -> None:
    assert (value("1 MiB"), value("1e15"), value("10,000"), value(".25")) == (1 << 20, 1e15, 10_000, 0.25)
    assert held("decision.records.MAX_ACTIONS") == 1_000
    assert held("guard.segments") == 16
