"""A night's decisions beside the profile of those that a version was trained on: what moved, and how sure that is.

Every cell of every feature is tested by itself: its number of decisions is hypergeometric where nothing changed (Fisher
1935), so each p-value is exact for any frequency. Together they keep one error: a cell counts where its p-value is
below the error's share of all cells (Bonferroni 1936), however many there are and however they hang together. With
many decisions nothing is too small to be sure of, so a change must also be large: by the population stability index,
sum (b - a) ln(b / a) over shares a before and b now (Lewis 1994), or as a share of the decisions. And it must lie
outside what single stretches of the training data had, so that no season is an alarm.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from decision.drift.layout import FEW, Feature
from decision.drift.observed import Described, Observed
from decision.drift.profile import Cell, Counted, Profile, count, counted_actions, layout_of
from decision.drift.rewards import LEAST_BEFORE, LEAST_NOW, Rewards, compared
from decision.drift.sources import Source, sources

MOVED = 0.1
"""Population stability index from which on a feature has moved; below it the practice of scoring calls it stable."""
SHARE = 0.01
"""Share of decisions by which absence, an unknown value or a value that is gone must have moved."""
CHANGE = 0.2
"""Share of the mean distance from the most common reward by which rewards must have changed."""
CHURN = 0.05
"""Share of offers of actions known to one half of the training data only, from which on new actions are no news."""
_SHOWN = 50


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How the decisions are spread over a feature's cells.

    Attributes:
        name: of the feature; ``offers`` for the actions that were offered.
        psi: population stability index.
        missing: share of decisions without it.
        missing_before: the same in the training data.
        cell: what those decisions have in common whose share changed the most beyond chance.
        share: theirs.
        share_before: theirs in the training data.
        p: the smallest p-value of a cell, times the number of cells of all features; at most 1.
        new: values that the training data do not have, with their shares, most frequent first.
        gone: values that no decision has any more, with their shares in the training data.
        alarmed: it moved more than chance and seasons allow.
    """

    name: str
    psi: float
    missing: float
    missing_before: float
    cell: str
    share: float
    share_before: float
    p: float
    new: dict[str, float] = {}
    gone: dict[str, float] = {}
    alarmed: bool = False


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """How the rewards of some decisions changed; means do not depend on the policies that drew the actions.

    Attributes:
        of: ``""`` for all decisions, ``action ID``, or ``FEATURE=VALUE`` and the like.
        mean: of the rewards.
        mean_before: in the training data.
        share: of the decisions.
        effective: equally weighted decisions that would tell as much.
        p: p-value, times the number of those that share its error; at most 1.
        alarmed: it changed more than chance and seasons allow.
    """

    of: str
    mean: float
    mean_before: float
    share: float
    effective: float
    p: float
    alarmed: bool = False


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of decisions beside a profile.

    Attributes:
        rows: decisions.
        before: those of the profile.
        features: of the contexts, those that moved first, then by index; at most 50.
        offers: of actions.
        actions: features of the offered actions, likewise; [] where one side does not know them.
        rewards: those that changed first, then by p-value; at most 50. None is there without enough decisions.
        sources: where a change of the rewards of all decisions comes from, the most telling first.
        tested: cells of features, and of rewards, that were looked at.
    """

    rows: int
    before: int
    features: list[Moved] = []
    offers: Moved | None = None
    actions: list[Moved] = []
    rewards: list[Changed] = []
    sources: list[Source] = []
    tested: tuple[int, int] = (0, 0)


def drift(profile: Profile, observed: Observed, *, error: float) -> Drift:
    """Return how `observed` differs from `profile`.

    Args:
        profile: of the training data.
        observed: one decision or more.
        error: chance that a feature, or that a reward, is called moved where nothing changed; each.
    """
    counted = count(observed, layout_of(profile))
    own = profile.actions if observed.actions else None
    of_actions = [] if own is None else own.features
    cells = sum(feature.cells for feature in (*profile.features, *of_actions)) + profile.offers.cells
    n, m = observed.effective, profile.effective
    moved = [
        _moved(feature, before, now, n, m, cells, error)
        for feature, before, now in zip(profile.features, profile.cells, counted.cells, strict=True)
    ]
    moved = _with_new(moved, profile.features, observed)
    offers = _moved(profile.offers, profile.offer_cells, counted.offer_cells, n, m, cells, error)
    if profile.churn >= CHURN:
        offers = msgspec.structs.replace(offers, alarmed=False)
    rewards, tested = _rewards(profile, counted, error)
    return Drift(
        rows=len(observed),
        before=profile.rows,
        features=_worst_first(moved),
        offers=offers,
        actions=_worst_first(_moved_actions(profile, observed, cells, error)),
        rewards=sorted(rewards, key=lambda entry: (not entry.alarmed, entry.p, -entry.share))[:_SHOWN],
        sources=sources(profile, counted),
        tested=(cells, tested),
    )


def _worst_first(moved: list[Moved]) -> list[Moved]:
    return sorted(moved, key=lambda entry: (not entry.alarmed, -entry.psi))[:_SHOWN]


def _moved_actions(profile: Profile, observed: Observed, cells: int, error: float) -> list[Moved]:
    if profile.actions is None or not observed.actions:
        return []
    before, now = profile.actions, counted_actions(observed.actions, profile.actions.features)
    n, m = now.effective, before.effective
    if profile.churn >= CHURN:
        # Decisions of one day share its actions. Where these come and go, an action is one observation, however often
        # it was offered.
        n, m = min(n, now.distinct), min(m, before.distinct)
    moved = [
        _moved(feature, former, late, n, m, cells, error)
        for feature, former, late in zip(before.features, before.cells, now.cells, strict=True)
    ]
    return _with_new(moved, before.features, observed.actions)


def stability(before: Sequence[float], now: Sequence[float], floor: float) -> float:
    """Return the population stability index of two lists of shares; no share counts as smaller than `floor`."""
    a, b = np.maximum(before, floor), np.maximum(now, floor)
    a, b = a / a.sum(), b / b.sum()
    return float(((b - a) * np.log(b / a)).sum())


def _moved(
    feature: Feature, before: Sequence[Cell], now: Sequence[Cell], n: float, m: float, tested: int, error: float
) -> Moved:
    shares, former = [cell.share for cell in now], [cell.share for cell in before]
    p = _chances(shares, former, n, m)
    outside = [not b.low <= a <= b.high for a, b in zip(shares, before, strict=True)]
    sure = [chance * tested <= error and out for chance, out in zip(p, outside, strict=True)]
    psi = stability(former, shares, 0.5 / max(min(n, m), 1.0))
    # Absence, other values, and values of which one side has none are worth a word before the index says so.
    kept = [at < 2 or (at < 2 + len(feature.values) and shares[at] == 0.0) for at in range(len(shares))]
    alarmed = any(
        s and (psi >= MOVED or (k and abs(a - b) >= SHARE))
        for s, k, a, b in zip(sure, kept, shares, former, strict=True)
    )
    at = min(range(len(p)), key=lambda i: (not sure[i], p[i], -abs(shares[i] - former[i])))
    gone = {
        value: former[2 + i]
        for i, value in enumerate(feature.values)
        if shares[2 + i] == 0.0 and p[2 + i] * tested <= error
    }
    return Moved(
        name=feature.name,
        psi=psi,
        missing=shares[0],
        missing_before=former[0],
        cell=feature.label(at),
        share=shares[at],
        share_before=former[at],
        p=min(1.0, p[at] * tested),
        gone=gone,
        alarmed=alarmed,
    )


def _chances(now: Sequence[float], before: Sequence[float], n: float, m: float) -> list[float]:
    """Return the two-sided p-value of each cell: its decisions are hypergeometric, given both samples."""
    from scipy.stats import hypergeom  # half a second to import, and most comparisons come to nothing before

    size, other = round(n), round(m)
    seen, had = np.rint(np.array(now) * size), np.rint(np.array(before) * other)
    less = hypergeom.cdf(seen, size + other, seen + had, size)
    more = hypergeom.sf(seen - 1, size + other, seen + had, size)
    return np.minimum(1.0, 2.0 * np.minimum(less, more)).tolist()


def _with_new(moved: list[Moved], features: Sequence[Feature], observed: Described) -> list[Moved]:
    unknown = _unknown(features, observed)
    return [msgspec.structs.replace(entry, new=unknown.get(entry.name, {})) for entry in moved]


def _unknown(features: Sequence[Feature], observed: Described) -> dict[str, dict[str, float]]:
    """Return the values that features with all their values in `features` have now and did not have, with shares."""
    known = {feature.name: set(feature.values) for feature in features if feature.complete and feature.values}
    times = np.bincount(observed.name.code, minlength=len(observed.name.names))
    found: dict[str, dict[str, float]] = {}
    for code in np.argsort(-times, kind="stable").tolist():
        name, is_value, value = observed.name.names[code].partition("=")
        share = float(times[code]) / len(observed)
        if is_value and name in known and value not in known[name] and share >= SHARE and times[code] >= FEW:
            new = found.setdefault(name, {})
            if len(new) < 3:
                new[value[:80]] = share
    return found


def _rewards(profile: Profile, counted: Counted, error: float) -> tuple[list[Changed], int]:
    """Return how rewards changed: of all decisions, of actions, of segments; each has its part of the error."""
    if profile.rewards is None or counted.rewards is None or not profile.scale:
        return [], 0
    whole = [("", 1.0, counted.rewards, profile.rewards)]
    actions = [
        (f"action {value}", now.share, now.rewards, before.rewards)
        for value, now, before in zip(
            profile.drawn.values, counted.drawn_cells[2:], profile.drawn_cells[2:], strict=True
        )
    ]
    segments = [
        (feature.segment(at), cell.share, cell.rewards, former.rewards)
        for feature, before, now in zip(profile.features, profile.cells, counted.cells, strict=True)
        for at, (cell, former) in enumerate(zip(now, before, strict=True))
        if cell.share < 1.0 or former.share < 1.0
    ]
    found: list[Changed] = []
    tested = 0
    for family, part in ((whole, 0.5), (actions, 0.25), (segments, 0.25)):
        pairs = [(of, share, a, b) for of, share, a, b in family if a is not None and b is not None and _enough(a, b)]
        tested += len(pairs)
        found += [_changed(*pair, len(pairs), part * error, profile.scale) for pair in pairs]
    return found, tested


def _enough(now: Rewards, before: Rewards) -> bool:
    return now.effective >= LEAST_NOW and before.effective >= LEAST_BEFORE


def _changed(of: str, share: float, now: Rewards, before: Rewards, family: int, error: float, scale: float) -> Changed:
    change, _, p = compared(now, before)
    large = abs(change) >= CHANGE * scale
    return Changed(
        of=of,
        mean=now.mean,
        mean_before=before.mean,
        share=share,
        effective=now.effective,
        p=min(1.0, p * family),
        alarmed=p * family <= error and large and not before.low <= now.mean <= before.high,
    )
