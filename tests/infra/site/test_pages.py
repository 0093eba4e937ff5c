"""The quickstart and the recipes are run as they stand, with `decision serve` as its own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.operations.processes import free_port, wait_until_ready
from pipelines.settings import load_settings
from tests.infra.site.reader import Reader, shell

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "infra/docs"


class Visitor(Reader):
    """A reader whose service is what `decision serve` starts, on a port of its own."""

    _service: subprocess.Popen[bytes] | None = None

    def serve(self, **variables: str) -> str:
        if self._service is None:
            port, output = free_port(), self.folder / "service.log"
            with output.open("wb") as file:
                self._service = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.cli", "serve"],
                    cwd=self.folder,
                    env={**self.environ, **variables, "DECISION_PORT": str(port)},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            wait_until_ready(self._service, load_settings({}, home=str(self.home), port=port), output)
            self.address = f"127.0.0.1:{port}"
        return f"http://{self.address}"

    def end(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            with suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGTERM)
            service.wait(300)


@contextmanager
def visitor(folder: Path, tools: Path) -> Iterator[Visitor]:
    made = Visitor(folder, tools)
    try:
        yield made
    finally:
        made.end()


def answers(printed: str) -> list[dict[str, Any]]:
    """Return the JSON documents that were printed one after another."""
    found, rest, decoder = [], printed.strip(), json.JSONDecoder()
    while rest.startswith("{"):
        value, at = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[at:].strip()
    return found


@pytest.mark.connected
@pytest.mark.statistical
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages ask with curl")
def test_the_quickstart_leads_to_a_version_that_has_learned_and_every_recipe_works_after_it(tmp_path: Path) -> None:
    """What is wanted pays .5 instead of .1 over 3,000 decisions: that the gate refuses has probability below 1e-6."""
    with shell(tmp_path) as tools, visitor(tmp_path / "visited", tools) as here:
        here.follow(DOCS / "quickstart.md")
        (first, _), (second,) = answers(here.told[1]), answers(here.told[4])
        assert first["policy_version"] == "baseline:uniform"
        assert {each["probability"] for each in first["ranking"]} == {1 / 3}
        assert second["policy_version"] == "1"
        assert max(second["ranking"], key=lambda each: each["probability"])["id"] == "sport"
        begun = len(here.told)
        here.follow(DOCS / "recipes.md")
        (batch,), (masked,), twice = (answers(text) for text in here.told[begun : begun + 3])
        assert len(batch["decisions"]) == 2
        assert masked["action_id"] != "sport"
        assert twice[0] == twice[1]
