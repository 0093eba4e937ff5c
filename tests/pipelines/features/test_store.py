"""Features on the real Feast: what is looked up, what is logged and what is retrieved later are the same values."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.features.push import push_new
from pipelines.features.store import Features
from pipelines.features.views import Views
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.arrays import to_interactions
from pipelines.interactions.join import join
from pipelines.lake.features import without_features
from pipelines.lake.lake import Lake
from pipelines.settings import Settings, load_settings
from tests.worlds.lake import START, World, decision, loop_of, outcome

LOOP = loop_of("[features]\nenabled = true\nhalf_life_s = 60.0\n")
UPLOADS_ONLY = loop_of("[features]\nenabled = true\nstream = false\n")
TIME = pa.timestamp("us", "UTC")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now.timestamp()

    def set(self, seconds: float) -> datetime:
        self.now = START + timedelta(seconds=seconds)
        return self.now


class Shop(World):
    """A loop whose decisions are made with the features that are looked up for them."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        super().__init__(folder, clock=self.clock)
        self.settings = load_settings({}, home=str(folder))
        self.writing = Features(self.settings, LOOP, clock=self.clock)
        self.serving = Features(self.settings, LOOP, clock=self.clock)

    def decide(self, event_id: str, subject: str | None, at: float) -> dict[str, float | str]:
        ts = self.clock.set(at)
        looked_up = {} if subject is None else self.serving.online(subject, ts)
        snapshot = msgspec.Raw(msgspec.json.encode(looked_up))
        self.append(decision(event_id, ts=ts, subject_id=subject, feature_snapshot=snapshot))
        return looked_up

    def report(self, event_id: str, value: float, at: float) -> None:
        self.clock.set(at)
        self.append(outcome(event_id, value, at))

    def push(self, at: float) -> int:
        self.clock.set(at)
        ingest(self.log, self.lake)
        return push_new(self.lake, LOOP, self.writing).subjects

    def upload(self, text: str, at: float = 0.0, *, replace: bool = False) -> int:
        path = self.path.with_name("subjects.csv")
        path.write_text(text)
        return self.writing.load_subjects(path, now=self.clock.set(at), replace=replace)

    def as_of(self, subject: str, *seconds: float) -> list[dict[str, float | str]]:
        times = pa.array([START + timedelta(seconds=s) for s in seconds], TIME)
        rows = self.writing.historical(pa.table({"subject_id": [subject] * len(seconds), "ts": times})).to_pylist()
        keys = ("subject_id", "ts")
        return [{name: value for name, value in row.items() if name not in keys and value is not None} for row in rows]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_was_looked_up_is_what_history_says_and_what_training_reads(shop: Shop) -> None:
    shop.upload("subject_id,ts,age,city\nann,2025-12-31T00:00:00Z,31,Ulm\nann,2026-01-01T00:00:30Z,32,\n", at=-5.0)
    served = {"a": shop.decide("a", "ann", 0.0), "b": shop.decide("b", "bob", 1.0), "c": shop.decide("c", None, 2.0)}
    shop.report("a", 0.25, 3.0)
    shop.push(10.0)
    served |= {"d": shop.decide("d", "ann", 10.0), "e": shop.decide("e", "ann", 29.999999)}
    shop.clock.set(30.0)
    shop.writing.materialize(shop.clock.now)
    served |= {"f": shop.decide("f", "ann", 30.0), "g": shop.decide("g", "bob", 31.5)}
    shop.report("b", 1.0, 32.0)
    shop.report("f", 0.125, 33.0)
    shop.push(40.123456)
    served |= {"h": shop.decide("h", "ann", 40.123456), "i": shop.decide("i", "bob", 95.7)}

    assert [sorted(served[event]) for event in "abc"] == [["age", "city"], [], []]
    assert [served[event].get("age") for event in "adefh"] == [31.0, 31.0, 31.0, 32.0, 32.0]
    assert served["d"]["stream_mean_reward"] == 0.25
    assert served["d"]["stream_decisions"] == pytest.approx(2.0 ** (-10.0 / 60.0))
    assert served["h"]["stream_outcomes"] > served["f"]["stream_outcomes"] > served["d"]["stream_outcomes"] * 0.5
    assert len({tuple(features.items()) for features in served.values()}) == 8  # b and c saw nothing, all others differ

    shop.push(1000.0)
    join(shop.lake, LOOP, START + timedelta(days=1))
    training = shop.lake.interactions("shop")
    events, snapshots = training["event_id"].to_pylist(), training["feature_snapshot"].to_pylist()
    assert {e: msgspec.json.decode(s) for e, s in zip(events, snapshots, strict=True)} == served
    history = shop.writing.historical(training)
    for event, row in zip(events, history.to_pylist(), strict=True):
        found = {name: value for name, value in row.items() if name not in ("subject_id", "ts") and value is not None}
        assert found == served[event], event
    for event, context in zip(events, to_interactions(training).batch.contexts, strict=True):
        flat = {f"feature.{n}={v}" if isinstance(v, str) else f"feature.{n}" for n, v in served[event].items()}
        assert {name for name in context if name.startswith("feature.")} == flat


