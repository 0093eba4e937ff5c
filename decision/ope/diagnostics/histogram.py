"""What diagnostics are made of, as sums: bins of weights, inverse propensities, mass that the log could never draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats
from decision.ope.diagnostics.weights import Diagnostics
from decision.ope.rows import Rows
from decision.ope.sums.exact import Exact, added, exact_group_sums, exact_sum, expansion, rounded
from decision.ope.sums.means import Support

BINS_PER_DECADE = 4
_FINE = 16  # fine bins in each bin, for the share of the heaviest rows
_LOWEST, _DECADES = -12, 24
_BINS = _DECADES * BINS_PER_DECADE * _FINE


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Mergeable counts and sums; `+` merges shards.

    Attributes:
        rows: decisions.
        unused: rows with weight 0.
        actions: actions offered.
        smallest_propensity: of a drawn action.
        inverse: sum of 1 / p.
        unsupported: sum of the policy's probability of actions that the log never draws; empty where not known.
        counts: {fine bin: rows} of the positive weights.
        sums: {fine bin: sum of weights}.
    """

    rows: int
    unused: int
    actions: int
    smallest_propensity: float
    inverse: Exact
    unsupported: Exact
    counts: dict[int, int]
    sums: dict[int, Exact]

    @staticmethod
    def of(rows: Rows) -> Tally:
        """Return the tally of some rows."""
        positive = rows.weight[rows.weight > 0]
        fine = np.floor((np.log10(positive) - _LOWEST) * BINS_PER_DECADE * _FINE).astype(np.int64).clip(0, _BINS - 1)
        names, code = np.unique(fine, return_inverse=True)
        sums = exact_group_sums(positive[None, :], code.astype(np.int64), len(names))[0]
        sizes = np.bincount(code, minlength=len(names))
        unsupported: Exact = ()
        if rows.logging is not None:
            unsupported = exact_sum(rows.target[rows.logging <= 0])
        return Tally(
            len(rows),
            len(rows) - len(positive),
            int(rows.offsets[-1]),
            float(rows.propensity.min(initial=np.inf)),
            exact_sum(1.0 / rows.propensity),
            unsupported,
            {int(name): int(size) for name, size in zip(names, sizes, strict=True)},
            {int(name): expansion(total) for name, total in zip(names, sums, strict=True)},
        )

    def __add__(self, other: Tally) -> Tally:
        keys = sorted({*self.counts, *other.counts})
        return Tally(
            self.rows + other.rows,
            self.unused + other.unused,
            self.actions + other.actions,
            min(self.smallest_propensity, other.smallest_propensity),
            added(self.inverse, other.inverse),
            added(self.unsupported, other.unsupported),
            {key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in keys},
            {key: added(self.sums.get(key, ()), other.sums.get(key, ())) for key in keys},
        )

    @property
    def unsupported_share(self) -> float:
        """Mean probability with which the policy would do what the log never does."""
        return rounded(self.unsupported) / max(self.rows, 1)

    def diagnostics(self, support: Support) -> Diagnostics:
        """Return what the weights say; the share of the heaviest 1% is interpolated within a bin of 4% width."""
        n = max(self.rows, 1)
        return Diagnostics(
            rows=self.rows,
            mean_weight=support.mean,
            mean_weight_error=support.mean_error,
            ess=support.ess,
            ess_share=support.ess / n,
            largest_weight=support.largest,
            top_share=self._top_share(max(1, self.rows // 100)),
            unused=self.unused / n,
            smallest_propensity=self.smallest_propensity,
            mean_inverse=rounded(self.inverse) / n,
            mean_actions=self.actions / n,
            histogram=self._histogram(),
        )

    def _top_share(self, rows: int) -> float:
        total = sum(rounded(part) for part in self.sums.values())
        left, carried = rows, 0.0
        for key in sorted(self.counts, reverse=True):
            taken = min(left, self.counts[key])
            carried += rounded(self.sums[key]) * taken / self.counts[key]
            left -= taken
            if not left:
                break
        return carried / total if total > 0 else 0.0

    def _histogram(self) -> list[tuple[float, float, int]]:
        if not self.counts:
            return []
        coarse: dict[int, int] = {}
        for key, count in self.counts.items():
            coarse[key // _FINE] = coarse.get(key // _FINE, 0) + count
        first, last = min(coarse), max(coarse)
        edges: Floats = 10.0 ** (_LOWEST + np.arange(first, last + 2) / BINS_PER_DECADE)
        return [(float(edges[i]), float(edges[i + 1]), coarse.get(first + i, 0)) for i in range(last - first + 1)]
