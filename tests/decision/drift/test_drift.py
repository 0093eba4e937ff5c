"""A drift is found and named, whatever policy draws; where there is none, alarms keep their error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.columns import Texts
from decision.drift.compare import drift, stability
from decision.drift.layout import FEW_SUBJECTS
from decision.drift.observed import Observed, blocks_of
from decision.drift.profile import MAX_BYTES, decoded, encoded, profile_of
from decision.errors import FieldError
from tests.soak.drift import false_alarms
from tests.worlds.drifting import night, with_actions

ERROR = 0.001


def alarmed(before: Observed, late: Observed) -> tuple[set[str], set[str], list[tuple[str, str]]]:
    """Return what moved, whose rewards changed, and where that comes from."""
    found = drift(decoded(encoded(profile_of(before))), late, error=ERROR)
    assert found.offers is not None
    moved = {entry.name for entry in [*found.features, found.offers] if entry.alarmed}
    changed = {entry.of for entry in found.rewards if entry.alarmed}
    return moved, changed, [(source.how, source.of) for source in found.sources]


@pytest.mark.parametrize(
    ("late", "moved", "changed", "source"),
    [
        ({"favourite": 2, "floor": 0.1}, set[str](), set[str](), None),
        ({"on_mobile": 0.2}, set[str](), {"", "device=mobile"}, ("rate", "device=mobile")),
        ({"rates": (0.05, 0.25, 0.2)}, set[str](), {"", "action a"}, ("rate", "action a")),
        ({"rates": (0.15, 0.125, 0.1)}, set[str](), {""}, None),
        ({"mobile": 0.7}, {"device"}, set[str](), None),
        ({"untiered": 0.2}, {"tier"}, set[str](), None),
        ({"tablet": 0.06}, {"device"}, set[str](), None),
        ({"price": 0.5}, {"price"}, set[str](), None),
    ],
)
def test_what_drifted_is_named_and_nothing_else(
    late: dict[str, Any], moved: set[str], changed: set[str], source: tuple[str, str] | None
) -> None:
    rng = np.random.default_rng(3)
    found = alarmed(night(rng, 12_000), night(rng, 4_000, **late))
    assert found[0] == moved
    assert found[1] >= changed
    assert bool(found[1]) == bool(changed)
    assert (found[2][:1] == [source]) if source else not (changed and found[2])


def test_a_change_that_is_one_of_the_mix_is_called_so() -> None:
    rng = np.random.default_rng(4)
    worse: dict[str, Any] = {"on_mobile": 0.2, "floor": 1.0}
    moved, changed, (source, *_) = alarmed(
        night(rng, 12_000, mobile=0.1, **worse), night(rng, 4_000, mobile=0.8, **worse)
    )
    assert "device" in moved
    assert "" in changed
    assert source == ("mix", "device")


def test_the_days_of_a_week_are_no_drift() -> None:
    rng = np.random.default_rng(5)
    days = [night(rng, 1_500, mobile=mobile, on_mobile=lift) for mobile, lift in ((0.2, 1.0), (0.7, 0.6), (0.4, 0.8))]
    parts = [replace(day, block=np.full(len(day), i)) for i, day in enumerate(days)]
    week = joined(parts)
    assert alarmed(week, night(rng, 1_500, mobile=0.65, on_mobile=0.65))[:2] == (set(), set())
    assert alarmed(replace(week, block=week.block * 0), night(rng, 1_500, mobile=0.65, on_mobile=0.65))[0] == {"device"}


def joined(parts: list[Observed]) -> Observed:
    """Return nights one after the other."""
    starts = np.cumsum([0, *map(len, parts)])

    def texts(which: str) -> Any:
        return Texts.of([text for part in parts for text in getattr(part, which)])

    def numbers(which: str, *, rows: bool = False) -> Any:
        return np.concatenate(
            [getattr(part, which) + (start if rows else 0) for part, start in zip(parts, starts, strict=False)]
        )

    fields: dict[str, Any] = {
        name: numbers(name) for name in ("value", "pmf", "propensity", "reward", "weight", "block")
    }
    fields |= {name: numbers(name, rows=True) for name in ("row", "offer_row", "subject")}
    return Observed(**fields, **{name: texts(name) for name in ("name", "offered", "drawn")})


@pytest.mark.statistical
@pytest.mark.parametrize("world", ["clicks", "revenue"])
def test_quiet_nights_keep_the_error_under_another_policy(world: str) -> None:
    """At an error of .05 for features and for rewards, more than 9 of 40 nights in either has a probability of 3e-5."""
    found = false_alarms(world, nights=40, error=0.05, size=0.3, thresholds=False)
    assert max(found["features"], found["rewards"]) <= 9, found


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_a_policy_without_exploration_is_no_drift(floor: float) -> None:
    rng = np.random.default_rng(12)
    before, worst = night(rng, 6_000, floor=1.0, rates=(0.4, 0.2, 0.1)), (0.4, 0.2, 0.1)
    assert alarmed(before, night(rng, 4_000, rates=worst, favourite=2, floor=floor)) == (set(), set(), [])
    assert "" in alarmed(before, night(rng, 4_000, rates=(0.2, 0.1, 0.05), favourite=2, floor=0.3))[1]


def test_new_and_vanished_values_are_named_with_their_shares() -> None:
    rng = np.random.default_rng(6)
    profile = profile_of(night(rng, 6_000, tablet=0.05))
    found = drift(profile, night(rng, 3_000), error=ERROR)
    (device,) = [entry for entry in found.features if entry.name == "device"]
    assert list(device.gone) == ["tablet"]
    found = drift(profile_of(night(rng, 6_000)), night(rng, 3_000, tablet=0.1), error=ERROR)
    (device,) = [entry for entry in found.features if entry.name == "device"]
    assert device.new == {"tablet": pytest.approx(0.1, abs=0.02)}
    assert (device.missing, device.missing_before) == (0.0, 0.0)


def test_the_stability_index_is_its_closed_form() -> None:
    assert stability([0.5, 0.5], [0.5, 0.5], 1e-4) == 0.0
    assert stability([0.2, 0.8], [0.4, 0.6], 1e-4) == pytest.approx(0.2 * np.log(2) - 0.2 * np.log(0.75))


def test_a_value_of_a_few_people_is_not_kept() -> None:
    rng = np.random.default_rng(7)
    observed = night(rng, 2_000, tablet=0.1)
    whose = observed.row[np.array([name == "device=tablet" for name in observed.name])]
    subject = observed.subject.copy()
    subject[whose] = -1 - np.arange(whose.size) % (FEW_SUBJECTS - 1)
    assert b"tablet" in encoded(profile_of(observed))
    assert b"tablet" not in encoded(profile_of(replace(observed, subject=subject)))


def test_actions_that_come_and_go_all_the_time_are_no_alarm() -> None:
    rng = np.random.default_rng(8)
    before, late = night(rng, 6_000), night(rng, 2_000)
    news = replace(late, offered=Texts(["a", "b", "z"], late.offered.code))
    assert "offers" in alarmed(before, news)[0]
    half = np.where(before.offer_row * 2 < len(before), before.offered.code, before.offered.code + 3)
    churning = replace(before, offered=Texts([*"abc", *"def"], half))
    assert "offers" not in alarmed(churning, news)[0]


def moved_actions(before: Observed, late: Observed, *, error: float = ERROR) -> set[str]:
    return {
        entry.name for entry in drift(decoded(encoded(profile_of(before))), late, error=error).actions if entry.alarmed
    }


@pytest.mark.parametrize(
    ("late", "moved"), [({}, set[str]()), ({"price": 15.0}, {"price"}), ({"unpriced": 0.2}, {"price"})]
)
def test_features_of_actions_are_held_against_training_too(late: dict[str, float], moved: set[str]) -> None:
    rng = np.random.default_rng(13)
    before, after = with_actions(rng, night(rng, 6_000)), with_actions(rng, night(rng, 2_000), **late)
    assert moved_actions(before, after) == moved
    shares = profile_of(before).actions
    assert shares is not None
    assert [sum(cell.share for cell in cells) for cells in shares.cells] == pytest.approx([1.0, 1.0])
    assert shares.effective == pytest.approx(6_000)
    assert drift(profile_of(before), replace(after, actions=None), error=ERROR).actions == []


def test_a_profile_of_an_earlier_release_knows_no_features_of_actions() -> None:
    rng = np.random.default_rng(14)
    kept = msgspec.json.decode(encoded(profile_of(night(rng, 2_000))))
    del kept["actions"]
    assert decoded(msgspec.json.encode(kept)).actions is None
    assert drift(decoded(msgspec.json.encode(kept)), with_actions(rng, night(rng, 500)), error=ERROR).actions == []


@pytest.mark.statistical
def test_another_catalogue_of_the_same_kind_is_no_drift_and_one_without_prices_is() -> None:
    """20 actions a day, never the same: at .05, more than 6 of 20 nights have a probability of 4e-5 at most."""
    rng, false = np.random.default_rng(15), 0
    for _ in range(20):
        week = with_actions(rng, night(rng, 1_400, blocks=7), days=7)
        false += bool(moved_actions(week, with_actions(rng, night(rng, 400, blocks=1), days=1), error=0.05))
    assert false <= 6, false
    assert moved_actions(week, with_actions(rng, night(rng, 600, blocks=1), days=1, unpriced=1.0)) == {"price"}


def test_a_unit_of_the_rewards_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    before, late = night(rng, 6_000), night(rng, 2_000, on_mobile=0.1)
    other = [replace(sample, reward=sample.reward * 1e-4 - 7.0) for sample in (before, late)]
    assert alarmed(before, late) == alarmed(other[0], other[1])


def test_rows_that_stand_for_several_count_for_as_many() -> None:
    rng = np.random.default_rng(10)
    whole = night(rng, 20_000)
    keep = np.where(whole.reward > 0, 1.0, 0.25)
    kept = np.flatnonzero(rng.random(20_000) < keep)
    place = np.full(20_000, -1)
    place[kept] = np.arange(kept.size)
    entries, offers = np.flatnonzero(place[whole.row] >= 0), np.flatnonzero(place[whole.offer_row] >= 0)
    thinned = Observed(
        row=place[whole.row[entries]],
        name=whole.name.take(entries),
        value=whole.value[entries],
        offer_row=place[whole.offer_row[offers]],
        offered=whole.offered.take(offers),
        pmf=whole.pmf[offers],
        drawn=whole.drawn.take(kept),
        propensity=whole.propensity[kept],
        reward=whole.reward[kept],
        weight=1.0 / keep[kept],
        block=whole.block[kept],
        subject=whole.subject[kept],
    )
    one, other = profile_of(whole), profile_of(thinned)
    assert one.rewards is not None
    assert other.rewards is not None
    assert other.rewards.mean == pytest.approx(one.rewards.mean, rel=0.03)
    assert alarmed(thinned, night(rng, 3_000)) == (set(), set(), [])


def test_a_profile_is_small_however_many_names_there_are() -> None:
    rng = np.random.default_rng(11)
    n = 4_000
    name = Texts([f"f{i}=v{i % 7}" for i in range(5_000)], rng.integers(0, 5_000, 50 * n))
    wide = replace(night(rng, n), row=np.repeat(np.arange(n), 50), name=name, value=np.ones(50 * n))
    assert len(encoded(profile_of(wide))) < 300_000


@pytest.mark.parametrize("data", [b"", b"[]", b'{"rows": 1}', b"x" * (MAX_BYTES + 1)])
def test_a_damaged_profile_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(FieldError, match=r"profile\.json"):
        decoded(data)


def test_a_profile_whose_cells_do_not_fit_is_refused() -> None:
    profile = profile_of(night(np.random.default_rng(1), 500))
    profile.cells[0].pop()
    with pytest.raises(FieldError, match="cells"):
        decoded(encoded(profile))


def test_stretches_of_time_are_days_where_there_are_some() -> None:
    hours = np.arange(24 * 6)
    assert blocks_of(hours, 20, 24).tolist() == (hours // 24).tolist()
    assert sorted(np.bincount(blocks_of(hours, 20, 24 * 6)).tolist()) == [20, 20, 20, 21, 21, 21, 21]
    assert blocks_of(np.zeros(0, np.int64), 20, 24).size == 0
