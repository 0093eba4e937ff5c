"""The text of a LightGBM model, read before LightGBM reads it.

LightGBM trusts its text: an index beyond a tree, a tree that leads back to itself, or a size that is not a tree's own
makes it read memory that is not the model's, or never end. So a text may hold what ours hold and nothing else: the same
lines in the same order, as many numbers as the tree has nodes, and trees that are trees. What comes after the trees
(importances, and parameters, which may name files and machines) LightGBM does not need to predict or to boost on; it is
replaced by nothing.

References:
    LightGBM 4.6, ``src/boosting/gbdt_model_text.cpp`` and ``src/io/tree.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from decision.errors import FieldError, Words

MAX_LEAVES = 1_024
"""Leaves of a tree."""
MAX_TREES = 1 << 20

_END = "end of trees\n"
_TAIL = _END + "\nfeature_importances:\n\nparameters:\n\nend of parameters\n\npandas_categorical:null\n"
_HEAD = ("tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0")
_WHOLE = r"(?:0|-?[1-9][0-9]{0,9})"
_REAL = r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[-+][0-9]{1,3})?"
_RANGE = rf"(?:none|\[{_REAL}:{_REAL}\])"
_LOOSE = rf"(?:{_REAL}|-?inf|-?nan)"


def _many(of: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{of}(?: {of})*)?", re.ASCII)


_WHOLES, _REALS, _LOOSES, _RANGES = _many(_WHOLE), _many(_REAL), _many(_LOOSE), _many(_RANGE)
_DECISIONS = frozenset((0, 2, 4, 6, 8, 10))
"""How absent numbers go; the others are splits by categories, which ours do not make."""
_INT = range(-(1 << 31), 1 << 31)
_MOST = 1e100
"""Size of a leaf's value; the sum of all trees is a number then."""


def without_tail(text: str) -> str:
    """Return a model's text without what LightGBM wrote after its trees."""
    return text[: text.find(_END)] + _TAIL


def checked(name: str, data: bytes, columns: int) -> str:
    """Return the text that LightGBM may read: head and trees of a model that is one of ours in form.

    Args:
        name: of the file.
        data: its bytes.
        columns: features that the model was told of, from 1 on.

    Raises:
        FieldError: it is another text, or of another number of columns.
    """
    try:
        text = data.decode("ascii")
        end = text.find("\n" + _END)
        if end < 0:
            raise ValueError(f"there is no line {_END.strip()!r}")
        lines = _Lines(text[: end + 1])
        _check_head(lines, columns)
        sizes = lines.wholes("tree_sizes", None)
        lines.exactly("")
        if not 1 <= len(sizes) <= MAX_TREES:
            raise ValueError(f"{len(sizes)} trees")
        for number, size in enumerate(sizes):
            begun = lines.read
            lines.exactly(f"Tree={number}")
            _check_tree(lines, columns)
            lines.exactly("")
            lines.exactly("")
            if lines.read - begun != size:
                raise ValueError(f"tree {number} has {lines.read - begun} bytes, the head says {size}")
        lines.end()
    except ValueError as error:  # of the decoding, too
        raise FieldError(name, wanted="the text of a LightGBM model as ours are", got=Words(str(error))) from error
    return without_tail(text)


class _Lines:
    """The lines of a text, one after the other.

    Attributes:
        read: how many bytes they had so far, with their ends.
    """

    def __init__(self, text: str) -> None:
        self._lines: Iterator[str] = iter(text.split("\n")[:-1])
        self.read = 0

    def next(self) -> str:
        line = next(self._lines, None)
        if line is None:
            raise ValueError("it ends early")
        self.read += len(line) + 1
        return line

    def exactly(self, wanted: str) -> None:
        if (line := self.next()) != wanted:
            raise ValueError(f"{line[:40]!r} where {wanted[:40]!r} must stand")

    def words(self, key: str, form: re.Pattern[str], count: int | None) -> list[str]:
        """Return the words of a line KEY=WORD WORD ..., of which there are so many, or any number with None."""
        told, _, value = self.next().partition("=")
        if told != key or not form.fullmatch(value):
            raise ValueError(f"{told[:40]!r} where {key!r} and its values must stand")
        found = value.split(" ") if value else []
        if count is not None and len(found) != count:
            raise ValueError(f"{key!r} must have {count} values, has {len(found)}")
        return found

    def wholes(self, key: str, count: int | None) -> list[int]:
        """Return the whole numbers of a line, of which there are so many, or any number with None."""
        found = [int(word) for word in self.words(key, _WHOLES, count)]
        if found and not (min(found) in _INT and max(found) in _INT):
            raise ValueError(f"{key!r} beyond 32 bits")
        return found

    def end(self) -> None:
        if (line := next(self._lines, None)) is not None:
            raise ValueError(f"{line[:40]!r} after the last tree")


def _check_head(lines: _Lines, columns: int) -> None:
    for line in _HEAD:
        lines.exactly(line)
    (last,) = lines.wholes("max_feature_idx", 1)
    if last != columns - 1:
        raise ValueError(f"a model of {last + 1} columns, not of {columns}")
    lines.exactly("objective=cross_entropy")
    lines.exactly("feature_names=" + " ".join(f"Column_{column}" for column in range(columns)))
    lines.words("feature_infos", _RANGES, columns)


def _check_tree(lines: _Lines, columns: int) -> None:
    (leaves,) = lines.wholes("num_leaves", 1)
    if not 1 <= leaves <= MAX_LEAVES:
        raise ValueError(f"a tree of {leaves} leaves")
    inner = leaves - 1
    lines.exactly("num_cat=0")
    features = lines.wholes("split_feature", inner)
    lines.words("split_gain", _LOOSES, inner)
    lines.words("threshold", _REALS, inner)
    decisions = lines.wholes("decision_type", inner)
    left, right = lines.wholes("left_child", inner), lines.wholes("right_child", inner)
    values = lines.words("leaf_value", _REALS, leaves)
    # a tree that is one leaf has lost its weight and its count when it is written a second time
    lines.words("leaf_weight", _LOOSES, leaves if inner else None)
    lines.wholes("leaf_count", leaves if inner else None)
    lines.words("internal_value", _LOOSES, inner)
    lines.words("internal_weight", _LOOSES, inner)
    lines.wholes("internal_count", inner)
    lines.exactly("is_linear=0")
    lines.words("shrinkage", _REALS, 1)
    if not all(0 <= feature < columns for feature in features):
        raise ValueError(f"a split by a feature beyond the {columns} columns")
    if not _DECISIONS.issuperset(decisions):
        raise ValueError("a split that is not by a number")
    if not all(abs(float(value)) < _MOST for value in values):
        raise ValueError(f"a leaf of more than {_MOST:g}")
    _check_children(left, right)


def _check_children(left: list[int], right: list[int]) -> None:
    """Refuse what is no tree: each node but the first, and each leaf (~i), is the child of one node before it."""
    below = [*left, *right]
    if not below:
        return
    inner = len(left)
    if sorted(below) != [*range(-inner - 1, 0), *range(1, inner)]:
        raise ValueError("nodes that are nobody's child, or of two")
    if not all(child < 0 or child > parent for children in (left, right) for parent, child in enumerate(children)):
        raise ValueError("a node above itself")
