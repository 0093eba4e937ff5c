"""Clicks beside rare purchases: learned from where they lead to purchases, left alone where they mislead."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import unpack
from decision.batch import one
from decision.draw import draw, seed_of
from decision.errors import FieldError
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.evaluation.evaluate import evaluate
from pipelines.interactions.doubtful import doubt_of
from pipelines.interactions.outcomes import values_of
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, parse_loop
from pipelines.training.aligned import aligned_with, is_mixed
from pipelines.training.train import train
from pipelines.training.window import window
from tests.worlds.synthetic import KINDS, LATER, START, new_loop, new_settings, open_parts, settle

ROWS, VISITORS = 1_500, 40
TEXT = '[reward]\nauxiliary = [{outcome = "click"}]\n[gate]\nminimum_ess = 5\nmargin = 0.0'
ALIGNED, MISLEADING = "aligned", "misleading"


def play_shop(home: Path, name: str) -> tuple[Registry, LoopSettings, Lake]:
    """Play a shop: visitors of forty kinds are shown one of three colours, and buy one of them a little more often.

    Clicks lead there (a tenth of them buys), or to the next colour.
    """
    settings = new_settings(home)
    loop = new_loop(settings, name, TEXT)
    log, lake = open_parts(settings)
    rng = np.random.default_rng(5)
    pmf = [1.0 / 3.0] * 3
    actions = msgspec.Raw(msgspec.json.encode([{"colour": colour} for colour in KINDS]))
    decisions, outcomes = [], []
    for number in range(ROWS):
        event_id, kind = f"{name}-{number}", int(rng.integers(VISITORS))
        seed = seed_of(name, event_id)
        index = draw(pmf, seed)
        ts = START.fromtimestamp(START.timestamp() + number, START.tzinfo)
        decisions.append(
            Decision(
                schema_version=SCHEMA_VERSION,
                loop=name,
                event_id=event_id,
                ts=ts,
                context=msgspec.Raw(msgspec.json.encode({"kind": f"k{kind}"})),
                actions=actions,
                action_ids=list(KINDS),
                pmf=pmf,
                action_index=index,
                propensity=pmf[index],
                policy_version="baseline:uniform",
                baseline_version="uniform",
                seed=seed,
            )
        )
        right = index == kind % 3
        lures = right if name == ALIGNED else index == (kind + 1) % 3
        clicked = rng.random() < (0.8 if lures else 0.1)
        bought = rng.random() < (0.1 if right else 0.02) and (clicked or name == MISLEADING)
        for outcome, happened in (("click", clicked), ("reward", bought)):
            if happened:
                found = Outcome(
                    schema_version=SCHEMA_VERSION, loop=name, event_id=event_id, name=outcome, value=1.0, ts=ts
                )
                outcomes.append(found)
    for topic, records in ((DECISIONS, decisions), (OUTCOMES, outcomes)):
        log.append_many(topic, [(record.event_id.encode(), encode(record), ()) for record in records])
    settle(log, lake, loop)
    log.close()
    return Registry(settings), loop, lake


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, LoopSettings, Lake]:
    return play_shop(tmp_path_factory.mktemp(ALIGNED), ALIGNED)


def test_clicks_that_lead_to_purchases_are_learned_from_and_the_manifest_says_how_much(
    aligned: tuple[Registry, LoopSettings, Lake],
) -> None:
    registry, loop, lake = aligned
    trained = train(lake, registry, loop, seed=0, now=LATER)
    policy, manifest = unpack(registry.files(loop.name, trained.version))
    (found,) = manifest.training["auxiliary"]
    assert found["outcome"] == "click"
    assert found["weight"] > 0.0
    assert found["tried"][0] == {"weight": 0.0, "lift": 0.0, "error": 0.0}
    assert found["weight"] in [one["weight"] for one in found["tried"]]
    assert trained.metrics["train.auxiliary_0_weight"] == found["weight"]
    assert is_mixed(manifest.training)
    # the reward and no more: of uniform decisions, (.08 + 2 * .002) / 3 buy
    assert manifest.training["mean_reward"] == pytest.approx(0.028, abs=0.015)
    assert policy.exploration.high == pytest.approx(1.0 + found["factor"])
    colours = [{f"colour={colour}": 1.0} for colour in KINDS]
    best = [int(np.argmax(policy.scores(one({f"kind=k{kind}": 1.0}, colours, KINDS)))) for kind in range(VISITORS)]
    assert np.mean([index == kind % 3 for kind, index in enumerate(best)]) >= 0.9

    seen = evaluate(lake, registry, loop, trained.version, against="baseline")
    assert seen.predicted is None  # what the scores promise is no reward
    by_rewards = [value for value in seen.values if value.role == "baseline"]
    assert by_rewards[0].dr.value == pytest.approx(0.028, abs=0.02)


def test_the_rows_to_judge_on_keep_their_rewards(aligned: tuple[Registry, LoopSettings, Lake]) -> None:
    _, loop, lake = aligned
    rows = window(lake, loop)
    more, (found,) = aligned_with(rows, loop, 0)
    assert set(more.holdout["reward"].to_pylist()) == {0.0, 1.0}
    gained = more.learned()[0].reward - rows.learned()[0].reward
    assert gained.tolist() == pytest.approx((found.factor * rows.beside()[0]).tolist())
    assert more.unseen(10_000)[0].reward.max() > 1.0
    clicks = values_of(rows.holdout, "click", "sum")
    assert set(clicks.tolist()) == {0.0, 1.0}


def test_clicks_that_mislead_are_left_alone(tmp_path: Path) -> None:
    _, loop, lake = play_shop(tmp_path, MISLEADING)
    rows = window(lake, loop)
    same, (found,) = aligned_with(rows, loop, 0)
    assert (found.weight, found.factor) == (0.0, 0.0)
    assert same is rows
    assert found.tried[-1].lift < -found.tried[-1].error


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('[reward]\nauxiliary = [{outcome = "reward"}]', "auxiliary"),
        ('[reward]\nauxiliary = [{outcome = "a"}, {outcome = "a"}]', "auxiliary"),
        ('[reward]\nauxiliary = [{outcome = "a", weights = [1e9]}]', "weights"),
        ('[reward]\nauxiliary = [{outcome = "a"}]\n[training]\nwarm_start = true', "reward.auxiliary"),
        ('[reward]\nauxiliary = [{outcome = "a"}]\n[training]\nvariants = [{average = 2}]', "reward.auxiliary"),
    ],
)
def test_what_cannot_be_weighed_is_refused_by_name(text: str, field: str) -> None:
    with pytest.raises(FieldError, match=field):
        parse_loop(text, "shop", {})


def test_a_loop_that_lists_its_outcomes_takes_the_auxiliary_ones_too() -> None:
    loop = parse_loop('[reward]\nothers = ["view"]\nauxiliary = [{outcome = "click"}]', "shop", {})
    assert doubt_of("click", 1.0, loop.reward) is None
    with pytest.raises(FieldError, match="name"):
        doubt_of("klick", 1.0, loop.reward)
