"""The rows of a generalised linear model with products, as passes over parts that hold no products.

Once the action is fixed, the logit is linear in the context,

    b0 + u'x + v'a + x'Wa + p'q(a)  =  x'(u + Wa) + (b0 + v'a + p'q(a)),

so the weights are folded with each distinct action of a part, and a pass costs no more than the context's own entries.
A slope is unfolded the same way. Where folding would cost more than the products, as with thousands of columns of which
a row has few, a part holds the products. Parts have a fixed number of rows: sums are added in one order, whatever the
rows are held as.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from decision.oracles.products import Entries
from decision.ragged import Floats, Ints, ragged_offsets, ragged_rows

_DENSE = 1_024
_MATRIX = 4  # arrays of one matrix
_FOLDED = 4
"""Folded weights of a part may be this many times its contexts' entries."""


class Block:
    """Views of [s, width] weights by their parts: constant, context, action, products, pairs of action columns."""

    def __init__(self, constant: Floats, shared: Floats, own: Floats, crossed: Floats, pairs: Floats) -> None:
        self.constant, self.shared, self.own, self.crossed, self.pairs = constant, shared, own, crossed, pairs

    @classmethod
    def of(cls, weights: Floats, c: int, a: int, interactions: bool) -> Block:
        """Return the views for `c` context and `a` action columns."""
        products = c * a if interactions else 0
        constant, shared, own, crossed, pairs = np.split(weights, np.cumsum((1, c, a, products)), axis=1)
        return cls(
            constant[:, 0], shared, own, crossed.reshape(len(weights), *((c, a) if interactions else (0, 0))), pairs
        )


class Sizes(NamedTuple):
    """How the weights are laid out: context, action and pair columns, and whether there are products."""

    context: int
    action: int
    pairs: int
    interactions: bool

    @property
    def width(self) -> int:
        """Number of weights."""
        c, a = self.context, self.action
        return 1 + c + a + (c * a if self.interactions else 0) + self.pairs


class PairEntries(NamedTuple):
    """Pairs of an action's own columns: row, which pair, and its value, [e] each."""

    row: Ints
    pair: Ints
    value: Floats


class Part:
    """Some rows of the design: [r, width], whatever it is held as."""

    def __init__(
        self, x: Entries, actions: Entries, pairs: PairEntries, of: Ints, sizes: Sizes, *, written: bool = False
    ) -> None:
        """Take the rows.

        Args:
            x: entries of the [r] contexts.
            actions: entries of the [d] distinct actions.
            pairs: theirs.
            of: [r] int64 the action of each row.
            sizes: of the weights.
            written: hold the products, whatever that costs.
        """
        self._sizes = sizes
        r, d, c = of.size, actions.offsets.size - 1, sizes.context
        lengths = np.diff(x.offsets)
        self._folded = not written and sizes.interactions and d * (c + 1) <= _FOLDED * (x.column.size + r)
        if self._folded:
            starts = x.offsets[:-1] + np.arange(r)
            last = x.offsets[1:] + np.arange(r)
            context = ragged_rows(starts, x.offsets)
            column, value = np.empty(x.column.size + r, np.int64), np.ones(x.column.size + r)
            column[context] = np.repeat(of * (c + 1), lengths) + x.column
            column[last], value[context] = of * (c + 1) + c, x.value
            offsets = x.offsets + np.arange(r + 1)
            self._rows = _matrix(value, column, offsets, (r, d * (c + 1)))
            self._actions = _matrix(actions.value, actions.column, actions.offsets, (d, sizes.action))
            order = np.argsort(pairs.row, kind="stable")
            pair_offsets = ragged_offsets(np.bincount(pairs.row, minlength=d))
            self._pairs = _matrix(pairs.value[order], pairs.pair[order], pair_offsets, (d, sizes.pairs))
        else:
            self._rows = _products(x, actions, pairs, of, sizes)

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]], sizes: Sizes) -> Part:
        """Return the part that `arrays` described."""
        part = cls.__new__(cls)
        part._sizes, part._folded = sizes, len(arrays) > _MATRIX
        matrices = [_of_arrays(*arrays[start : start + _MATRIX]) for start in range(0, len(arrays), _MATRIX)]
        part._rows = matrices[0]
        if part._folded:
            part._actions, part._pairs = matrices[1:]
        return part

    def arrays(self) -> list[NDArray[Any]]:
        """Return what the part is made of."""
        matrices = (self._rows, *self._actions_and_pairs())
        return [array for m in matrices for array in (m.data, m.indices, m.indptr, np.array(m.shape))]

    def __len__(self) -> int:
        return self._rows.shape[0]

    def logits(self, weights: Floats) -> Floats:
        """Return [r] logits under [width] weights."""
        if not self._folded:
            return self._rows @ weights
        c, a = self._sizes.context, self._sizes.action
        block = Block.of(weights[None, :], c, a, interactions=True)
        folded = np.empty((self._actions.shape[0], c + 1))
        folded[:, :c] = self._actions @ np.ascontiguousarray(block.crossed[0].T)
        folded[:, :c] += block.shared[0]
        folded[:, c] = self._actions @ block.own[0] + self._pairs @ block.pairs[0] + block.constant[0]
        return self._rows @ folded.ravel()

    def slope(self, residual: Floats) -> Floats:
        """Return [width] the sums over the rows of the design times [r] `residual`."""
        return self._unfolded(self._rows, self._actions_and_pairs(), residual)

    def curvature(self, weight: Floats) -> Floats:
        """Return [width] the sums over the rows of the squared design times [r] `weight`."""
        squared = tuple(matrix.power(2) for matrix in self._actions_and_pairs())
        return self._unfolded(self._rows.power(2), squared, weight)

    def curvatures(self, weight: Floats) -> Floats:
        """Return [width, width] the sums over the rows of every product of two columns times [r] `weight`.

        Only of a part that was written out.
        """
        out = np.zeros((self._sizes.width, self._sizes.width))
        for start in range(0, len(self), _DENSE):
            rows = self._rows[start : start + _DENSE].toarray()
            out += (rows * weight[start : start + _DENSE, None]).T @ rows
        return out

    def _actions_and_pairs(self) -> tuple[Any, ...]:
        return (self._actions, self._pairs) if self._folded else ()

    def _unfolded(self, rows: Any, folds: tuple[Any, ...], number: Floats) -> Floats:
        found = rows.T @ number
        if not folds:
            return found
        actions, pairs = folds
        c = self._sizes.context
        each = found.reshape(-1, c + 1)
        out = np.empty(self._sizes.width)
        block = Block.of(out[None, :], c, self._sizes.action, interactions=True)
        alone = np.ascontiguousarray(each[:, c])
        block.constant[0], block.shared[0] = alone.sum(), each[:, :c].sum(axis=0)
        block.own[0], block.pairs[0] = actions.T @ alone, pairs.T @ alone
        block.crossed[0] = (actions.T @ np.ascontiguousarray(each[:, :c])).T
        return out


