"""Each run of the service counts in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving import metrics


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVING_METRICS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.setenv(name, "before")


def begun(home: Path) -> tuple[int, Path]:
    """Begin a run; return what holds its folder, and the folder that its workers are pointed to."""
    held = metrics.begin_run(home)
    metrics.join_run()
    return held, Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])


def test_runs_of_one_home_and_of_others_count_apart_and_the_next_removes_what_ended_runs_left(tmp_path: Path) -> None:
    homes = (tmp_path / "a", tmp_path / "a", tmp_path / "b")
    runs = [begun(home) for home in homes]
    folders = [folder for _, folder in runs]
    assert len(set(folders)) == 3
    for home, folder in zip(homes, folders, strict=True):
        assert folder.is_relative_to(home)
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "counter_1.db").write_bytes(b"1")
    os.close(runs[0][0])
    held, last = begun(tmp_path / "a")
    try:
        assert [(folder / "counter_1.db").is_file() for folder in folders] == [False, True, True]
        assert last.is_dir()
    finally:
        for descriptor in (held, runs[1][0], runs[2][0]):
            os.close(descriptor)


def test_a_worker_without_a_run_keeps_the_folder_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVING_METRICS")
    metrics.join_run()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == "before"
