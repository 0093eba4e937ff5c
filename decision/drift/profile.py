"""What the decisions that a version was trained on look like: small, bounded, and kept with the version.

Shares of the cells of a layout and their rewards, with the smallest and largest of the stretches of time that the
sample covers. So a night is held against a version's training data without reading them again, and the Monday of a
week is no drift from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from decision.drift import PROFILE_FILE
from decision.drift.layout import Feature, Members, cells_of, laid_out, laid_out_actions, members, members_of
from decision.drift.observed import Described, Observed, Offered, effective_of
from decision.drift.rewards import LEAST_NOW, Rewards, rewards_of
from decision.errors import FieldError
from decision.ragged import Floats, Ints
from decision.validation import prepared

MAX_BYTES = 16 << 20
MOST_UNSEEN = 0.05
"""Share of blind draws that the policy as good as never makes, beyond which nothing is said of a cell's rewards."""
LEAST_SHARED = 100
"""Decisions of a stretch of time without which its shares are not kept."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A cell of a sample.

    Attributes:
        share: of its decisions, 0 to 1.
        low: smallest share in a stretch of time.
        high: largest.
        rewards: of those of its decisions that have one; None where there is none.
    """

    share: float
    low: float
    high: float
    rewards: Rewards | None = None


class Actions(msgspec.Struct, frozen=True, kw_only=True):
    """What the features of offered actions look like: shares are means over decisions of shares of their offers.

    Attributes:
        effective: equally weighted decisions that would tell as much.
        distinct: actions with different ids among them.
        features: of the actions.
        cells: of each feature; without rewards.
    """

    effective: float
    distinct: int
    features: list[Feature]
    cells: list[list[Cell]]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a sample of decisions looks like.

    Attributes:
        schema_version: of this record.
        rows: decisions of the sample.
        effective: equally weighted decisions that would tell as much.
        features: of the contexts.
        cells: of each feature.
        offers: the offered actions.
        offer_cells: shares of the decisions that offered each.
        drawn: the drawn actions.
        drawn_cells: shares of the decisions that drew each.
        rewards: of all decisions.
        scale: mean distance of the rewards from the most common one; 0 where all are the same.
        cut: smallest and largest reward that is told apart, see `within`.
        churn: share of offers of actions that the sample's first or second half does not know.
        blind: mean rewards are those of actions that are drawn blindly, see `decision.drift.rewards`.
        actions: features of the offered actions; None where they are not known, as in profiles of earlier releases.
    """

    schema_version: int = 1
    rows: int
    effective: float
    features: list[Feature]
    cells: list[list[Cell]]
    offers: Feature
    offer_cells: list[Cell]
    drawn: Feature
    drawn_cells: list[Cell]
    rewards: Rewards | None
    scale: float
    cut: tuple[float, float]
    churn: float
    blind: bool = True
    actions: Actions | None = None


class Layout(NamedTuple):
    """What is counted; how often the training log drew each action, [d] cells of `drawn`; where rewards are cut."""

    features: list[Feature]
    offers: Feature
    drawn: Feature
    rates: Floats
    cut: tuple[float, float]


class Counted(NamedTuple):
    """A sample in the cells of a layout."""

    cells: list[list[Cell]]
    offer_cells: list[Cell]
    drawn_cells: list[Cell]
    rewards: Rewards | None


def profile_of(observed: Observed, *, blind: bool = True) -> Profile:
    """Return what a sample looks like.

    Args:
        observed: at least one decision.
        blind: mean rewards are those of actions that are drawn blindly, whatever policy drew them; False for those of
            the decisions as they are.
    """
    offers = laid_out_actions("offers", observed.offered, observed.subject[observed.offer_row])
    drawn = laid_out_actions("drawn", observed.drawn, observed.subject)
    draws = members_of(drawn, np.arange(len(observed), dtype=np.int64), observed.drawn, len(observed))
    rates = np.bincount(draws.cell, observed.weight[draws.row], drawn.cells) / observed.weight.sum()
    if not blind:
        rates = np.ones(drawn.cells)
    common, cut = within(observed)
    layout = Layout(laid_out(observed), offers, drawn, rates, cut)
    counted = count(observed if blind else as_drawn(observed), layout)
    return Profile(
        rows=len(observed),
        effective=observed.effective,
        features=layout.features,
        cells=counted.cells,
        offers=offers,
        offer_cells=counted.offer_cells,
        drawn=drawn,
        drawn_cells=counted.drawn_cells,
        rewards=counted.rewards,
        scale=_scale(observed, common, cut),
        cut=cut,
        churn=_churn(observed),
        blind=blind,
        actions=None if not observed.actions else counted_actions(observed.actions, laid_out(observed.actions)),
    )


def layout_of(profile: Profile) -> Layout:
    """Return the layout that a profile was counted in."""
    rates = np.array([cell.share if profile.blind else 1.0 for cell in profile.drawn_cells])
    return Layout(profile.features, profile.offers, profile.drawn, rates, profile.cut)


def as_drawn(observed: Observed) -> Observed:
    """Return decisions that count as they are, whatever the probabilities of their draws."""
    return replace(observed, propensity=np.ones(len(observed)), pmf=np.ones(len(observed.offered)))


def count(observed: Observed, layout: Layout) -> Counted:
    """Return the shares and rewards of a sample in the cells of `layout`."""
    n = len(observed)
    every = np.arange(n, dtype=np.int64)
    draws = members_of(layout.drawn, every, observed.drawn, n)
    rate = np.zeros(n)
    rate[draws.row] = layout.rates[draws.cell]
    known = np.isfinite(observed.reward)
    reward = np.clip(observed.reward, *layout.cut)
    plain = np.where(known, observed.weight / observed.propensity, 0.0)
    weight = rate * plain
    block = _blocks(observed)
    offered = members_of(layout.offers, observed.offer_row, observed.offered, n)
    unseen, unseen_cells = _unseen(observed, layout)
    (whole,) = rewards_of(every, np.zeros(n, np.int64), 1, weight, reward, block)
    return Counted(
        [
            _cells(found, feature.cells, observed, weight, reward, block, _mean(unseen, observed, found, feature.cells))
            for feature, found in zip(layout.features, members(layout.features, observed), strict=True)
        ],
        _cells(offered, layout.offers.cells, observed, None, reward, block),
        _cells(draws, layout.drawn.cells, observed, plain, reward, block, unseen_cells),
        whole if n and observed.weight @ unseen <= MOST_UNSEEN * observed.weight.sum() else None,
    )


def counted_actions(offered: Offered, features: list[Feature]) -> Actions:
    """Return the features of at least one offered action in the cells of `features`."""
    decisions = np.unique(offered.decision, return_inverse=True)[1]
    nothing = np.zeros(0)
    return Actions(
        effective=effective_of(np.bincount(decisions, offered.weight).astype(np.float64)),
        distinct=int(np.unique(offered.action.code).size),
        features=features,
        cells=[
            _cells(found, feature.cells, offered, None, nothing, _blocks(offered))
            for feature, found in zip(features, members(features, offered), strict=True)
        ],
    )


def _blocks(observed: Described) -> Ints:
    return np.unique(observed.block, return_inverse=True)[1].astype(np.int64)


def _unseen(observed: Observed, layout: Layout) -> tuple[Floats, Floats]:
    """Return [n] the share of blind draws that are as good as never made, and [cells] that of each drawn action.

    Weights correct for a policy that draws an action rarely. One that never does tells nothing of it, and what is left
    is the mean of other actions: a night of a policy without exploration is no drift. An action is never drawn where
    it would not come up `LEAST_NOW` times if all of the sample's decisions were like that one.
    """
    row, cell = observed.offer_row, cells_of(layout.drawn, observed.offered)
    never = observed.pmf * observed.effective < LEAST_NOW
    rate, own = layout.rates[cell], observed.weight[row]
    blind = np.bincount(row, rate, len(observed))
    unseen = np.bincount(row, rate * never, len(observed)) / np.where(blind > 0, blind, 1.0)
    offers = np.bincount(cell, own, layout.drawn.cells)
    return unseen, np.bincount(cell, own * never, layout.drawn.cells) / np.where(offers > 0, offers, 1.0)


def _mean(value: Floats, observed: Observed, found: Members, cells: int) -> Floats:
    own = observed.weight[found.row]
    size = np.bincount(found.cell, own, cells)
    return np.bincount(found.cell, own * value[found.row], cells) / np.where(size > 0, size, 1.0)


def encoded(profile: Profile) -> bytes:
    """Return a profile as it is kept."""
    return msgspec.json.encode(profile)


def decoded(data: bytes) -> Profile:
    """Return the profile in `data`.

    Raises:
        FieldError: it cannot be read, or its parts do not fit together.
    """
    if len(data) > MAX_BYTES:
        raise FieldError(PROFILE_FILE, wanted=f"at most {MAX_BYTES} bytes", got=len(data))
    try:
        profile = msgspec.json.decode(data, type=prepared(Profile))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FieldError(PROFILE_FILE, wanted="a profile of training data", got=error) from error
    layouts = [*profile.features, profile.offers, profile.drawn]
    counts = [*map(len, profile.cells), len(profile.offer_cells), len(profile.drawn_cells)]
    if profile.actions is not None:
        layouts, counts = [*layouts, *profile.actions.features], [*counts, *map(len, profile.actions.cells)]
    if profile.schema_version != 1 or [feature.cells for feature in layouts] != counts:
        raise FieldError(PROFILE_FILE, wanted="a profile whose cells fit its features", got=counts[:5])
    return profile


def _cells(
    found: Members,
    cells: int,
    observed: Described,
    weight: Floats | None,
    reward: Floats,
    block: Ints,
    unseen: Floats | None = None,
) -> list[Cell]:
    own = observed.weight
    total = float(own.sum())
    share = np.bincount(found.cell, own[found.row], cells) / total if total else np.zeros(cells)
    blocks = int(block.max(initial=0)) + 1
    size = np.bincount(block, minlength=blocks)
    by = np.bincount(block[found.row] * cells + found.cell, own[found.row], blocks * cells).reshape(blocks, cells)
    by = by[size >= LEAST_SHARED] / np.bincount(block, own, blocks)[size >= LEAST_SHARED, None]
    low, high = by.min(axis=0, initial=np.inf), by.max(axis=0, initial=-np.inf)
    none: list[Rewards | None] = [None] * cells
    rewards = none if weight is None else rewards_of(found.row, found.cell, cells, weight, reward, block)
    if unseen is not None:
        rewards = [told if share <= MOST_UNSEEN else None for told, share in zip(rewards, unseen.tolist(), strict=True)]
    return [
        Cell(share=s, low=min(a, s), high=max(b, s), rewards=r)
        for s, a, b, r in zip(share.tolist(), low.tolist(), high.tolist(), rewards, strict=True)
    ]


def within(observed: Observed) -> tuple[float, tuple[float, float]]:
    """Return the most common reward, and the smallest and largest one that are told apart.

    They are no farther from it than the nearest three quarters of the others: a few purchases carry most of a skewed
    revenue's mean and of its noise, and no test of a mean keeps its error beside them.
    """
    known = np.isfinite(observed.reward)
    if not known.any():
        return 0.0, (0.0, 0.0)
    reward = observed.reward[known]
    value, code = np.unique(reward, return_inverse=True)
    common = float(value[int(np.bincount(code, observed.weight[known]).argmax())])
    others = np.abs(reward - common)[reward != common]
    reach = float(np.quantile(others, 0.75)) if others.size else 0.0
    return common, (common - reach, common + reach)


def _scale(observed: Observed, common: float, cut: tuple[float, float]) -> float:
    known = np.isfinite(observed.reward)
    if not known.any():
        return 0.0
    distance, weight = np.abs(np.clip(observed.reward[known], *cut) - common), observed.weight[known]
    return float(distance @ weight / weight.sum())


def _churn(observed: Observed) -> float:
    """Return the share of offers whose action only one half of the sample knows."""
    if not len(observed.offered):
        return 0.0
    late = observed.offer_row * 2 >= len(observed)
    names = len(observed.offered.names)
    code = observed.offered.code
    first, second = np.bincount(code[~late], minlength=names), np.bincount(code[late], minlength=names)
    one_sided = (first == 0) | (second == 0)
    return float((first + second)[one_sided].sum() / code.size)
