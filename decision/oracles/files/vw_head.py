"""VW model files: a place for one, and its head, read before VW reads it.

A model file carries options, and VW takes them as if they had been typed: ``--final_regressor PATH`` in a file would
write to that path, with the rights of whoever loads the model. Files may hold those options alone that ours have. The
model's name is taken in the same way, a text that does not end is read on in what stood in memory before, and releases
before 8.0.3 laid the head out otherwise: what VW reads must be what was read here.

References:
    Vowpal Wabbit 9.11, ``parse_regressor.cc``, ``save_load_header``.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

from decision.errors import FieldError, Words

MODEL_FILE = "model.vw"
OPTIONS = ("--l2", "--learning_rate", "--link", "--power_t", "--quadratic", "--random_seed")
"""Options that a file may carry, each with one value; all of them are numbers or plain words."""

_MAX_CHARS = 4_096
_MAX_NAME = 64
_VERSION = re.compile(r"(8|9)\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_FIRST = (8, 0, 3)
"""Release of VW that has this head first."""
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
    """What was not read yet of a file's bytes.

    Attributes:
        at: how many were read.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: the file ends before.
        """
        found = self._data[self.at : self.at + count]
        if len(found) != count:
            raise ValueError("it ends early")
        self.at += count
        return found

    def number(self) -> int:
        """Return the next number, unsigned, of 32 bits."""
        return int(struct.unpack("<I", self.take(4))[0])

    def text(self) -> str:
        """Return the next text, which ends with its only NUL byte."""
        count = self.number()
        if not 1 <= count <= _MAX_CHARS:
            raise ValueError(f"a text of {count} characters")
        found = self.take(count).decode("ascii")
        if found.find("\0") != count - 1:
            raise ValueError("a text that does not end where it must")
        return found[:-1]


class VwHead(NamedTuple):
    """What a model file says before its weights.

    Attributes:
        version: of VW.
        bits: the table has 2^bits weights.
        words: the options, as they are split at spaces.
        size: bytes of the head.
    """

    version: tuple[int, ...]
    bits: int
    words: list[str]
    size: int


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
        told = head.text()
        version = _VERSION.fullmatch(told)
        if version is None or tuple(map(int, version.groups())) < _FIRST:
            raise ValueError(f"of release {told[:20]!r}, and read are {'.'.join(map(str, _FIRST))} to 9")
        called = head.text()
        if len(called) > _MAX_NAME or not _WORD.issuperset(called) or called.startswith("-"):
            raise ValueError("a model with a name that is not one plain word")
        if head.take(1) != b"m":
            raise ValueError("it does not say that it is a model")
        if not all(map(math.isfinite, struct.unpack("<ff", head.take(8)))):
            raise ValueError("a smallest or a largest label that is no number")
        found = head.number()
        if any(head.number() for _ in range(3)):  # topics, n-grams and skips
            raise ValueError("a kind of model that none of ours is")
        words = head.text().split()
        if head.number() != 4:
            raise ValueError("there is no checksum after its options")
        head.take(4)  # VW holds the head against it
        return VwHead(tuple(map(int, version.groups())), found, words, head.at)
    except ValueError as error:
        raise FieldError(name, wanted="a VW model", got=error) from error


def check_head(name: str, data: bytes, bits: int) -> VwHead:
    """Return the head of a model file, or refuse a model file whose head is not one that our models are saved with.

    Args:
        name: of the file.
        data: its bytes.
        bits: the table has 2^bits weights.

    Raises:
        FieldError: it is no model file, of another size, or carries other options.
    """
    head = read_head(name, data)
    found, words = head.bits, head.words
    if found != bits:
        raise FieldError(name, wanted=f"a table of 2^{bits} weights", got=Words(f"2^{found}"))
    allowed = len(words) % 2 == 0 and all(option in OPTIONS for option in words[::2])
    if not allowed or not all(_WORD.issuperset(value) for value in words[1::2]):
        raise FieldError(name, wanted=f"a model with no other options than {', '.join(OPTIONS)}", got=" ".join(words))
    return head
