"""Segments in which a policy gains or loses otherwise than elsewhere: found on one half of a log, judged on the other.

Whoever looks at thousands of segments finds some that look good by chance. So the decisions are split by a coin that
knows nothing of them: one half chooses the segments, and the other half, which had no part in the choice, says what
they are worth (honest estimation, Athey & Imbens 2016, section 3). There the intervals hold together at `level`, since
their error is divided by the number of segments that were chosen (Bonferroni 1936), however many were looked at.

Looked at are single cells of features, each frequent value and each tenth of the numbers, and pairs of cells of two
features. The search costs one product of a matrix of decisions by cells with itself, see `MOST_CELLS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.drift.layout import Feature, laid_out, members
from decision.drift.observed import Described
from decision.errors import FieldError
from decision.ope.diagnostics.refusals import refusals
from decision.ope.estimate import Estimate
from decision.ope.intervals.simultaneous import simultaneous
from decision.ope.sums.means import MeanSums

MOST_CELLS = 200
"""Cells that are looked at, those of most decisions; so at most 19,900 pairs."""
LEAST = 100
"""Decisions of a half without which a segment is not looked at."""
LARGEST = 0.9
"""Share of the decisions from which on a segment is all of them."""
CHOSEN = 10
"""Segments that are estimated at most: half of them where the policy loses, half where it gains."""
ALIKE = 0.5
"""Share of common decisions, of those in either, from which on two segments are one."""
_Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segment:
    """Decisions that have something in common.

    Attributes:
        of: what, for example ``device=mobile and hour 9 to 12``.
        share: of the decisions that were estimated on.
        lift: what the policy earns there more than what drew the log; holds together with those of all segments.
        beyond: the same less that of all other decisions; likewise.
    """

    of: str
    share: float
    lift: Estimate
    beyond: Estimate

    @property
    def apart(self) -> bool:
        """Whether the policy gains or loses there otherwise than elsewhere, beyond chance."""
        return not self.beyond.low <= 0.0 <= self.beyond.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found.

    Attributes:
        segments: those chosen, the largest loss first; their intervals hold together, and so do those of `beyond`.
        singles: cells that were looked at.
        pairs: pairs of cells that were looked at.
        searched: decisions that chose.
        estimated: decisions that the estimates are of.
        chosen: segments that were chosen; those that are missing have too few decisions that count for the policy.
        level: of the intervals.
    """

    segments: list[Segment]
    singles: int
    pairs: int
    searched: int
    estimated: int
    chosen: int
    level: float


def find_segments(
    decisions: Described, terms: Floats, importance: Floats, half: Ints, *, level: float = 0.95, counted: bool = False
) -> Found:
    """Return the segments in which a policy's lift stands out.

    Args:
        decisions: n decisions with the features of their contexts; weights are how many each one stands for.
        terms: [n] unbiased terms of the lift, for example doubly robust.
        importance: [n] importance weights of the policy.
        half: [n] 0 for decisions that choose, 1 for those that are estimated on; drawn without looking at them.
        level: coverage of all intervals of one kind together.
        counted: some decisions stand for several.

    Raises:
        FieldError: arrays of other lengths, or a level outside (0, 1).
    """
    n = len(decisions)
    for name, array in (("terms", terms), ("importance", importance), ("half", half)):
        if array.shape != (n,):
            raise FieldError(name, wanted=f"{n} numbers", got=array.shape)
    features = laid_out(_where(decisions, half == 0))
    names, of, inside = _cells(features, decisions, half == 0)
    search, rest = np.flatnonzero(half == 0), np.flatnonzero(half == 1)
    empty = Found(
        segments=[], singles=len(names), pairs=0, searched=search.size, estimated=rest.size, chosen=0, level=level
    )
    if not names or min(search.size, rest.size) < 2 * LEAST:
        return empty
    weight = decisions.weight
    score, pairs = _scores(inside[search], of, terms[search], weight[search])
    chosen = _chosen(score, inside[search])
    sums: dict[str, MeanSums] = {}
    beyond: dict[str, MeanSums] = {}
    shares: dict[str, float] = {}
    counts = weight[rest] if counted else None
    for i, j in chosen:
        own = inside[rest, i] & inside[rest, j]
        name = " and ".join(sorted({names[i], names[j]}))
        there = MeanSums.of(
            terms[rest][own], importance[rest][own], None if counts is None else counts[own], cubes=True
        )
        if np.count_nonzero(own) < LEAST // 2 or refusals(there.support, 0.0):
            continue
        share = float(weight[rest] @ own / weight[rest].sum())
        centred = terms[rest] - float(weight[rest] @ terms[rest] / weight[rest].sum())
        contrast = centred * np.where(own, 1.0 / share, -1.0 / (1.0 - share))
        sums[name], shares[name] = there, share
        beyond[name] = MeanSums.of(contrast, importance[rest], counts, cubes=True)
    lifts, others = (simultaneous(each, level=level, chosen=len(chosen)) for each in (sums, beyond))
    segments = [Segment(name, shares[name], lifts[name], others[name]) for name in sums]
    return Found(
        segments=sorted(segments, key=lambda one: (not one.apart, one.beyond.value)),
        singles=len(names),
        pairs=pairs,
        searched=search.size,
        estimated=rest.size,
        chosen=len(chosen),
        level=level,
    )


