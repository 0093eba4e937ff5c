"""What the guard rolls out at once: segments with ladders of their own, whole slates, whole episodes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.draw import draw, seed_of
from decision.errors import FieldError
from decision.guard.coin import candidate_has, trajectory_weights
from decision.guard.evidence import evidence_of
from decision.options import Range
from decision.records import Decision, Outcome
from pipelines.guard.replay import replay
from pipelines.guard.report import guard_table, report
from pipelines.guard.state import GuardState, evidence_in, evidence_of_part, rules_in, rules_of, terms_of
from pipelines.guard.store import GuardStore
from pipelines.settings import GuardSettings, LoopSettings, RewardSettings
from tests.worlds.lake import decision, outcome
from tests.worlds.rollout import BASELINE, CANDIDATE, TEXT, GuardedLoop, published

COUNTRIES = TEXT + 'segment = "country"\nsegments = ["de", "fr"]\n'
SLATES = TEXT + 'unit = "slate"\n'
EPISODES = TEXT + 'unit = "episode"\nepisode_s = 60\nepisode_maximum = 3\n'


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GuardedLoop]:
    made = GuardedLoop(tmp_path, request.param)
    made.point("candidate", "2")
    yield made
    made.close()


def serve(shop: GuardedLoop, state: GuardState, country: str, n: int, good: float, bad: float) -> None:
    """Serve n decisions of a country at its own weight."""
    weight = published(shop).weights.get(country, published(shop).weight)
    here = msgspec.structs.replace(state, weight=weight)
    shop.serve(here, n, good, bad, context=msgspec.Raw(msgspec.json.encode({"country": country})))


@pytest.mark.statistical
@pytest.mark.parametrize("shop", [COUNTRIES], indirect=True)
def test_each_segment_climbs_or_is_killed_by_its_own_evidence(shop: GuardedLoop) -> None:
    """Seeded. Per segment as in the guard's own tests, with three times the room that a third of the error needs."""
    state = shop.step()
    assert set(state.parts) == {"", "de", "fr"}
    for _ in range(12):
        serve(shop, state, "de", 1200, 0.6, 0.1)
        if not state.parts["fr"].killed:
            serve(shop, state, "fr", 2000, 0.05, 0.9)
        serve(shop, state, "it", 50, 0.3, 0.3)
        state = shop.step()
        if state.parts["fr"].killed and state.parts["de"].weight >= 0.95:
            break
    assert (state.parts["de"].weight, state.parts["fr"].weight) == (pytest.approx(0.95), 0.0)
    assert state.parts["fr"].killed
    assert state.parts[""].weight == 0.05, "others have seen too little"
    assert state.status == "climbing", "killed in one country it is champion in none"
    seen = published(shop)
    assert (seen.segment, seen.weights, seen.weight) == ("country", {"de": pytest.approx(0.95), "fr": 0.0}, 0.05)
    (told,) = [move for move in GuardStore(shop.settings, "shop").moves() if move.kind == "excluded"]
    assert "country is fr" in told.reason
    assert replay(shop.settings, shop.loop, shop.world.lake).same
    shown = report(state, GuardStore(shop.settings, "shop").moves())
    assert [(one.name, one.killed) for one in shown.segments] == [("others", False), ("de", False), ("fr", True)]
    assert guard_table(shown)


@pytest.mark.parametrize("shop", [COUNTRIES], indirect=True)
def test_segments_share_the_error_evenly_and_pool_for_promotion(shop: GuardedLoop) -> None:
    state = shop.step()
    serve(shop, state, "de", 100, 0.6, 0.1)
    serve(shop, state, "it", 60, 0.6, 0.1)
    state = shop.step()
    rules = rules_in(state)
    assert rules.delta == pytest.approx(rules.delta_promotion / 3)
    counted = {name: evidence_of_part(part, rules).decisions for name, part in state.parts.items()}
    assert counted == {"": 60, "de": 100, "fr": 0}
    assert evidence_in(state).decisions == 160


def units(
    shop: GuardedLoop, state: GuardState, count: int, steps: int, *, slates: bool, spoil: int = 0
) -> tuple[list[Decision], list[Outcome], list[tuple[float, float, float]]]:
    """Return `count` slates or episodes and the (reward, w_c, w_b) that they ought to give; `spoil` are made wrong."""
    rho, decisions, outcomes, wanted = state.weight, [], [], []
    for unit in range(count):
        name = f"u{shop.played + unit:05d}"
        side = candidate_has("shop", name, rho)
        pmf = CANDIDATE if side else BASELINE
        logs, earned = np.zeros(2), 0.0
        for step in range(steps):
            event_id, slot = (name, f"s{step}") if slates else (f"{name}.{step}", "")
            seed = seed_of("shop", event_id, slot)
            index = draw(pmf, seed)
            # Steps of one episode lie between those of others.
            ts = shop.now + timedelta(milliseconds=unit if slates else unit + 1000 * step)
            served = [0.5, 0.5] if unit < spoil and step == 0 and side else pmf
            decisions.append(
                decision(
                    event_id,
                    slot=slot,
                    episode_id=None if slates else name,
                    ts=ts,
                    pmf=served,
                    action_index=index,
                    propensity=served[index],
                    pmf_baseline=BASELINE,
                    pmf_candidate=CANDIDATE,
                    guard_weight=rho,
                    guard_version=state.guard_version,
                    policy_version=state.baseline_version,
                    seed=seed,
                )
            )
            logs += np.log([BASELINE[index], CANDIDATE[index]])
            if np.random.default_rng([unit, step, 7]).random() < (0.6 if index else 0.2):
                earned += 1.0
                outcomes.append(
                    msgspec.structs.replace(
                        outcome(event_id, slot=slot, idempotency_key=f"{event_id}{slot}"), ts=ts + timedelta(seconds=5)
                    )
                )
        w_c, w_b = trajectory_weights(logs[:1], logs[1:], np.array([rho]))
        wanted.append((earned / steps, float(w_c[0]), float(w_b[0])))
    shop.played += count
    return decisions, outcomes, wanted


