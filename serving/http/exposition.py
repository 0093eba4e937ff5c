"""What a scrape shows, put together from the files that the workers of a run count in.

prometheus_client reads each series' name, labels and help from JSON, adds up and writes every line, at each scrape:
some 15 us a series, and there is one for every bucket of every route and status that was ever answered. Here it does so
once for a series. After that a scrape reads the numbers where they stand, adds them up as arrays, and writes anew the
lines of what has changed. Format and words stay the library's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.utils import floatToGoString

from serving import metrics

_number = lru_cache(4_096)(lambda value: floatToGoString(value).encode())
_Floats = npt.NDArray[np.float64]
_Labels = tuple[tuple[str, str], ...]
_MODES = {"sum": np.add, "min": np.minimum, "max": np.maximum, "mostrecent": None}


class _Series(NamedTuple):
    """A series as its key in a file says it: one line of the text, or of a histogram a bucket or the sum."""

    family: str
    name: str
    labels: _Labels
    help: str
    kind: str
    mode: str


class _File(NamedTuple):
    """Where a file's numbers stand, in doubles from its beginning, and where they belong."""

    path: Path
    mode: str
    positions: npt.NDArray[np.intp]
    slots: npt.NDArray[np.intp]


class _Block:
    """Lines that are written together: those of a family, or of one histogram of it."""

    def __init__(self, head: bytes, begin: int, prefixes: list[bytes], *, histogram: bool) -> None:
        self._head, self._prefixes, self._histogram = head, prefixes, histogram
        self._slots = slice(begin, begin + len(prefixes) - histogram)  # a histogram's count stands in no file
        self._before, self._text = b"", b""

    def text(self, values: _Floats, shown: npt.NDArray[np.bool_]) -> bytes:
        """Return the lines with these numbers; a gauge that nobody has set has none."""
        values, shown = values[self._slots], shown[self._slots]
        now = values.tobytes() + shown.tobytes()
        if now != self._before:
            numbers = values.tolist()
            if self._histogram:
                buckets = np.cumsum(values[:-1]).tolist()
                numbers = [*buckets, buckets[-1], numbers[-1]]
                shown = np.ones(len(numbers), np.bool_)
            lines = [
                b"%s %s\n" % (prefix, _number(number))
                for prefix, number, there in zip(self._prefixes, numbers, shown.tolist(), strict=True)
                if there
            ]
            self._before, self._text = now, self._head + b"".join(lines)
        return self._text


