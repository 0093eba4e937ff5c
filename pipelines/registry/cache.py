"""Model files on this machine: what was fetched and verified once serves on, whether or not the registry answers.

Files come from outside and are treated as such: plain names, limits on number and size, and every hash of the
manifest is checked before a byte is handed on, also on each later read from disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from decision.artifact import MANIFEST_FILE, MAX_BYTES
from decision.errors import FieldError
from decision.validation import prepared
from pipelines.files import write_atomically

MAX_FILES = 64
MAX_MANIFEST_BYTES = 1 << 20
VERSIONS_KEPT = 10
"""Versions of a loop that stay on disk; older ones are fetched again when someone asks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,9}")


class _Hashes(msgspec.Struct):
    # The one part of a manifest that is read before it is trusted; `decision.artifact` reads the rest.
    files: dict[str, str]


def check_names(sizes: Mapping[str, int]) -> None:
    """Refuse a set of model files ({name: bytes}) that could leave its folder or fill the disk.

    Raises:
        FieldError: a name that is no plain file name, too many files or too many bytes.
    """
    if not 1 <= len(sizes) <= MAX_FILES:
        raise FieldError("files", wanted=f"1 to {MAX_FILES} files", got=len(sizes))
    for name in sizes:
        if not _NAME.fullmatch(name):
            raise FieldError("files", wanted="plain file names of at most 128 characters", got=name)
    if sum(sizes.values()) > MAX_BYTES:
        raise FieldError("files", wanted=f"at most {MAX_BYTES} bytes", got=sum(sizes.values()))


def verify(files: Mapping[str, bytes]) -> None:
    """Refuse files that are not exactly those of their own ``manifest.json``.

    Raises:
        FieldError: naming the file that is missing, additional or altered.
    """
    check_names({name: len(data) for name, data in files.items()})
    manifest = files.get(MANIFEST_FILE)
    if manifest is None or len(manifest) > MAX_MANIFEST_BYTES:
        raise FieldError(
            MANIFEST_FILE, wanted=f"1 to {MAX_MANIFEST_BYTES} bytes", got=None if manifest is None else "more"
        )
    try:
        hashes = msgspec.json.decode(manifest, type=prepared(_Hashes)).files
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FieldError(MANIFEST_FILE, wanted="a JSON object with the files' hashes", got=error) from error
    if set(hashes) != set(files) - {MANIFEST_FILE}:
        raise FieldError("files", wanted=f"those of the manifest, {sorted(hashes)}", got=sorted(files))
    for name, wanted in hashes.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != wanted:
            raise FieldError(f"files.{name}", wanted=f"sha256 {wanted}", got=found)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of `folder` by name, within the limits of `check_names`.

    Raises:
        FieldError: as `check_names`; a folder or link inside is no plain file either.
    """
    entries = sorted(folder.iterdir())
    for entry in entries:
        if entry.is_symlink() or not entry.is_file():
            raise FieldError("files", wanted="plain files", got=entry.name)
    check_names({entry.name: entry.stat().st_size for entry in entries})
    return {entry.name: entry.read_bytes() for entry in entries}


def manifest_digest(files: Mapping[str, bytes]) -> str:
    """Return the hex sha256 of the manifest, which stands for all files: it holds their hashes."""
    return hashlib.sha256(files[MANIFEST_FILE]).hexdigest()


class ModelCache:
    """Verified model files and the last seen aliases of each loop, in one folder.

    Args:
        root: the folder; created on first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, loop: str, version: str) -> dict[str, bytes] | None:
        """Return the files of a version, or None when they are not here or no longer whole."""
        folder = self._folder(loop, version)
        try:
            files = read_folder(folder)
            verify(files)
        except FileNotFoundError:
            return None
        except FieldError:
            shutil.rmtree(folder, ignore_errors=True)  # fetched again from the registry
            return None
        return files

    def put(self, loop: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep verified files; several processes may do so at once."""
        folder = self._folder(loop, version)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as made:
            new = Path(made) / "files"
            new.mkdir()
            for name, data in files.items():
                (new / name).write_bytes(data)
            if folder.exists():
                os.replace(folder, Path(made) / "old")
            try:
                os.replace(new, folder)
            except OSError:  # another process put the same version there first
                if not folder.is_dir():
                    raise
        self._forget_old(folder.parent)

    def drop(self, loop: str, version: str) -> None:
        """Remove the files of a version, if they are here."""
        shutil.rmtree(self._folder(loop, version), ignore_errors=True)

    def aliases(self, loop: str) -> dict[str, str] | None:
        """Return the aliases last seen, or None when none ever were."""
        try:
            return msgspec.json.decode((self._root / loop / "aliases.json").read_bytes(), type=dict[str, str])
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def put_aliases(self, loop: str, aliases: dict[str, str]) -> None:
        """Keep the aliases for a start without the registry."""
        path = self._root / loop / "aliases.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(aliases))

    def _folder(self, loop: str, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise FieldError("version", wanted="a number", got=version)
        return self._root / loop / version

    def _forget_old(self, folder: Path) -> None:
        aliased = set((self.aliases(folder.name) or {}).values())
        held = sorted((entry for entry in folder.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name))
        for entry in held[:-VERSIONS_KEPT]:
            if entry.name not in aliased:
                shutil.rmtree(entry, ignore_errors=True)
