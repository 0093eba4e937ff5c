"""A bento of the service: `bentoml build` packs all that it needs, and it serves from an empty folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pipelines.operations.init import init_loop
from pipelines.operations.processes import environment, free_port, wait_until_ready
from pipelines.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
MARK = "Decisions acknowledged"


@pytest.mark.connected
def test_a_bento_serves_from_an_empty_folder_with_pinned_packages_and_its_own_code(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"), port=free_port())
    variables = environment(settings) | {"BENTOML_HOME": str(tmp_path / "store")}
    build = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    tag = build.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
    bento = tmp_path / "store/bentos" / tag.replace(":", "/")

    needed = (bento / "env/python/requirements.txt").read_text()
    pinned = set((ROOT / "constraints.txt").read_text().splitlines())
    packages = {line for line in needed.splitlines() if line and not line.startswith("-")}
    assert packages <= pinned
    assert {re.split("[=[]", line)[0] for line in packages} >= {"bentoml", "deltalake", "psycopg", "redis"}
    assert "torch" not in needed

    module = bento / "src/serving/telemetry/catalogue.py"  # so that what answers cannot be this checkout
    module.write_text(module.read_text().replace(MARK, f"{MARK}, by a bento"))
    init_loop(settings, "shop")
    empty, output = tmp_path / "empty", tmp_path / "output"
    empty.mkdir()
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", str(settings.frame_port)]
    with output.open("wb") as file:
        service = subprocess.Popen(command, cwd=empty, env=variables, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until_ready(service, settings, output)
        url = f"http://127.0.0.1:{settings.port}"
        body = {"context": {}, "actions": [{"id": "a"}, {"id": "b"}]}
        with urllib.request.urlopen(f"{url}/v1/loops/shop/decide", json.dumps(body).encode(), timeout=300) as answer:
            assert json.load(answer)["propensity"] == 0.5
        with urllib.request.urlopen(f"{url}/metrics", timeout=300) as answer:
            assert f"# HELP decision_decided_total {MARK}, by a bento" in answer.read().decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGTERM)
        service.wait(300)
    assert list(empty.iterdir()) == []