def outer(one: Entries, other: Entries, of: Ints | None = None) -> tuple[Ints, Ints]:
    """Return the entries of `one` and of `other` that share a row, every pair of them.

    Args:
        one: entries of r rows.
        other: entries of as many rows, or of those that `of` points at.
        of: [r] int64 row of `other` that each row of `one` goes with.
    """
    row = one.row if of is None else of[one.row]
    offsets = ragged_offsets(np.diff(other.offsets)[row])
    return np.repeat(np.arange(row.size, dtype=np.int64), np.diff(offsets)), ragged_rows(other.offsets[row], offsets)


def _products(x: Entries, actions: Entries, pairs: PairEntries, of: Ints, sizes: Sizes) -> Any:
    """Return [r, width] the design written out."""
    c, a, _, interactions = sizes
    r = of.size
    each = np.diff(actions.offsets)[of]
    own_offsets = ragged_offsets(each)
    own = ragged_rows(actions.offsets[of], own_offsets)
    row = np.repeat(np.arange(r, dtype=np.int64), each)
    rows, columns = [np.arange(r, dtype=np.int64), x.row, row], [np.zeros(r, np.int64), 1 + x.column]
    columns.append(1 + c + actions.column[own])
    values = [np.ones(r), x.value, actions.value[own]]
    if interactions:
        of_x, of_y = outer(x, actions, of)
        rows.append(x.row[of_x])
        columns.append(1 + c + a + x.column[of_x] * a + actions.column[of_y])
        values.append(x.value[of_x] * actions.value[of_y])
        order = np.argsort(pairs.row, kind="stable")
        held = ragged_offsets(np.bincount(pairs.row, minlength=actions.offsets.size - 1))
        pair_offsets = ragged_offsets(np.diff(held)[of])
        flat = order[ragged_rows(held[of], pair_offsets)]
        rows.append(np.repeat(np.arange(r, dtype=np.int64), np.diff(pair_offsets)))
        columns.append(1 + c + a + c * a + pairs.pair[flat])
        values.append(pairs.value[flat])
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(r, sizes.width))


def _of_arrays(value: Floats, column: Ints, offsets: Ints, shape: Ints) -> Any:
    return sparse.csr_matrix((value, column, offsets), shape=tuple(shape.tolist()))


def _matrix(value: Floats, column: Ints, offsets: Ints, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((value, column.astype(np.int32), offsets.astype(np.int32)), shape=shape)
