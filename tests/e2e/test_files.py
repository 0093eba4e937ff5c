"""An installation whose files are on object storage, through the command line: what one folder can do, it can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.storage import Storage
from tests.parts import require
from tests.pipelines import test_cli
from tests.worlds.s3 import BUCKET, S3

pytestmark = pytest.mark.connected

run = test_cli.run
QUICK = ("--reward-model", "means", "--replicates", "50", "--json")


@pytest.fixture
def files(run: Any, s3: S3, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """Return where the files of the loop "news" are, which has 400 settled decisions."""
    address = f"s3://{BUCKET}/{request.node.name}"
    monkeypatch.setenv("DECISION_FILES", address)
    request.getfixturevalue("settled")
    return Storage(address)


settled = test_cli.settled


def test_nothing_of_it_is_at_home_and_every_machine_reads_it(
    run: Any, files: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    assert not (home / "lake").exists()
    other = tmp_path / "other"  # a machine that has the loop's settings and nothing else
    (other / "loops" / "news").mkdir(parents=True)
    (other / "loops" / "news" / "loop.toml").write_bytes((home / "loops" / "news" / "loop.toml").read_bytes())
    monkeypatch.setenv("DECISION_HOME", str(other))
    counted = run("verify", "news", "--json")
    assert counted.status == 0
    assert counted.result["loops"]["news"]["decided"] == 400
    assert run("export", "news", str(tmp_path / "news.parquet"), "--json").result["rows"] == 400
    exported = pq.read_table(tmp_path / "news.parquet")
    assert run("import", "parquet", str(tmp_path / "news.parquet"), "--name", "march", "--json").result["rows"] == 400
    monkeypatch.setenv("DECISION_HOME", str(home))
    assert not (home / "imports").exists()
    assert run("export", "march", str(tmp_path / "again.parquet"), "--json").result["rows"] == 400
    again = pq.read_table(tmp_path / "again.parquet")
    same = ("event_id", "ts", "propensity", "reward", "context")
    assert again.select(same).sort_by("event_id") == exported.select(same).sort_by("event_id")
    as_loop, as_import = (run("replay", name, *QUICK).result["estimates"]["ips"] for name in ("news", "march"))
    assert as_loop["value"] == pytest.approx(as_import["value"], rel=1e-12)
    report = f"{files.url}/march.html"
    assert run("replay", "march", "--html", report, *QUICK).result["report"] == report
    assert b"<svg " in files.read("march.html")
    erased = run("erase", "--subject", "someone", "--yes", "--json").result
    assert (erased["events"], erased["imported_rows"], erased["remaining"]) == (4, 4, 0)
    assert run("export", "march", str(tmp_path / "again.parquet"), "--json").result["rows"] == 396
    proof = json.loads(files.read(f"erasures/{erased['digest']}.json"))
    assert proof["digest"] == erased["digest"]
    assert run("verify", "news", "--json").status == 0


def test_ray_gives_the_same_bits_as_this_process(run: Any, files: Storage) -> None:
    ray = pytest.importorskip("ray")
    require(ray is not None, "Ray is not installed")
    here = run("replay", "news", *QUICK).out
    try:
        there = run("replay", "news", "--engine", "ray", "--workers", "2", *QUICK).out
    finally:
        ray.shutdown()
    assert json.loads(here)["rows"] == 400
    assert there == here