def test_history_answers_as_of_each_time_and_never_from_the_future(shop: Shop) -> None:
    shop.upload("subject_id,ts,age\nann,2026-01-01T00:00:20Z,1\nann,2026-01-01T00:00:40Z,2\n", at=100.0)
    shop.decide("a", "ann", 25.0)
    shop.push(50.0)
    rows = shop.as_of("ann", 19.999999, 20.0, 39.999999, 40.0, 49.999999, 50.0)
    assert [row.get("age") for row in rows] == [None, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert ["stream_decisions" in row for row in rows] == [False, False, False, False, False, True]
    assert shop.as_of("nobody", 99.0) == [{}]


def test_a_push_is_seen_by_the_next_lookup_of_a_process_that_is_running(shop: Shop) -> None:
    assert shop.decide("a", "ann", 0.0) == {}
    shop.push(1.0)
    shop.report("a", 1.0, 1.5)
    at = START + timedelta(seconds=2.0)
    assert shop.serving.online("ann", at)["stream_mean_reward"] == 0.0
    assert shop.push(2.0) == 1
    assert shop.serving.online("ann", at)["stream_mean_reward"] == 1.0


def test_pushing_again_changes_nothing_and_the_lake_alone_gives_the_same_values(shop: Shop) -> None:
    for i in range(30):
        shop.decide(f"e{i}", f"s{i % 4}", i * 7.0)
        if i % 3:
            shop.report(f"e{i - 1}", i / 30.0, i * 7.0 + 1.0)
        if i % 5 == 4:
            shop.push(i * 7.0 + 2.0)
    before = {s: shop.serving.online(s, shop.clock.now) for s in ("s0", "s1", "s2", "s3")}
    assert all(len(features) == 3 for features in before.values())
    assert shop.push(300.0) == 0
    shop.writing.close()
    for path in Views(shop.settings, LOOP).folder.glob("stream.db*"):
        path.unlink()
    at = shop.clock.now - timedelta(seconds=300.0 - 29 * 7.0 - 2.0)
    assert shop.push(301.0) == 4
    for subject, features in before.items():
        assert shop.serving.online(subject, at) == pytest.approx(features, rel=1e-9)


def test_uploads_online_hold_what_history_says_they_hold(shop: Shop) -> None:
    shop.upload("subject_id,ts,age\nann,2026-01-01T00:00:20Z,1\n", at=0.0)
    assert shop.serving.online("ann") == {}  # not begun yet
    assert shop.writing.materialize(shop.clock.set(20.0)) == 1
    assert shop.serving.online("ann") == {"age": 1.0} == shop.as_of("ann", 20.0)[0]
    shop.upload("subject_id,ts,age,city\nann,2026-01-01T00:00:30Z,2,Ulm\nbob,2026-01-01T00:00:10Z,7,\n", at=40.0)
    assert shop.serving.online("ann") == {"age": 2.0, "city": "Ulm"} == shop.as_of("ann", 40.0)[0]
    assert shop.serving.online("bob") == {"age": 7.0} == shop.as_of("bob", 40.0)[0]
    shop.upload("subject_id,age,city\nann,,\n", at=50.0)
    assert shop.serving.online("ann") == {} == shop.as_of("ann", 50.0)[0]


def test_replacing_uploads_forgets_the_earlier_ones(shop: Shop) -> None:
    shop.upload("subject_id,age\nann,1\nbob,2\n", at=0.0)
    shop.upload("subject_id,city\nann,Ulm\n", at=10.0, replace=True)
    assert shop.writing.names() == ["city", "stream_decisions", "stream_mean_reward", "stream_outcomes"]
    assert shop.serving.online("ann") == {"city": "Ulm"}
    assert shop.serving.online("bob") == {} == shop.as_of("bob", 20.0)[0]


def test_a_feature_that_came_later_is_added_as_it_stood_then_and_nothing_logged_changes(shop: Shop) -> None:
    shop.upload("subject_id,ts,age\nann,2025-01-01T00:00:00Z,1\n", at=0.0)
    for event, at in (("a", 1.0), ("b", 2.0)):
        shop.decide(event, "ann", at)
    shop.decide("c", None, 3.0)
    shop.upload("subject_id,ts,age,city\nann,2026-01-01T00:00:02Z,9,Ulm\n", at=100.0)
    shop.push(100.0)
    join(shop.lake, LOOP, START + timedelta(days=1))
    table = shop.lake.interactions("shop")
    filled = shop.writing.backfill(table, ["age", "city"])
    assert filled.drop_columns("feature_snapshot") == without_features(table).drop_columns("feature_snapshot")
    assert filled.schema == table.schema
    rows = zip(filled["event_id"].to_pylist(), filled["feature_snapshot"].to_pylist(), strict=True)
    assert {event: msgspec.json.decode(snapshot) for event, snapshot in rows} == {
        "a": {"age": 1.0},
        "b": {"age": 1.0, "city": "Ulm"},  # the age of its time was 9, and the policy saw 1
        "c": {},
    }
    contexts = dict(zip(filled["event_id"].to_pylist(), to_interactions(filled).batch.contexts, strict=True))
    assert ["feature.city=Ulm" in contexts[event] for event in "abc"] == [False, True, False]


def test_unknown_names_and_missing_columns_are_named(shop: Shop) -> None:
    asked = pa.table({"subject_id": ["ann"], "ts": pa.array([START], TIME)})
    with pytest.raises(FieldError, match="height"):
        shop.writing.historical(asked, ["height"])
    with pytest.raises(FieldError) as caught:
        shop.writing.historical(asked.drop_columns("ts"))
    assert caught.value.field == "ts"
    assert shop.writing.historical(asked.slice(0, 0)).num_rows == 0


def test_a_store_that_breaks_costs_features_but_no_decision_and_is_taken_up_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.upload("subject_id,age\nann,1\n")
    assert shop.serving.online("ann") == {"age": 1.0}
    assert shop.serving.failures == 0
    files = Views(shop.settings, LOOP).online_path.parent
    for path in files.glob("online_store.db*"):
        path.write_bytes(b"no database" * 1000)
    fresh = Features(shop.settings, LOOP, clock=shop.clock)
    assert fresh.online("ann") == {} == fresh.online("ann")
    assert fresh.failures == 2
    for path in files.glob("online_store.db*"):
        path.unlink()
    Features(shop.settings, LOOP).load_subjects(shop.path.with_name("subjects.csv"), now=START)
    monkeypatch.setattr(fresh, "_retry_at", 0.0)  # a second later
    assert fresh.online("ann") == {"age": 1.0}
    assert fresh.failures == 2


def test_a_push_that_fails_half_way_is_made_up_for(shop: Shop) -> None:
    shop.decide("a", "ann", 1.0)
    shop.push(2.0)
    history = Path(Views(shop.settings, LOOP).history.pattern).parent
    away = history.rename(history.with_name("away"))
    history.write_text("in the way")  # values go online, and their history cannot be written
    shop.decide("b", "ann", 3.0)
    with pytest.raises(FileExistsError):
        shop.push(4.0)
    history.unlink()
    away.rename(history)
    assert shop.push(5.0) == 1
    at = 61.0
    assert shop.serving.online("ann", START + timedelta(seconds=at)) == shop.as_of("ann", at)[0]
    assert shop.as_of("ann", at)[0]["stream_decisions"] == pytest.approx(2.0 ** (-58 / 60) + 2.0 ** (-60 / 60))
    assert [row["stream_decisions"] for row in shop.as_of("ann", 3.0, 5.0)] == pytest.approx(
        [2.0 ** (-2 / 60), 2.0 ** (-2 / 60) + 2.0 ** (-4 / 60)]
    )


def test_erasing_a_subject_leaves_it_in_no_file(shop: Shop) -> None:
    shop.upload("subject_id,age\nann-smith,1\nbob,2\n")
    shop.decide("a", "ann-smith", 1.0)
    shop.decide("b", "bob", 1.0)
    shop.push(2.0)
    # the sums and the decision, a row of the history, one of the uploads, one online feature and five sums
    assert shop.writing.erase("ann-smith") == 2 + 1 + 1 + 1 + 5
    assert shop.serving.online("ann-smith") == {} == shop.as_of("ann-smith", 9.0)[0]
    assert len(shop.serving.online("bob")) == 4
    shop.serving.close()
    for path in (shop.settings.root / "features").rglob("*"):
        assert not path.is_file() or b"ann-smith" not in path.read_bytes(), path


def test_loops_do_not_see_each_other_whatever_their_names(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    path = tmp_path / "subjects.csv"
    loops = [loop_of("[features]\nenabled = true\n", name) for name in ("a-b", "a_b", "a_xb")]
    for age, loop in enumerate(loops):
        path.write_text(f"subject_id,age\nann,{age}\n")
        Features(settings, loop).load_subjects(path, now=START)
    assert [Features(settings, loop).online("ann") for loop in loops] == [{"age": 0.0}, {"age": 1.0}, {"age": 2.0}]


def test_a_loop_without_a_stream_has_only_uploads(shop: Shop) -> None:
    shop.upload("subject_id,age\nann,1\n")
    shop.decide("a", "ann", 1.0)
    shop.push(2.0)
    features = Features(shop.settings, UPLOADS_ONLY, clock=shop.clock)
    assert features.online("ann") == {"age": 1.0}
    assert features.names() == ["age"]
    assert push_new(Lake(shop.lake.path), UPLOADS_ONLY, features).decisions == 0


def test_nothing_is_printed(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.upload("subject_id,age\nann,1\n")
    shop.decide("a", "ann", 1.0)
    shop.push(2.0)
    shop.as_of("ann", 3.0)
    assert capfd.readouterr() == ("", "")


def test_looking_up_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pipelines.features.store import Features; from pipelines.settings import *;"
        "loop = LoopSettings(name='a', features=FeatureSettings(enabled=True));"
        f"f = Features(Settings(home={str(tmp_path)!r}), loop);"
        "assert 'feast' not in sys.modules; print(f.online('u'), f.failures);"
        "assert 'feast' in sys.modules and 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stdout) == (0, "{} 0\n"), done.stderr


def test_feasts_own_command_line_finds_the_repository(shop: Shop) -> None:
    shop.upload("subject_id,age\nann,1\n")
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(Settings(home=str(shop.settings.root)).root / "features"))
    assert {view.name for view in store.list_feature_views()} == {"shop_stream", "shop_subject"}
    found = store.get_online_features(features=["shop_subject:age"], entity_rows=[{"subject_id": "ann"}]).to_dict()
    assert found == {"subject_id": ["ann"], "age": [1.0]}


def test_a_decision_that_another_replica_answered_otherwise_leaves_the_stream(shop: Shop) -> None:
    shop.decide("a", "ann", 0.0)
    shop.decide("b", "ann", 1.0)
    shop.report("a", 0.5, 2.0)
    shop.report("b", 1.0, 3.0)
    shop.push(10.0)
    assert shop.serving.online("ann", shop.clock.now)["stream_decisions"] > 1.5
    other = decision("b", ts=shop.clock.set(11.0), subject_id="ann", action_index=0, propensity=0.75)
    shop.append(other)
    shop.push(12.0)
    left = shop.serving.online("ann", shop.clock.now)
    assert left["stream_decisions"] == pytest.approx(2.0 ** (-12.0 / 60.0))
    assert left["stream_mean_reward"] == pytest.approx(0.5)
