"""Features on the real Feast: what is served, what is logged and what is retrieved later are the same values."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.errors import FieldError
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.features.online import LOOK_S, Features
from pipelines.features.store import Store
from pipelines.features.stream import push
from pipelines.ingest import ingest
from pipelines.lake import Lake
from pipelines.log.local import LocalLog
from pipelines.settings import FeatureSettings, LoopSettings, load_settings

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOP = LoopSettings(name="news", features=FeatureSettings(enabled=True, half_life_s=60.0))
# Feast and its libraries talk in warnings while they are imported and opened.
pytestmark = pytest.mark.filterwarnings("ignore")


class World:
    def __init__(self, home: Path) -> None:
        self.settings = load_settings({}, home=str(home))
        self.log = LocalLog(home / "log.db")
        for topic in ("decisions", "outcomes"):
            self.log.create(topic, 2)
        self.lake = Lake(home / "lake")

    def decide(self, event_id: str, subject: str | None, at: float) -> None:
        record = Decision(
            schema_version=SCHEMA_VERSION,
            loop="news",
            event_id=event_id,
            ts=START + timedelta(seconds=at),
            subject_id=subject,
            context=msgspec.Raw(b"{}"),
            actions=msgspec.Raw(b"[{}]"),
            action_ids=["a"],
            pmf=[1.0],
            action_index=0,
            propensity=1.0,
            policy_version="1",
            baseline_version="0",
            seed=0,
        )
        self.log.append("decisions", event_id.encode(), encode(record))

    def outcome(self, event_id: str, value: float, at: float, key: str | None = None) -> None:
        outcome = Outcome(
            schema_version=SCHEMA_VERSION,
            loop="news",
            event_id=event_id,
            value=value,
            ts=START + timedelta(seconds=at),
            idempotency_key=key,
        )
        self.log.append("outcomes", event_id.encode(), encode(outcome))

    def push(self, at: float) -> int:
        ingest(self.log, self.lake)
        return push(self.settings, LOOP, self.lake, now=START + timedelta(seconds=at))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("home"))
    world.decide("e1", "u1", 0)
    world.decide("e2", "u1", 1)
    world.decide("e3", None, 2)
    world.outcome("e1", 1.0, 10)
    world.outcome("e1", 1.0, 10, key="k")
    world.outcome("e1", 1.0, 11, key="k")  # a repeat
    world.outcome("e3", 1.0, 12)  # nobody's
    world.outcome("ghost", 1.0, 12)  # no such decision
    assert world.push(20) == 1
    world.outcome("e2", 0.0, 70)
    assert world.push(80) == 1
    return world


def test_outcomes_become_decayed_statistics_of_their_subject(world: World) -> None:
    features = Features(world.settings, LOOP)
    # Two rewards of 1 at 10 s weigh one half each at 70 s, beside the new 0.
    assert features.online("u1") == pytest.approx({"outcomes": 2.0, "mean_reward": 0.5})
    assert features.online("nobody") == {}
    assert features.failures == 0


def test_push_again_changes_nothing(world: World) -> None:
    before = Features(world.settings, LOOP).online("u1")
    assert world.push(90) == 0
    assert Features(world.settings, LOOP).online("u1") == before


def test_history_answers_as_of_each_time_and_never_from_the_future(world: World) -> None:
    seconds = [19.0, 20.0, 79.0, 80.0, 500.0]
    asked = pa.table(
        {
            "subject_id": ["u1"] * 5,
            "event_timestamp": pa.array([START + timedelta(seconds=s) for s in seconds], pa.timestamp("us", "UTC")),
        }
    )
    out = Store(world.settings, LOOP).historical(asked)
    assert out.column("outcomes").to_pylist() == [None, 2.0, 2.0, 2.0, 2.0]
    assert out.column("mean_reward").to_pylist() == [None, 1.0, 1.0, 0.5, 0.5]


def test_a_push_is_seen_by_the_next_look_up_of_a_running_service(world: World, tmp_path: Path) -> None:
    own = World(tmp_path)
    own.decide("x", "u", 0)
    own.push(0)
    serving = Features(own.settings, LOOP)
    assert serving.online("u") == {}
    own.outcome("x", 1.0, 1)
    own.push(2)
    time.sleep(2 * LOOK_S)
    assert serving.online("u") == {"outcomes": 1.0, "mean_reward": 1.0}


def test_uploaded_features_are_served_and_retrieved_alike(world: World, tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("subject_id,age,city,member\nu1,31,Ulm,true\nu2,42,Bonn,false\n")
    store = Store(world.settings, LOOP)
    assert store.load_subjects(path, now=START) == 2
    served = Features(world.settings, LOOP).online("u2")
    assert served == {"age": 42.0, "city": "Bonn", "member": 0.0}
    asked = pa.table({"subject_id": ["u2"], "event_timestamp": pa.array([START], pa.timestamp("us", "UTC"))})
    (row,) = store.historical(asked).to_pylist()
    assert {name: row[name] for name in served} == served


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("user,age\nu,1\n", "subject_id"),
        ("subject_id\nu\n", "columns"),
        ("subject_id,event_timestamp,a\nu,x,1\n", "event_timestamp"),
    ],
)
def test_upload_that_does_not_fit_names_the_column(world: World, tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(FieldError) as caught:
        Store(world.settings, LOOP).load_subjects(path, now=START)
    assert caught.value.field == field


def test_upload_with_a_list_column_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"subject_id": ["u"], "tags": [["a"]]}), path)
    with pytest.raises(FieldError, match="tags"):
        Store(world.settings, LOOP).load_subjects(path, now=START)


def test_a_broken_store_answers_nothing_and_counts(world: World, tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "other"))
    broken = Features(settings, LOOP)
    (tmp_path / "other" / "features" / "news").mkdir(parents=True)
    (tmp_path / "other" / "features" / "news" / "online.db").write_bytes(b"no database" * 1000)
    assert broken.online("u1") == {}
    assert broken.failures == 1
