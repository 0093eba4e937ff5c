"""A lake that something else changed is refused, and the message says what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.lake.damage import DamagedError
from pipelines.lake.lake import Lake
from pipelines.nightly import nightly
from pipelines.registry.registry import Registry
from pipelines.runs import runs
from pipelines.settings import Settings
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play, settle

ROWS = {"ours": 600, "theirs": 120}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home in which two loops were joined."""
    settings = new_settings(tmp_path_factory.mktemp("whole"))
    log, lake = open_parts(settings)
    for loop in (new_loop(settings, "ours"), new_loop(settings, "theirs")):
        play(log, loop.name, ROWS[loop.name])
        settle(log, lake, loop)
    log.close()
    return settings.root


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "home")


def rows(home: Path, loop: str = "ours") -> list[str]:
    return Lake(home / "lake").interactions(loop)["event_id"].to_pylist()


def files(home: Path, loop: str) -> list[Path]:
    return sorted((home / "lake" / "interactions" / f"loop={loop}").rglob("*.parquet"))


def change_log(home: Path, changed: Callable[[dict[str, object]], None]) -> None:
    """Change every file that the log of the interactions adds."""
    for path in sorted((home / "lake" / "interactions" / "_delta_log").glob("*.json")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "add" in line:
                changed(line["add"])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_lake_that_nobody_changed_is_read(home: Path) -> None:
    assert {loop: len(rows(home, loop)) for loop in ROWS} == ROWS


def test_no_flipped_bit_of_a_page_changes_a_row(home: Path) -> None:
    """Without checksums some change numbers and nothing else; in heads of pages there are a few that mean nothing."""
    path, wanted = files(home, "ours")[0], Lake(home / "lake").interactions("ours")
    good = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    places = [group.column(number) for number in range(group.num_columns)]
    spans = [(c.dictionary_page_offset or c.data_page_offset, c.total_compressed_size) for c in places]
    seen = []
    for at in sorted({start + part for start, size in spans for part in (size // 2, size - 1)}):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        try:
            found = Lake(home / "lake").interactions("ours")
        except DamagedError as error:
            seen.append(str(error))
        else:
            assert found.equals(wanted)
            seen.append("")
    assert np.mean([path.name in text for text in seen]) > 0.8
    assert len(rows(home, "theirs")) == 120  # who does not read the file goes on


@pytest.mark.parametrize(
    "change",
    [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-50])],
    ids=["deleted", "emptied", "cut"],
)
def test_a_file_that_is_not_there_or_not_whole_is_named(change: Callable[[Path], object], home: Path) -> None:
    path = files(home, "ours")[0]
    change(path)
    with pytest.raises(DamagedError, match=rf"{path.name}.*restore them from a backup.*decision verify"):
        rows(home)


@pytest.mark.parametrize(
    "place",
    ["../../outside.parquet", "file:///etc/passwd", "/etc/passwd", "s3://other/x.parquet", "..%2F..%2Fx.parquet"],
)
def test_a_log_that_points_outside_its_table_is_refused(place: str, home: Path) -> None:
    shutil.copy(files(home, "ours")[0], home / "outside.parquet")

    def outside(add: dict[str, object]) -> None:
        add["path"] = place

    change_log(home, outside)
    with pytest.raises(DamagedError, match="in another partition than it lies in"):
        rows(home)


def test_a_log_that_gives_a_loop_the_rows_of_another_is_refused(home: Path) -> None:
    taken = files(home, "theirs")[0].relative_to(home / "lake" / "interactions")

    def swapped(add: dict[str, object]) -> None:
        if add["path"] == str(taken):
            add["partitionValues"] = {"loop": "ours", "partition": "0"}

    change_log(home, swapped)
    with pytest.raises(DamagedError, match=r"loop=theirs.*in another partition"):
        rows(home)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("00000000000000000002.json", "{torn"),
        ("00000000000000000000.json", None),
        ("00000000000000000001.json", '{"add":{"path":7}}\n'),
        ("_last_checkpoint", '{"version":99999999,"size":1}'),
    ],
)
def test_a_log_that_cannot_be_read_is_refused(name: str, text: str | None, home: Path) -> None:
    path = home / "lake" / "interactions" / "_delta_log" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DamagedError, match="'interactions' is damaged"):
        rows(home)


def test_a_store_that_is_away_is_not_called_damaged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(home / "lake")
    monkeypatch.setattr(lake, "_answers", lambda name: False)
    files(home, "ours")[0].unlink()
    with pytest.raises(FileNotFoundError):
        lake.interactions("ours")


def test_a_night_says_which_file_was_changed_and_the_champion_stays(home: Path) -> None:
    settings = Settings(home=str(home))
    log, lake = open_parts(settings)
    registry, loop = Registry(settings), new_loop(settings, "ours")
    try:
        first = nightly(settings, log, lake, registry, loop, now=LATER, run_id="good")
        before = registry.aliases("ours")
        assert (first.status, before) == ("done", {"champion": first.result("train")["version"]})
        path = files(home, "ours")[0]
        data = path.read_bytes()
        path.write_bytes(data[:100] + bytes(100) + data[200:])
        with pytest.raises(DamagedError):
            nightly(settings, log, Lake(settings.lake_url), registry, loop, now=LATER, run_id="bad")
        (bad,) = [run for run in runs(settings, "ours") if run.run_id == "bad"]
        assert bad.status == "failed"
        assert path.name in bad.error
        assert "restore them from a backup" in bad.error
        assert registry.aliases("ours") == before
        path.write_bytes(data)
        assert nightly(settings, log, Lake(settings.lake_url), registry, loop, now=LATER, run_id="bad").status == "done"
    finally:
        log.close()
