"""VW model files: a place for one, and its head, read before VW reads it.

A model file carries options, and VW takes them as if they had been typed: ``--final_regressor PATH`` in a file would
write to that path, with the rights of whoever loads the model. Files may hold those options alone that ours have.

References:
    Vowpal Wabbit 9.11, ``parse_regressor.cc``, ``save_load_header``.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

from decision.errors import FieldError, Words

MODEL_FILE = "model.vw"
OPTIONS = ("--l2", "--learning_rate", "--link", "--power_t", "--quadratic", "--random_seed")
"""Options that a file may carry, each with one value; all of them are numbers or plain words."""

_MAX_CHARS = 4_096
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+-_")


class scratch_file:
    """A path for one file of VW's, which saves and loads by name only; in memory where the system allows."""

    def __enter__(self) -> Path:
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - a fresh private folder inside
        self._folder = tempfile.TemporaryDirectory(dir=folder)
        return Path(self._folder.name) / MODEL_FILE

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


class _Head:
    """What was not read yet of a file's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: the file ends before.
        """
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise ValueError("it ends early")
        self._at += count
        return found

    def number(self) -> int:
        """Return the next number, unsigned, of 32 bits."""
        return int(struct.unpack("<I", self.take(4))[0])

    def text(self) -> str:
        """Return the next text, which ends with a NUL byte."""
        count = self.number()
        if not 1 <= count <= _MAX_CHARS:
            raise ValueError(f"a text of {count} characters")
        return self.take(count).decode("ascii").rstrip("\0")


class VwHead(NamedTuple):
    """What a model file says before its weights.

    Attributes:
        bits: the table has 2^bits weights.
        words: the options, as they are split at spaces.
    """

    bits: int
    words: list[str]


def read_head(name: str, data: bytes) -> VwHead:
    """Return what the head of a model file says; VW has not read it yet.

    Args:
        name: of the file.
        data: its bytes.

    Raises:
        FieldError: it is no model file.
    """
    try:
        head = _Head(data)
        head.text()  # the version of VW, which it checks itself
        head.text()  # the model's name
        if head.take(1) != b"m":
            raise ValueError("it does not say that it is a model")
        head.take(8)  # the smallest and the largest label
        found = head.number()
        if any(head.number() for _ in range(3)):  # topics, n-grams and skips
            raise ValueError("a kind of model that none of ours is")
        return VwHead(found, head.text().split())
    except ValueError as error:
        raise FieldError(name, wanted="a VW model", got=error) from error


def check_head(name: str, data: bytes, bits: int) -> None:
    """Refuse a model file whose head is not one that our models are saved with.

    Args:
        name: of the file.
        data: its bytes.
        bits: the table has 2^bits weights.

    Raises:
        FieldError: it is no model file, of another size, or carries other options.
    """
    found, words = read_head(name, data)
    if found != bits:
        raise FieldError(name, wanted=f"a table of 2^{bits} weights", got=Words(f"2^{found}"))
    allowed = len(words) % 2 == 0 and all(option in OPTIONS for option in words[::2])
    if not allowed or not all(_WORD.issuperset(value) for value in words[1::2]):
        raise FieldError(name, wanted=f"a model with no other options than {', '.join(OPTIONS)}", got=" ".join(words))
