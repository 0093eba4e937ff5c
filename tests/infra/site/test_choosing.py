"""The settings that the page on choosing shows load, name what differs from the defaults alone, and do what it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.reward import aggregate
from infra.site.blocks import blocks
from pipelines.operations.init import SESSIONS
from pipelines.settings import LoopSettings, parse_loop

PAGE = (Path(__file__).parents[3] / "infra/docs/choosing.md").read_text("utf-8")
FILES = {
    name[1]: block.text
    for block in blocks(PAGE)
    if (name := re.match(r"# \.decision/loops/(\w+)/loop\.toml\n", block.text))
}


def flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def of(loop: LoopSettings, path: str) -> Any:
    value: Any = loop
    for part in path.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_only_what_differs_from_the_defaults(name: str) -> None:
    loop, default = parse_loop(FILES[name], name, {}), LoopSettings(name=name)
    same = [path for path in flat(tomllib.loads(FILES[name])) if of(loop, path) == of(default, path)]
    assert same == []


def test_reports_come_to_the_rewards_that_the_page_says() -> None:
    table = PAGE[PAGE.index("| reported within") : PAGE.index("## Clicks")].strip().splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert head == ["reported within the window", "clicks", "revenue", "slate"]
    assert len(rows) == 3
    for reported, *rewards in rows:
        values = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", reported)]
        for loop, said in zip(("clicks", "revenue", "shelf"), rewards, strict=True):
            rules = parse_loop(FILES[loop], loop, {}).reward
            found = aggregate(np.array(values), np.arange(len(values)), rules.aggregation)
            found = rules.default if found is None else found
            low, high = rules.minimum, rules.maximum
            found = min(max(found, low if low is not None else found), high if high is not None else found)
            assert found == float(said), (reported, loop)


def test_a_loop_of_sessions_is_set_as_init_sets_it() -> None:
    feed = parse_loop(FILES["feed"], "feed", {})
    assert {path: of(feed, path) for path in SESSIONS} == SESSIONS
