"""Whatever happens to disk, files and databases: nothing acknowledged is lost, the counts add up, and nights go on."""

from __future__ import annotations

import gc
import re
import sqlite3.dbapi2
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

import pipelines.state.sqlite
from pipelines.remedies import told
from pipelines.runs import Run
from tests.faults.faults import FAULTS, Fault
from tests.faults.site import TEXT, Site
from tests.worlds.disk import Disk, own_disk

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
PAGE = Path(__file__).resolve().parents[2] / "infra" / "docs" / "faults.md"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Let what faults left open be closed here: in another test's time its warnings would fail that one."""
    yield
    gc.collect()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with own_disk(tmp_path) as disk:
        yield disk


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for seconds for a lock; where none is held for long, a busy machine may hold one for a while."""
    monkeypatch.setattr(pipelines.state.sqlite, "_BUSY_S", 0.2)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", partial(sqlite3.connect, timeout=0.05))  # what MLflow's engine calls


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Site]:
    """Give what makes an installation of a loop with these settings in a folder, with one night behind it.

    Faults with the same settings share that night.
    """

    @cache
    def first(text: str) -> tuple[Site, Path]:
        folder = tmp_path_factory.mktemp("installed")
        site = Site(folder / "home", text)
        site.start()
        site.live(600, at_once=100)
        site.stop()
        assert site.night().verdict == "promoted"
        return site, site.settings.root.rename(folder / "files")  # so that no copy finds anything where it once was

    def copied(text: str, home: Path) -> Site:
        site, files = first(text)
        return site.copied(files, home)

    return copied


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_loses_nothing_and_says_what_to_do(
    fault: Fault, disk: Disk, installed: Callable[[str, Path], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installed(fault.settings or TEXT, disk.path / "home")
    if "locked" in fault.name:
        be_impatient(monkeypatch)
    site.start()
    site.look()
    site.live(40, at_once=20)
    if fault.decides is None:
        site.stop()
    with fault.broken(site, disk):
        if fault.decides is not None:
            site.look()
            check_decides(site, fault.decides)
        heard = ended_by(fault, site)
        assert re.search(fault.says, heard), heard
        assert "\n" not in heard
        site.stop()
        if fault.starts is not None:
            check_starts(site, fault.starts)
    site.start()
    check_decides(site, True)
    site.stop()
    assert site.night().status == "done"
    site.check()


def check_decides(site: Site, decides: bool) -> None:
    """Check that the service decides, or does so no more once the room is used up that its files have."""
    if decides:
        assert set(site.live(5)) <= {200, 202}
    else:
        for _ in range(100):
            if 503 in site.live(100, at_once=100):
                break
        assert set(site.live(5)) == {503}
        assert site.ask("GET", "/readyz").status_code == 503
    assert site.ask("GET", "/v1/loops/shop").status_code == 200
    assert site.ask("GET", f"/v1/decisions/{next(iter(site.decided))}").status_code == 200


def check_starts(site: Site, says: str) -> None:
    """Check that a service which is started now decides, or says why it does not: when it ends, or to callers."""
    if not says:
        site.start()
        check_decides(site, True)
        site.stop()
        return
    try:
        site.start()
    except Exception as error:
        site.heard = str(error)
    else:
        assert set(site.live(5)) == {503}
        site.stop()
    assert re.search(says, site.heard), site.heard


def ended_by(fault: Fault, site: Site) -> str:
    """Return the error of a night, which ends where the fault says."""
    before = site.nights()
    try:
        run: Run | None = site.night()
    except Exception as error:
        text, run = told(error, site.settings), None
    else:
        assert run.status == "done"
        text = ""
    assert (text == "") == (fault.step == ""), text
    if run is None and fault.step is None:
        assert site.nights() == before  # none was begun
    elif run is None:
        assert site.step == fault.step
    return text


def test_every_fault_has_its_row_in_the_documentation() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [fault.name for fault in FAULTS if fault.name not in rows] == []
