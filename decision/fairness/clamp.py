"""A policy that keeps upheld pairs alike at decision time: probabilities clamped around their common middle.

For whoever looks like a member of an upheld pair (x, y) on action a, with m the mean of the pair's two unclamped
probabilities and b what the panel accepts, the probability of a is clamped into ``[m - b/2, m + b/2]``. So both
members, and all who look like them, come to within b of each other, each from its own request alone, and the two never
change places. Several pairs intersect their intervals; where nothing is left, the middle of what lies between them is
taken. The other actions keep their proportions. The clamped distribution is the policy's: it is drawn from and logged,
so propensities are exact.

What a policy with a cap (`decision.exploration.cap`) says is clamped after the cap: whoever looks like a member of a
pair may then have more of the compared action than his own cap allows, up to what its members' caps and the panel do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from decision.batch import Batch, Features, Floats, one
from decision.exploration.mix import check_pmf
from decision.fairness.blinding import is_hidden
from decision.policy import OraclePolicy

Seen = frozenset[tuple[str, float]]


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """One upheld pair.

    Attributes:
        favoured: features of the one.
        disfavoured: of the other.
        action_id: the compared action.
        limit: largest gap the panel accepts.
    """

    favoured: Features
    disfavoured: Features
    action_id: str
    limit: float


def seen_of(features: Features, protected: frozenset[str]) -> Seen:
    """Return what similarity may look at of flattened features: no hidden name, values rounded to 9 digits."""
    return frozenset(
        (name, round(value, 9))
        for name, value in features.items()
        if not is_hidden(name.partition("=")[0].split("."), protected)
    )


class ClampedPolicy(OraclePolicy):
    """An oracle policy with anchors.

    Args:
        policy: the policy.
        anchors: the upheld pairs.
        protected: names that similarity does not look at, in lower case.

    Attributes:
        unclamped: the policy.
    """

    def __init__(self, policy: OraclePolicy, anchors: Iterable[Anchor], protected: Iterable[str]) -> None:
        super().__init__(
            policy.oracle,
            policy.exploration,
            features_version=policy.features_version,
            action_ids=policy.action_ids,
        )
        self.unclamped = policy
        self._protected = frozenset(name.casefold() for name in protected)
        self._anchors: dict[Seen, list[Anchor]] = {}
        for anchor in anchors:
            for seen in {seen_of(anchor.favoured, self._protected), seen_of(anchor.disfavoured, self._protected)}:
                self._anchors.setdefault(seen, []).append(anchor)

    def pmf_of(self, scores: Floats, batch: Batch) -> Floats:
        """Return [m] probabilities of `scores` ([m]), clamped for the people of upheld pairs."""
        pmf = self.unclamped.pmf_of(scores, batch)
        for row, context in enumerate(batch.contexts):
            anchors = self._anchors.get(seen_of(context, self._protected))
            if anchors is not None:
                start, stop = int(batch.offsets[row]), int(batch.offsets[row + 1])
                own = pmf[start:stop].copy()
                pmf[start:stop] = self._clamped(own, anchors, batch, start, stop)
        check_pmf(pmf, batch.offsets)
        return pmf

    def _clamped(self, own: Floats, anchors: Sequence[Anchor], batch: Batch, start: int, stop: int) -> Floats:
        ids = list(batch.action_ids[start:stop])
        bounds: dict[int, list[tuple[float, float]]] = {}
        for anchor in anchors:
            if anchor.action_id in ids:
                index = ids.index(anchor.action_id)
                pair = (anchor.favoured, anchor.disfavoured)
                middle = sum(float(self._plain(person, batch, start, stop)[index]) for person in pair) / 2.0
                bounds.setdefault(index, []).append((middle - anchor.limit / 2.0, middle + anchor.limit / 2.0))
        for index, intervals in bounds.items():
            low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
            if low > high:
                low = high = (low + high) / 2.0
            before = float(own[index])
            after = min(max(before, low), high)
            if after != before and before < 1.0:
                own = own * ((1.0 - after) / (1.0 - before))
                own[index] = after
        return own

    def _plain(self, person: Features, batch: Batch, start: int, stop: int) -> Floats:
        """Return what `person` would get of these actions without a clamp."""
        asked = one(person, batch.actions[start:stop], batch.action_ids[start:stop])
        return self.unclamped.pmf_of(self.scores(asked), asked)
