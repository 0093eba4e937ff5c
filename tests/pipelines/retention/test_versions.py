"""Versions that nobody goes back to go with their age, wherever tidying is stopped; those that somebody needs stay."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import pipelines.retention.versions as module
from pipelines.promotion.rollback import rollback
from pipelines.registry.charge import Version, WrittenVerdict
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.registry.tracking import MissingError, RegistryError, Tracking
from pipelines.retention.tidy import Gone, tidy
from pipelines.retention.versions import unneeded
from pipelines.settings import Settings, load_settings
from tests.contracts.registry import packed
from tests.worlds.synthetic import new_loop, new_settings, open_parts

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD = (NOW - timedelta(days=100)).isoformat()


def known(n: int) -> list[Version]:
    made = NOW - timedelta(days=200)
    return [Version(version=str(i), run_id=f"r{i}", created_at=made, tags={}) for i in range(1, n + 1)]


def moved(number: int, to: str, verdict: str = "promoted", at: str = OLD, **numbers: float) -> WrittenVerdict:
    before = None if number == 1 else str(number - 1)
    fields = {"alias": "champion", "from_version": before, "to_version": to, "at": at, "numbers": numbers}
    return WrittenVerdict(number=number, version=to, verdict=verdict, **fields)  # type: ignore[arg-type]


def gone(n: int, aliases: Mapping[str, str], verdicts: list[WrittenVerdict]) -> list[int]:
    chosen = unneeded(known(n), aliases, verdicts, NOW - timedelta(days=90))
    return sorted(int(version) for version in chosen)


def test_the_latest_stay_and_what_aliases_stand_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gone(30, {}, []) == []
    assert gone(33, {}, []) == [1, 2, 3]
    assert gone(34, {"baseline": "2", "candidate": "4"}, []) == [1, 3]


def test_what_a_rollback_and_the_gate_go_back_to_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_VERSIONS", 1)
    proven = [moved(number, str(number), proven=float(number == 2)) for number in range(1, 6)]
    assert gone(7, {"champion": "5"}, proven) == [1, 3, 6]  # 2 was proven, 4 was before 5, 7 is the latest


def test_a_version_is_as_old_as_the_last_verdict_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_VERSIONS", 1)
    late = (NOW - timedelta(days=89)).isoformat()
    verdicts = [moved(1, "1"), moved(2, "2"), moved(3, "3", at=late), moved(4, "4", at=late)]
    verdicts.append(WrittenVerdict(number=5, version="5", verdict="refused", at=late))
    assert gone(7, {"champion": "4"}, verdicts) == [1, 6]  # 2 was in charge until 89 days ago, 5 was judged then


class Home:
    """An installation whose loop has versions; each but the first was in charge once."""

    def __init__(self, folder: Path, versions: int) -> None:
        folder.mkdir()
        self.settings: Settings = new_settings(folder)
        new_loop(self.settings, "shop", "[retention]\nversions_days = 60")
        self.registry = Registry(self.settings)
        stands: str | None = None
        for number in range(versions):
            plots, metrics = {"a.png": b"x" * 500}, {"value": float(number)}
            version = self.registry.register("shop", packed(a=b"%d" % number), metrics=metrics, plots=plots)
            if number:
                self.registry.set_alias("shop", "champion", version, {"verdict": "promoted"}, expected=stands)
                stands = version

    def tidy(self, days: float = 61, *, dry_run: bool = False) -> Gone:
        now = datetime.now(UTC) + timedelta(days=days)
        log, lake = open_parts(self.settings)
        done = tidy(self.settings, log, lake, now=now, dry_run=dry_run)
        log.close()
        return next(part for part in done.parts if part.part == "versions")

    def kept(self) -> dict[str, str]:
        return {version.version: version.kept for version in self.registry.versions("shop")}

    def runs(self) -> set[str]:
        return {path.name for path in (self.settings.root / "models" / "shop").iterdir()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_VERSIONS", 1)


def test_files_plots_and_numbers_of_an_old_version_go_and_its_tags_and_verdicts_stay(few: None, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", 4)
    shutil.copytree(home.settings.root, tmp_path / "copy")
    assert home.tidy(59).number == 0
    said = home.tidy(dry_run=True)
    assert set(home.kept().values()) == {"whole"}
    done = home.tidy()
    assert (done.number, done.held) == (2, "")
    assert done.bytes == said.bytes > 1_000
    assert home.kept() == {"1": "gone", "2": "gone", "3": "whole", "4": "whole"}
    assert len(home.runs()) == 2
    with closing(sqlite3.connect(home.settings.root / "mlflow.db")) as tables:
        assert tables.execute("SELECT count(*) FROM runs").fetchone() == (2,)
        assert tables.execute("SELECT count(*) FROM metrics").fetchone() == (2,)
    assert [written.to_version for written in home.registry.verdicts("shop")] == ["2", "3", "4"]
    assert home.tidy().number == 0
    assert home.registry.register("shop", packed(a=b"new")) == "5"
    copy = Registry(load_settings({}, home=str(tmp_path / "copy")))
    assert copy.files("shop", "1") == packed(a=b"0")  # a copied home's files are its own


def test_nobody_loads_a_version_that_went_or_puts_it_in_charge(few: None, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", 4)
    home.tidy()
    with pytest.raises(MissingError, match="version 1 of shop is gone: it was older than"):
        home.registry.files("shop", "1")
    with pytest.raises(MissingError, match="is gone"):
        home.registry.set_alias("shop", "champion", "2", {"verdict": "set"})
    assert rollback(home.registry, "shop", now=NOW, by="ann").to_version == "3"
    assert rollback(home.registry, "shop", now=NOW, by="ann").to_version is None  # 2 is gone: the baseline


def test_who_moves_an_alias_meanwhile_keeps_the_version(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", 3)

    def chosen(known: list[Version], aliases: dict[str, str], verdicts: list[WrittenVerdict]) -> list[str]:
        Registry(home.settings).set_alias("shop", "champion", "1", {"verdict": "set"})
        return ["1"]

    with pytest.raises(AliasMovedError):
        home.registry.let_go("shop", chosen)
    assert set(home.kept().values()) == {"whole"}
    assert home.registry.let_go("shop", lambda *_: ["1"]) == []  # it stands there
    assert home.registry.files("shop", "1") == packed(a=b"0")


@pytest.mark.parametrize("at", ["delete_model_version", "delete_run", "_hard_delete_run"])
def test_where_removing_ends_early_the_next_night_goes_on(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    home = Home(tmp_path / "home", 3)
    with Tracking(home.settings).client() as client:
        store = client._tracking_client.store if at == "_hard_delete_run" else client

    def ends(*_: object) -> None:
        raise OSError("the server is away")

    monkeypatch.setattr(type(store), at, ends)
    assert "the server is away" in home.tidy().held
    assert home.kept() == {"1": "going", "2": "whole", "3": "whole"}
    with pytest.raises(RegistryError, match="is gone"):
        home.registry.files("shop", "1")
    monkeypatch.undo()
    monkeypatch.setattr(module, "KEPT_VERSIONS", 1)
    home.tidy()
    assert home.kept() == {"1": "gone", "2": "whole", "3": "whole"}
    assert len(home.runs()) == 2
