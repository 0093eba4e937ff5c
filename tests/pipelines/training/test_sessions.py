"""A loop's own log becomes a policy with memory: taught, judged, registered, the same bytes twice."""

from __future__ import annotations

import importlib.util
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.artifact import MANIFEST_FILE, Manifest, unpack
from decision.errors import FieldError, SupportError
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings, parse_loop
from pipelines.training.train import train
from pipelines.training.window import window
from tests.parts import require
from tests.pipelines import test_cli
from tests.worlds.satisfaction import IDS, LATER, TEXT, fill, habit
from tests.worlds.synthetic import new_loop, new_settings, open_parts, settle

require(importlib.util.find_spec("torch"), "torch is not installed")

from pipelines.training.session_log import log_of  # noqa: E402 it imports torch

run = test_cli.run
SMALL = '[session]\nhorizon = 24\nmembers = 2\nheld = 4\neffort = 0.02\ntrend = "wears_out"\n'


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("feed"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture(scope="module")
def loop(settings: Settings) -> LoopSettings:
    return new_loop(settings, "feed", TEXT + SMALL)


@pytest.fixture(scope="module")
def lake(settings: Settings, loop: LoopSettings) -> Lake:
    log, lake = open_parts(settings)
    fill(log, loop.name, habit(0, 60, 24))
    settle(log, lake, loop)
    log.close()
    return lake


def test_trajectories_of_a_lake_are_those_that_were_logged_but_for_users_held_out(
    lake: Lake, loop: LoopSettings
) -> None:
    wanted, found = habit(0, 60, 24), log_of(lake, loop, lake.version("interactions"))
    assert found.catalogue.ids == tuple(IDS)
    held = set(pa.concat_tables(window(lake, loop).held(("subject_id",)))["subject_id"].to_pylist())
    order = np.array([user for user in sorted(range(60), key=lambda user: f"u{user}") if f"u{user}" not in held])
    assert len(found) == len(order) == 60 - len(held)
    assert 4 < len(held) < 24
    assert (found.actions + 4).tolist() == wanted.actions[order].tolist()
    assert found.rewards == pytest.approx(wanted.rewards[order])
    assert found.propensities == pytest.approx(wanted.propensities[order], rel=1e-5)
    assert found.pmf is not None
    assert found.pmf.sum(axis=2) == pytest.approx(1.0, abs=1e-5)
    assert found.offered is not None
    assert found.offered.all()
    assert found.scale.form == "log"


def test_of_more_users_than_asked_for_the_same_are_kept(lake: Lake, loop: LoopSettings) -> None:
    few = msgspec.structs.replace(loop, session=msgspec.structs.replace(loop.session, users=25))
    one, other = (log_of(lake, few, lake.version("interactions")) for _ in range(2))
    assert len(one) == 25
    assert one.rewards.tobytes() == other.rewards.tobytes()


def test_the_same_log_gives_the_same_bytes_and_a_policy_that_serves(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    one, other = (train(lake, registry, loop, seed=3, now=LATER) for _ in range(2))
    files, again = registry.files("feed", one.version), registry.files("feed", other.version)
    assert {name: data for name, data in files.items() if name != MANIFEST_FILE} == {
        name: data for name, data in again.items() if name != MANIFEST_FILE
    }
    policy, manifest = unpack(files)
    assert isinstance(manifest, Manifest)
    assert isinstance(policy, OraclePolicy)
    assert isinstance(policy.oracle, SessionOracle)
    # Only what the log showed may be shown: 13 of the 17 offered.
    assert policy.oracle.settings.actions == IDS[2:-2]
    assert manifest.oracle == "session"
    assert manifest.training["method"] in ("clone", "sim2rec")
    told = one.session["methods"][one.session["chosen"]]
    assert 0.0 <= told["divergence"] <= 1.0
    quality = one.session["quality"]
    assert (quality["executed"], quality["sampler"], len(quality["versions"])) == (13, "uniform", 1)
    assert quality["users"] == len(log_of(lake, loop, lake.version("interactions")))
    assert 0.0 < quality["residual"] < 1.0
    assert manifest.training["judged"]["quality"]["advice"] == quality["advice"]
    assert np.isfinite([told["held_out"], told["gain_low"], told["gain_high"], told["error"]]).all()
    assert (told["users"], len(one.session["methods"])) == (
        len(log_of(lake, loop, lake.version("interactions"))) // 4,
        2,
    )
    # The second training knows what the first one promised; it has decided nothing yet.
    (kept,) = other.session["record"]
    assert kept["version"] == one.version
    assert (kept["decisions"], kept["came_true"]) == (0, None)
    assert kept["held_out"] == told["held_out"]


def test_a_replay_says_before_any_training_what_the_sessions_hold(
    run: Any, settings: Settings, lake: Lake, loop: LoopSettings
) -> None:
    home = ("--home", str(settings.root))
    found = run("replay", loop.name, "--report", "--json", *home).result["sessions"]
    assert found["users"] == len(log_of(lake, loop, lake.version("interactions")))
    assert found["residual"] is None
    assert "sessions in the log" in run("replay", loop.name, "--report", *home).out


def test_what_a_version_promised_is_kept_beside_what_came_true(
    run: Any, settings: Settings, registry: Registry
) -> None:
    loop = new_loop(settings, "kept", TEXT + SMALL + 'method = "clone"\nalso = []\n')
    log, lake = open_parts(settings)
    fill(log, "kept", habit(1, 60, 12))
    settle(log, lake, loop)
    first = train(lake, registry, loop, seed=0, now=LATER)
    later = habit(2, 5, 12)
    fill(log, "kept", later, first="v", day=1, version=first.version)
    settle(log, lake, loop)
    log.close()
    (kept,) = train(lake, registry, loop, seed=0, now=LATER).session["record"]
    assert kept["decisions"] == 60
    assert kept["came_true"] == pytest.approx(float(later.rewards.mean()), rel=1e-5)
    said = " ".join(run("train", "kept", "--home", str(settings.root)).out.split())
    assert "users apart whom it imitates are too few" in said  # two versions drew, and 5 users are no proof


def test_too_few_users_are_refused_in_words(settings: Settings, registry: Registry) -> None:
    loop = new_loop(settings, "few", TEXT + SMALL)
    log, lake = open_parts(settings)
    fill(log, "few", habit(1, 20, 12))
    settle(log, lake, loop)
    log.close()
    with pytest.raises(SupportError, match=r"the trajectories of 1\d users, 40 are needed"):
        train(lake, registry, loop, seed=0, now=LATER)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('[policy]\noracle = "session"\n[features]\nenabled = true\n', "policy.exploration"),
        ('[policy]\noracle = "session"\nexploration = "softmax"\n', "features.enabled"),
        (TEXT + "[training]\nvariants = [{decay = 1.0}]\n", "training.variants"),
        (TEXT + '[session]\nmethod = "guess"\n', "session.method"),
        (TEXT + "[session]\nmembers = 1\n", "session.members"),
        (TEXT + "[session]\nhorizon = 1\n", "session.horizon"),
        (TEXT + "[session]\nmember = 3\n", "session.member"),
        ("[session]\npenalty = -1\n", "session.penalty"),
        ('[session]\npenalty_kind = "distance"\n', "session.penalty_kind"),
    ],
)
def test_settings_that_do_not_fit_are_named(text: str, field: str) -> None:
    with pytest.raises(FieldError) as error:
        parse_loop(text, "feed", {})
    assert error.value.field == field
