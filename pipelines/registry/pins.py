"""What State knows of each version's files: a registry that changes them, and its own tag with them, is found out.

    pinned/NAME/NUMBER       SHA-256 of the version's manifest, which holds the hashes of its files

It is written by who registers a version, or else by the first machine that reads one, and never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.registry.tracking import RegistryError
from pipelines.state.failures import StaleError, StateError
from pipelines.state.state import State

_log = logging.getLogger(__name__)


class Pins:
    """The digests that State holds.

    Args:
        state: State.
        file: State's own file where it is one in the home folder; it is not made before there is something to keep.
    """

    def __init__(self, state: State, file: Path | None) -> None:
        self._state, self._file = state, file

    def of(self, loop: str, version: str) -> str | None:
        """Return the digest of a version, None where nobody on this State has seen its files.

        Raises:
            RegistryError: State does not answer.
        """
        if self._file is not None and not self._file.is_file():
            return None
        with _mapped():
            entry = self._state.get(_key(loop, version))
        return None if entry is None else entry.value.decode("ascii", "replace")

    def keep(self, loop: str, version: str, digest: str) -> str:
        """Write a digest down unless there is one, and return the one that stands.

        Raises:
            RegistryError: State does not answer.
        """
        with _mapped():
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(StaleError):
                self._state.put({_key(loop, version): (None, digest.encode())})
        return self.of(loop, version) or digest

    def seen(self, loop: str, version: str, digest: str) -> None:
        """Write a digest down unless there is one; a State that cannot be written to is no reason not to serve."""
        try:
            self.keep(loop, version, digest)
        except RegistryError as error:
            _log.warning("State does not know the files of version %s of %s yet: %s", version, loop, error)


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (StateError, OSError) as error:
        raise RegistryError(str(error)) from error


def _key(loop: str, version: str) -> str:
    return f"pinned/{loop}/{int(version):09d}"