def _where(decisions: Described, keep: NDArray[np.bool_]) -> Described:
    place = np.cumsum(keep) - 1
    entries = np.flatnonzero(keep[decisions.row])
    return Described(
        row=place[decisions.row[entries]],
        name=decisions.name.take(entries),
        value=decisions.value[entries],
        weight=decisions.weight[keep],
        block=decisions.block[keep],
        subject=decisions.subject[keep],
    )


def _cells(
    features: list[Feature], decisions: Described, search: NDArray[np.bool_]
) -> tuple[list[str], Ints, NDArray[np.bool_]]:
    """Return names of the cells, [c] the feature of each, and [n, c] who is in them; those of most decisions."""
    found: list[tuple[int, str, int, Ints]] = []
    half = int(np.count_nonzero(search))
    for number, (feature, (row, cell)) in enumerate(zip(features, members(features, decisions), strict=True)):
        order = np.argsort(cell, kind="stable")
        cuts = np.searchsorted(cell[order], np.arange(feature.cells + 1)).tolist()
        for at, (start, end) in enumerate(pairwise(cuts)):
            own = row[order[start:end]]
            size = int(np.count_nonzero(search[own]))
            if LEAST <= size <= LARGEST * half:
                found.append((size, feature.segment(at), number, own))
    found.sort(key=lambda one: (-one[0], one[2], one[1]))
    found = found[:MOST_CELLS]
    inside = np.zeros((len(decisions), len(found)), np.bool_)
    for column, (*_, own) in enumerate(found):
        inside[own, column] = True
    return [one[1] for one in found], np.array([one[2] for one in found], np.int64), inside


def _scores(inside: NDArray[np.bool_], of: Ints, terms: Floats, weight: Floats) -> tuple[_Matrix, int]:
    """Return [c, c] how many standard errors each segment's mean is from that of the rest, and how many are pairs.

    A cell by itself is on the diagonal; NaN where nothing is looked at.
    """
    n, member = len(terms), inside.astype(np.float32)
    centred = (terms - weight @ terms / weight.sum()).astype(np.float64)
    scale = float(np.abs(centred).max()) or 1.0
    t, c = (centred / scale).astype(np.float32), weight.astype(np.float32)

    def sums(by: Any) -> _Matrix:
        return (member.T @ (member * by[:, None])).astype(np.float64)

    rows, mass, total, square = sums(np.ones(n, np.float32)), sums(c), sums(c * t), sums(c * t * t)
    whole, sum_all, square_all = float(c.sum()), float(c @ t), float(c @ (t * t))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, other = total / mass, (sum_all - total) / (whole - mass)
        variance = np.maximum(square / mass - mean**2, 0.0)
        apart = np.maximum((square_all - square) / (whole - mass) - other**2, 0.0)
        score = (mean - other) / np.sqrt(variance / rows + apart / (n - rows))
    looked = (rows >= LEAST) & (rows <= LARGEST * n) & ((of[:, None] != of) | np.eye(of.size, dtype=np.bool_))
    score[~looked | ~np.isfinite(score)] = np.nan
    return score, int(np.count_nonzero(np.triu(looked, 1)))


def _chosen(score: _Matrix, inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the segments that stand out the most on either side, none of which is as good as another one."""
    chosen: list[tuple[int, int]] = []
    first, second = np.triu_indices(len(score))
    flat = score[first, second]
    for side in (1.0, -1.0):
        kept: list[NDArray[np.bool_]] = []
        order = np.argsort(-np.nan_to_num(side * flat, nan=-np.inf), kind="stable")
        for at in order[: 50 * CHOSEN].tolist():
            if len(kept) == CHOSEN // 2 or not side * flat[at] > 0.0:
                break
            i, j = int(first[at]), int(second[at])
            own = inside[:, i] & inside[:, j]
            if all(np.count_nonzero(own & one) < ALIKE * np.count_nonzero(own | one) for one in kept):
                kept.append(own)
                chosen.append((i, j))
    return chosen
