"""Every byte of a home folder belongs to one part."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.retention.space import ROOMS, Room, disk_bytes
from pipelines.settings import load_settings

FILES: dict[str, Room] = {
    "log.db": "log",
    "log.db-wal": "log",
    "lake/decisions/_delta_log/0.json": "lake",
    "runs/shop/n1/manifest.json": "runs",
    "imports/.new-abcdefgh/import/rows": "imports",
    "features/shop/history/a.parquet": "features",
    "models/shop/r1/artifacts/policy/manifest.json": "models",
    "cache/models/shop/1/manifest.json": "models",
    "mlflow.db": "models",
    "state.db-shm": "state",
    "loops/shop/loop.toml": "other",
    "erasures/a.json": "other",
}


def written(home: Path) -> dict[Room, int]:
    """Write files of sizes that tell them apart, and return what each part holds."""
    wanted: dict[Room, int] = dict.fromkeys(ROOMS, 0)
    for number, (name, part) in enumerate(FILES.items()):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (1 << number))
        wanted[part] += 1 << number
    return wanted


def test_every_file_counts_in_its_part_and_in_no_other(tmp_path: Path) -> None:
    wanted = written(tmp_path)
    assert disk_bytes(load_settings({}, home=str(tmp_path))) == wanted
    assert all(wanted.values())


def test_an_empty_home_takes_nothing_and_none_at_all_neither(tmp_path: Path) -> None:
    assert set(disk_bytes(load_settings({}, home=str(tmp_path))).values()) == {0}
    assert set(disk_bytes(load_settings({}, home=str(tmp_path / "none"))).values()) == {0}


def test_a_link_is_not_followed_and_who_looks_rests_between_many_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "lake").mkdir(parents=True)
    (tmp_path / "big").write_bytes(b"x" * 5000)
    (home / "lake" / "link").symlink_to(tmp_path / "big")
    (home / "lake" / "round").symlink_to(home)
    for number in range(1_200):
        (home / "lake" / f"{number}").touch()
    beats: list[int] = []
    assert disk_bytes(load_settings({}, home=str(home)), lambda: beats.append(1))["lake"] == 0
    assert len(beats) == 2


def test_state_beside_a_registry_of_another_name_is_state(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path), tracking_uri=f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "other.state.db").write_bytes(b"x" * 7)
    assert disk_bytes(settings)["state"] == 7


@pytest.mark.parametrize("name", ["lakes", "logs"])
def test_a_folder_of_another_name_is_none_of_the_parts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_bytes(b"x")
    assert disk_bytes(load_settings({}, home=str(tmp_path)))["other"] == 1
