"""A disk after a power cut, from a trace of what a process wrote and synced.

What was synced before the cut is there. What was written after a file's last sync may be there or not, write by write,
and each in part: a disk orders nothing of its own. A file is gone for good once its folder was synced. Files that are
mapped into memory (SQLite's index of its write-ahead log) are lost.

References:
    Pillai et al., "All File Systems Are Not Created Equal", 2014 (section 3: states that a crash may leave).
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_CALLS = "pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_FILE = re.compile(r"^(?:\d+<([^>]*)>|\"((?:\\x[0-9a-f]{2})*)\")")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_SYNCS, _REMOVES = ("fsync", "fdatasync"), ("unlink", "unlinkat")


class Event(NamedTuple):
    """One call of the trace.

    Attributes:
        path: the file; "" for what was told on standard output.
        what: ``write``, ``cut`` (to a length), ``sync``, ``remove`` or ``told``.
        at: offset of a write, or the length.
        data: what was written or told.
    """

    path: str
    what: str
    at: int = 0
    data: bytes = b""


def missing() -> str:
    """Return why nothing can be traced here, "" where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return done.stderr.strip()[:200] if done.returncode else ""


def trace(folder: Path, script: str, *arguments: str) -> list[Event]:
    """Run a Python script and return what it wrote to files in `folder`, synced, and told on standard output.

    A line that it tells is an acknowledgement. It must write to files by `pwrite` alone.
    """
    log = folder.with_name(f"{folder.name}.trace")
    command = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={_CALLS}", "-o", str(log)]
    subprocess.run(
        [*command, sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=Path.cwd()
    )
    return list(_events(log.read_text().splitlines(), str(folder)))


def _events(lines: Iterable[str], folder: str) -> Iterator[Event]:
    unfinished: dict[str, str] = {}
    for whole in lines:
        line, pid = whole, whole.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            unfinished[pid] = line.removesuffix(" <unfinished ...>")
            continue
        if "resumed>" in line:
            line = unfinished.pop(pid) + line.partition("resumed>")[2]
        found = _CALL.match(line)
        if found is None or int(found[3]) < 0:
            continue
        name, given = found[1], found[2]
        if name == "write" and given.startswith("1<"):
            yield Event("", "told", data=_bytes(_TEXT.findall(given)[0]))
            continue
        path = _path(name, given)
        if not path.startswith(folder) or path.endswith("-shm"):
            continue
        if name in _SYNCS:
            yield Event(path, "sync")
        elif name in _REMOVES:
            yield Event(path, "remove")
        elif name == "ftruncate":
            yield Event(path, "cut", int(given.rpartition(", ")[2]))
        elif name == "pwrite64":
            yield Event(
                path, "write", int(given.rpartition(", ")[2]), _bytes(_TEXT.findall(given)[-1])[: int(found[3])]
            )
        else:
            raise AssertionError(f"{path} is written by {name}, which tells no offset")


def _path(name: str, given: str) -> str:
    if name == "unlinkat":
        return _bytes(_TEXT.findall(given)[0]).decode()
    found = _FILE.match(given)
    if found is None:
        return ""
    if found[2] is not None:
        return _bytes(found[2]).decode()
    return _bytes(found[1]).decode() if found[1].startswith("\\x") else found[1]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def after_cut(events: list[Event], moment: int, rng: random.Random) -> dict[str, bytes]:
    """Return the files as a power cut before the event `moment` may leave them, by path."""
    files: dict[str, bytearray] = {}
    last = {event.path: number for number, event in enumerate(events[:moment]) if event.what == "sync"}
    keep = rng.choice((0.0, 0.5, 0.9))
    for number, event in enumerate(events[:moment]):
        synced = number < last.get(str(Path(event.path).parent) if event.what == "remove" else event.path, -1)
        if event.what in ("told", "sync") or not (synced or rng.random() < keep):
            continue
        if event.what == "remove":
            files.pop(event.path, None)
            continue
        file = files.setdefault(event.path, bytearray())
        if event.what == "cut":
            del file[event.at :]
            file.extend(bytes(event.at - len(file)))
            continue
        data = event.data
        if not synced and rng.random() < 0.3:
            data = data[: rng.randrange(0, len(data) // SECTOR + 1) * SECTOR]
        file.extend(bytes(max(0, event.at + len(data) - len(file))))
        file[event.at : event.at + len(data)] = data
    return {path: bytes(file) for path, file in files.items()}


def written_to(folder: Path, files: Mapping[str, bytes], was: Path) -> None:
    """Write `files` of the folder `was` to another one."""
    for path, data in files.items():
        target = folder / Path(path).relative_to(was)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