class Exposition:
    """The metrics of a run.

    Args:
        folder: that its workers share.
        families: names of the metrics that are shown: libraries, such as Feast, count into the same files.
            None for all.
    """

    def __init__(self, folder: Path, families: Collection[str] | None = None) -> None:
        self._folder, self._families = folder, families
        self._seen: dict[str, tuple[int, int]] = {}
        self._files: list[_File] = []
        self._blocks: list[_Block] = []
        self._minima = np.zeros(0, np.bool_)
        self._count = 0

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format; nothing where there are no files."""
        read = dict(self._read())
        seen = {name: (inode, _used(data)) for name, (inode, data) in read.items()}
        if seen != self._seen:
            if not self._learn(list(read)):
                return metrics.exposition()
            self._seen = seen
            read = dict(self._read())  # again: what was learned may stand beyond what was read before
        values = np.zeros(self._count)
        stamps, first = np.zeros(self._count), np.ones(self._count, np.bool_)
        shown = np.zeros(self._count, np.bool_)
        for file in self._files:
            if file.path.name not in read:
                continue
            data = read[file.path.name][1]
            numbers = np.frombuffer(data, np.float64, len(data) // 8)
            slots, found, at = file.slots, numbers[file.positions], numbers[file.positions + 1]
            combine = _MODES[file.mode]
            if combine is None:
                newer = at > stamps[slots]
                slots, found = slots[newer], found[newer]
                values[slots], stamps[slots] = found, at[newer]
            else:
                values[slots] = np.where(first[slots], found, combine(values[slots], found))
            first[slots], shown[slots] = False, True
        return b"".join(block.text(values, shown) for block in self._blocks)

    def _read(self) -> Iterator[tuple[str, tuple[int, bytes]]]:
        """Yield the name of each file, its number in the file system, and what is used of it."""
        names: list[str] = []
        with suppress(FileNotFoundError):
            names = sorted(name for name in os.listdir(self._folder) if name.endswith(".db"))
        for name in names:
            try:
                file = os.open(self._folder / name, os.O_RDONLY)
            except FileNotFoundError:  # its worker has ended
                continue
            try:
                data = os.pread(file, 1 << 16, 0)
                if (used := _used(data)) > len(data):
                    data = os.pread(file, used, 0)
                yield name, (os.fstat(file).st_ino, data[: max(used, 0)])
            finally:
                os.close(file)

    def _learn(self, names: list[str]) -> bool:
        """Find out which series there are and where; return whether they can be added up here."""
        keys: dict[str, list[tuple[_Series, int]]] = {}
        for name in names:
            kind, _, rest = name.partition("_")
            mode = rest.partition("_")[0].removeprefix("live") if kind == "gauge" else "sum"
            try:
                entries = MmapedDict.read_all_values_from_file(str(self._folder / name))
                found = [(_series(key, kind, mode), position // 8) for key, _, _, position in entries]
            except FileNotFoundError:
                continue
            if self._families is not None:
                found = [(series, place) for series, place in found if series.family in self._families]
            if found and mode not in _MODES:
                return False
            keys[name] = found
        slots: dict[_Series, int] = {}
        self._blocks = list(_blocks({series for found in keys.values() for series, _ in found}, slots))
        self._count = len(slots)
        self._files = [
            _File(
                self._folder / name,
                found[0][0].mode,
                np.array([position for _, position in found], np.intp),
                np.array([slots[series] for series, _ in found], np.intp),
            )
            for name, found in keys.items()
            if found
        ]
        return True


def _used(data: bytes) -> int:
    return int.from_bytes(data[:4], "little", signed=True)


@lru_cache(65_536)
def _series(key: str, kind: str, mode: str) -> _Series:
    family, name, labels, text = json.loads(key)
    return _Series(family, name, tuple(sorted(labels.items())), text, kind, mode)


def _blocks(every: set[_Series], slots: dict[_Series, int]) -> Iterator[_Block]:
    """Yield the blocks of the text and give each series its slot: those of a block stand side by side."""
    families: dict[str, dict[_Labels, list[_Series]]] = {}
    for series in sorted(every):
        labels = tuple(label for label in series.labels if label[0] != "le") if series.kind == "histogram" else ()
        families.setdefault(series.family, {}).setdefault(labels, []).append(series)
    for groups in families.values():
        for number, group in enumerate(groups.values()):
            histogram = group[0].kind == "histogram"
            if histogram:  # its buckets upwards, then the sum
                group.sort(key=lambda series: float(dict(series.labels).get("le", "inf")))
                group.sort(key=lambda series: series.name.endswith("_sum"))
            begin = len(slots)
            slots.update((series, begin + place) for place, series in enumerate(group))
            lines = [_line(series) for series in group]
            if histogram:
                lines.insert(-1, _line(group[-1]._replace(name=f"{group[-1].family}_count")))
            head = b"" if number else lines[0][0]
            yield _Block(head, begin, [prefix for _, prefix in lines], histogram=histogram)


@lru_cache(65_536)
def _line(series: _Series) -> tuple[bytes, bytes]:
    """Return what the library writes of a series before its number: what is said of its family, and its line."""
    metric = Metric(series.family, series.help, series.kind)
    metric.add_sample(series.name, dict(series.labels), 0.0)
    *said, line = generate_latest(_Only(metric)).splitlines(keepends=True)  # type: ignore[arg-type]
    return b"".join(said), line.rpartition(b" ")[0]


class _Only:
    """A registry of one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Any]:
        """Return it."""
        return [self._metric]
