"""A service that runs as users run it gets requests that nobody meant well, with keys of every role."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings
from tests.soak.fuzz import fuzz, prepare, table
from tests.worlds.requests import Grammar

REQUESTS, SEED = 1_500, 20

pytestmark = pytest.mark.connected


def test_no_request_makes_a_5xx_a_hang_or_a_line_of_failure(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port(), api_keys="of-the-environment")
    keys, output = prepare(settings), tmp_path / "service.log"
    grammar = Grammar(table(tmp_path / "table"), keys, SEED)
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        found = fuzz(settings.port, grammar, range(REQUESTS), 4)
    assert found.wrong == []
    assert found.statuses.total() == REQUESTS
    assert "Traceback" not in output.read_text(errors="replace")
    # it reaches what is behind the border, too, and is refused in every way there is
    assert all(found.statuses[status] > 5 for status in ("200", "202", "204", "400", "401", "403", "404", "405", "422"))


def test_requests_are_the_same_for_a_seed_and_a_number(tmp_path: Path) -> None:
    routes, keys = table(tmp_path), {"all": "k", "panels": "p", "none": ""}
    first, again, other = (Grammar(routes, keys, seed) for seed in (3, 3, 4))
    made = [first.request(number) for number in range(200)]
    assert made == [again.request(number) for number in reversed(range(200))][::-1]
    assert made != [other.request(number) for number in range(200)]
    assert len({sent.route for sent in made}) > 30
