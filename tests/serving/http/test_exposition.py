"""A scrape put together from what is known of the series shows what prometheus_client would, whatever was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from serving import metrics
from serving.http import exposition
from serving.http.exposition import Exposition

BUCKETS = ("0.005", "1.0", "10.0", "+Inf")
MODES = ("min", "max", "livesum", "mostrecent", "livemax")
VALUES = st.floats(0, 1e9) | st.integers(0, 3).map(float)


class Workers:
    """The files of some workers, written as prometheus_client writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, MmapedDict] = {}
        self._time = 1.0

    def write(self, worker: int, kind: str, key: str, value: float, *, add: bool = True, stamp: bool = True) -> None:
        name = f"{kind}_{worker}.db"
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = MmapedDict(str(self.folder / name))
        before, _ = file.read_value(key)
        self._time += 1.0
        file.write_value(key, before + value if add else value, self._time if stamp else 0.0)

    def count(self, worker: int, loop: str, value: float = 1.0) -> None:
        self.write(worker, "counter", mmap_key("made", "made_total", ["loop"], [loop], "Made, \\ and\nmore"), value)

    def observe(self, worker: int, route: str, bucket: int, seconds: float) -> None:
        for number, le in enumerate(BUCKETS):
            key = mmap_key("took", "took_bucket", ["route", "le"], [route, le], "Seconds")
            self.write(worker, "histogram", key, float(number == bucket))
        self.write(worker, "histogram", mmap_key("took", "took_sum", ["route"], [route], "Seconds"), seconds)

    def gauge(self, worker: int, mode: str, part: str, value: float, *, stamp: bool = True) -> None:
        key = mmap_key(f"g_{mode}", f"g_{mode}", ["part"], [part], "Now")
        self.write(worker, f"gauge_{mode}", key, value, add=False, stamp=stamp)

    def end(self, worker: int) -> None:
        for name in [name for name in self._files if name.startswith("gauge_live") and name.endswith(f"_{worker}.db")]:
            self._files.pop(name).close()
            (self.folder / name).unlink()

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def expected(folder: Path) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry)


def check(shown: bytes, folder: Path) -> None:
    assert sorted(shown.splitlines()) == sorted(expected(folder).splitlines())
    families = list(text_string_to_metric_families(shown.decode()))
    assert len({family.name for family in families}) == len(families)  # the lines of each stand together
    for family in families:
        for route in {sample.labels.get("route") for sample in family.samples} - {None}:
            mine = [sample for sample in family.samples if sample.labels["route"] == route]
            assert [sample.labels.get("le") for sample in mine] == [*BUCKETS, None, None]


STEP = st.one_of(
    st.tuples(st.just("count"), st.integers(0, 2), st.sampled_from(["a", 'b"\\', "c\nd", "é"]), VALUES),
    st.tuples(st.just("observe"), st.integers(0, 2), st.sampled_from(["x", "y"]), st.integers(0, 3), VALUES),
    st.tuples(st.just("gauge"), st.integers(0, 2), st.sampled_from(MODES), st.sampled_from("pq"), VALUES),
    st.tuples(st.just("unset"), st.integers(0, 2), st.sampled_from(MODES), st.sampled_from("pq")),
    st.tuples(st.just("end"), st.integers(0, 2)),
    st.tuples(st.just("scrape")),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_a_scrape_is_the_librarys_whatever_was_counted_in_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    workers, ours = Workers(folder), Exposition(folder)
    for name, *what in [*steps, ("scrape",), ("scrape",)]:
        if name == "scrape":
            check(ours.text(), folder)
        elif name == "unset":
            worker, mode, part = what
            workers.gauge(worker, mode, part, 0.0, stamp=False)
        else:
            getattr(workers, name)(*what)
    workers.close()


def test_a_series_is_read_and_written_by_the_library_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a scrape after that costs what its numbers cost."""
    workers, ours = Workers(tmp_path), Exposition(tmp_path)
    made = list[Any]()
    line = exposition.generate_latest
    monkeypatch.setattr(exposition, "generate_latest", lambda only: (made.append(only), line(only))[1])
    exposition._line.cache_clear()
    for worker in range(3):
        for route in range(40):
            workers.observe(worker, f"r{route}", route % 4, 0.5)
    check(ours.text(), tmp_path)
    assert len(made) == 40 * (len(BUCKETS) + 2)
    workers.observe(1, "r7", 2, 3.0)
    check(ours.text(), tmp_path)
    assert len(made) == 40 * (len(BUCKETS) + 2)
    workers.observe(2, "new", 2, 3.0)
    check(ours.text(), tmp_path)
    assert len(made) == 41 * (len(BUCKETS) + 2)
    workers.close()


def test_files_that_outgrow_their_room_are_read_on(tmp_path: Path) -> None:
    workers, ours = Workers(tmp_path), Exposition(tmp_path)
    workers.count(0, "first")
    check(ours.text(), tmp_path)
    for number in range(2_500):  # a file begins with room for a quarter of them
        workers.count(0, f"loop {number:060}")
    check(ours.text(), tmp_path)
    workers.count(0, "first")
    assert b'made_total{loop="first"} 2.0\n' in ours.text()
    workers.close()


def test_a_gauge_of_each_process_is_shown_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(tmp_path)
    workers.gauge(1, "all", "p", 2.0)
    monkeypatch.setattr(metrics, "exposition", lambda: b"the library's")
    assert Exposition(tmp_path).text() == b"the library's"
    workers.close()


def test_what_a_library_counts_into_the_same_files_is_not_shown_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's gauges are of each process, which alone would have the library put every scrape together."""
    workers, ours = Workers(tmp_path), Exposition(tmp_path, {"made", "g_max"})
    workers.count(1, "a")
    workers.gauge(1, "max", "p", 2.0)
    wanted = expected(tmp_path)
    workers.observe(1, "x", 1, 0.5)
    workers.gauge(1, "liveall", "p", 2.0)
    monkeypatch.setattr(metrics, "exposition", lambda: b"the library's")
    assert sorted(ours.text().splitlines()) == sorted(wanted.splitlines())
    workers.count(1, "a")
    assert b'made_total{loop="a"} 2.0\n' in ours.text()
    workers.close()