@pytest.mark.parametrize("shop", [SLATES, EPISODES], indirect=True)
def test_a_unit_counts_once_with_its_trajectorys_weights(shop: GuardedLoop) -> None:
    state = shop.step()
    slates = shop.loop.guard.unit == "slate"
    decisions, outcomes, wanted = units(shop, state, 120, 3, slates=slates)
    rng = np.random.default_rng(0)
    shop.world.append(*outcomes)
    # A slate is written in one piece; steps of episodes come in any order, over all partitions.
    shuffled = decisions if slates else [decisions[i] for i in rng.permutation(len(decisions))]
    shop.world.append(*shuffled)
    shop.settle()
    assert evidence_in(shop.step()).decisions == (120 if slates else 0), (
        "episodes wait until later decisions are settled"
    )
    shop.now += timedelta(seconds=200)
    later, more, _ = units(shop, state, 1, 1, slates=slates)
    shop.world.append(*later, *more)
    shop.settle()
    state = shop.step()
    found = evidence_in(state)
    reward, w_c, w_b = np.array(wanted).T
    assert found.decisions == (121 if slates else 120)
    if not slates:
        direct = evidence_of(reward, w_c, w_b, np.full(120, 0.05), rules_in(state))
        for name in direct._fields:
            assert np.array_equal(getattr(found, name), getattr(direct, name)), name
    assert state.inexact == 0
    assert replay(shop.settings, shop.loop, shop.world.lake).same


@pytest.mark.parametrize("shop", [SLATES, EPISODES], indirect=True)
def test_a_draw_that_is_not_the_coins_freezes_the_rollout(shop: GuardedLoop) -> None:
    state = shop.step()
    decisions, outcomes, _ = units(shop, state, 150, 2, slates=shop.loop.guard.unit == "slate", spoil=150)
    shop.world.append(*decisions, *outcomes)
    shop.settle()
    shop.now += timedelta(seconds=200)
    shop.world.append(*units(shop, state, 1, 1, slates=False)[0])
    shop.settle()
    state = shop.step()
    assert state.status == "frozen"
    assert state.inexact > 0


@pytest.mark.parametrize("shop", [EPISODES], indirect=True)
def test_episodes_that_are_not_whole_are_left_out_and_counted(shop: GuardedLoop) -> None:
    state = shop.step()
    decisions, outcomes, _ = units(shop, state, 40, 3, slates=False)
    lost = {f"u{n:05d}.1" for n in range(4)}
    changed = [
        msgspec.structs.replace(d, guard_weight=0.0, pmf_candidate=None, pmf=BASELINE, propensity=BASELINE[0])
        if d.event_id in lost
        else d
        for d in decisions
    ]
    shop.world.append(*changed, *outcomes)
    shop.settle()
    shop.now += timedelta(seconds=200)
    shop.world.append(*units(shop, state, 1, 1, slates=False)[0])
    shop.settle()
    state = shop.step()
    assert evidence_in(state).decisions == 36
    assert state.skipped == {"not served": 4, "an episode or slate that is not whole": 8}
    assert replay(shop.settings, shop.loop, shop.world.lake).same


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: GuardSettings(segment="country"), "segments"),
        (lambda: GuardSettings(segments=["de"]), "segments"),
        (lambda: GuardSettings(segment="country", segments=["de", "de"]), "segments"),
        (
            lambda: LoopSettings(name="a", guard=GuardSettings(unit="episode"), reward=RewardSettings(minimum=-1.0)),
            "guard.unit",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(make: object, field: str) -> None:
    with pytest.raises(FieldError) as error:
        make()  # type: ignore[operator]
    assert error.value.field == field


def test_bounds_that_no_setting_gives_are_those_that_the_candidate_was_trained_on() -> None:
    learned, loop = Range(low=-3.0, high=40.0), LoopSettings(name="a")
    terms = terms_of(loop, learned)
    assert (terms.minimum, terms.maximum) == (-3.0, 40.0)
    half = terms_of(LoopSettings(name="a", reward=RewardSettings(maximum=50.0)), learned)
    assert (half.minimum, half.maximum) == (-3.0, 50.0)
    episodes = terms_of(LoopSettings(name="a", guard=GuardSettings(unit="episode")), learned)
    assert episodes.episode_maximum == 1.0
    assert terms_of(LoopSettings(name="a", guard=GuardSettings(unit="episode")), learned, 7.5).episode_maximum == 7.5
    assert episodes.minimum == 0.0


def test_evidence_counts_from_the_mean_that_the_candidate_was_trained_on_where_rewards_are_frequent() -> None:
    learned, loop = Range(low=-1.0, high=3.0), LoopSettings(name="a")
    assert terms_of(loop, learned, mean=1.0).center == rules_of(terms_of(loop, learned, mean=1.0), 1).center == 0.5
    for mean in (None, float("nan"), -2.0, -0.9):  # unknown, not a number, below the range, rare
        assert terms_of(loop, learned, mean=mean).center == 0.0
    assert terms_of(loop, learned, mean=5.0).center == 0.95
    episodes = LoopSettings(name="a", guard=GuardSettings(unit="episode"))
    assert terms_of(episodes, learned, mean=1.0).center == 0.0
