"""Logs read unit by unit: the same results to the last bit however they are cut and whoever reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decision.batch import Batch, Floats
from decision.errors import FieldError
from pipelines.engines.engine import LocalEngine
from pipelines.engines.registry import engine_of
from pipelines.lake.features import with_features, without_features
from pipelines.replay.describe import describe
from pipelines.replay.policy import PolicySpec, python_policy
from pipelines.replay.replay import Options, Replay, replay_log
from pipelines.replay.report import replay_report
from pipelines.replay.rows import hash_of
from pipelines.replay.source import Cut, FileSource, TableSource
from tests.parts import require
from tests.pipelines.replay.test_replay import log

UNIFORM = PolicySpec(kind="uniform", name="uniform policy")
START = datetime(2026, 3, 1, tzinfo=UTC)
OPTIONS = Options(reward_model="means", segment="country", find_segments=True, grouping="kind", replicates=50)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return log(
        1_200,
        ts=[START + timedelta(minutes=row) for row in range(1_200)],
        context=[f'{{"country": "{"at" if row % 3 else "be"}", "deep": {{"er": {row % 2}}}}}' for row in range(1_200)],
        actions=['[{"kind": "x"}, {"kind": "x"}, {"kind": "y"}]'] * 1_200,
        policy_version=[str(row % 2) for row in range(1_200)],
    )


def bits(result: Replay) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(result, table_version=None))


def run(source: Any, options: Options = OPTIONS, **given: Any) -> Replay:
    return replay_log(source, given.pop("policy", UNIFORM), options, log="news", **given)


def test_every_cut_of_a_log_gives_the_same_bits(rows: pa.Table, tmp_path: Path) -> None:
    whole = run(TableSource(rows))
    assert {"ips", "dr", "cab", "mrdr", "mips", "offcem"} <= whole.estimates.keys()
    shuffled = rows.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    for size in (101, 700):
        assert bits(run(TableSource(shuffled, rows=size))) == bits(whole)
    path = tmp_path / "log.parquet"
    pq.write_table(rows, path, row_group_size=333)
    source = FileSource(str(path))
    assert len(source.units()) == 4
    assert bits(run(source)) == bits(whole)


@pytest.mark.connected
def test_two_ray_workers_give_the_same_bits_as_this_process(rows: pa.Table, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    require(ray is not None, "Ray is not installed")
    path = tmp_path / "log.parquet"
    pq.write_table(rows, path, row_group_size=200)
    try:
        engine = engine_of("ray", workers=2)
        assert bits(run(FileSource(str(path)), engine=engine)) == bits(run(FileSource(str(path))))
        assert bits(run(TableSource(rows, rows=300), engine=engine)) == bits(run(TableSource(rows)))
    finally:
        ray.shutdown()


def test_features_are_read_from_columns_or_from_texts_to_the_same_bits(rows: pa.Table, tmp_path: Path) -> None:
    options = Options(reward_model="vw", replicates=50)
    texts = bits(run(TableSource(rows), options))
    some = pa.concat_tables([with_features(rows.slice(0, 700)), without_features(with_features(rows.slice(700)))])
    for number, table in enumerate((with_features(rows), some)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=333)
        source = FileSource(str(path))
        assert source.flat(0)
        assert source.flat(3) == (number == 0)
        assert bits(run(source, options)) == texts
        assert bits(run(TableSource(table, rows=333), options)) == texts


def test_a_range_of_time_is_the_rows_in_it(rows: pa.Table) -> None:
    cut = Cut(since=START + timedelta(minutes=200), until=START + timedelta(minutes=900))
    assert bits(run(TableSource(rows, cut))) == bits(run(TableSource(rows.slice(200, 700))))
    assert run(TableSource(rows, cut)).first == "2026-03-01T03:20:00+00:00"


def test_a_segment_is_the_rows_of_its_label(rows: pa.Table) -> None:
    part = msgspec.structs.replace(OPTIONS, where=("deep.er", "1"))
    alone = rows.filter(pa.array(np.arange(1_200) % 2 == 1))
    assert bits(run(TableSource(rows), part)) == bits(run(TableSource(alone)))
    result = run(TableSource(rows))
    assert {name: None if e is None else e.n for name, e in result.segments.items()} == {"at": 800, "be": 400}


def test_segments_that_stand_out_are_searched_in_one_half_and_shown_with_what_was_looked_at(rows: pa.Table) -> None:
    result = run(TableSource(rows))
    assert result.found is not None
    assert result.found.searched + result.found.estimated == 1_200
    assert result.found.singles == 4  # two countries, and a number of two values
    assert 2 <= result.found.pairs <= 4  # those of a hundred decisions in the half
    page = replay_report(result)
    assert "Segments that were found" in page
    assert f"4 segments and {result.found.pairs} pairs of them were looked at" in page
    assert run(TableSource(rows), msgspec.structs.replace(OPTIONS, find_segments=False)).found is None


def test_generations_are_weighed_together(rows: pa.Table) -> None:
    given = {"0": UNIFORM, "1": PolicySpec(kind="object", name="x", held=Skewed())}
    found = run(TableSource(rows), generations=given).estimates
    mixed = (1 / 3 + np.array([0.5, 0.3, 0.2])) / 2
    weights = 1 / 3 / mixed[rows["action_index"].to_numpy()]
    balanced = found["balanced_ips"]
    assert balanced is not None
    assert balanced.value == pytest.approx(float((weights * rows["reward"].to_numpy()).mean()))
    assert "balanced_ips" not in run(TableSource(rows), generations={"0": UNIFORM}).estimates


class Skewed:
    def pmf(self, batch: Batch) -> Floats:
        return np.tile([0.5, 0.3, 0.2], len(batch))


def first_only(batch: Batch) -> Floats:
    out = np.zeros(len(batch.actions))
    out[batch.offsets[:-1]] = 1.0
    return out


def no_distribution(batch: Batch) -> Floats:
    return np.ones(len(batch.actions))


def test_a_python_callable_is_a_policy(rows: pa.Table) -> None:
    here = PolicySpec(kind="python", name="first policy", path=f"{__name__}:first_only")
    first = PolicySpec(kind="first", name="first policy")
    assert bits(run(TableSource(rows), policy=here)) == bits(run(TableSource(rows), policy=first))
    assert python_policy(f"{__name__}:Skewed").pmf(Batch([{}], [{}] * 3, list("abc"), np.array([0, 3]))).sum() == 1.0
    for path in ("nothing", "no.such:thing", f"{__name__}:nothing", f"{__name__}:START"):
        with pytest.raises(FieldError) as caught:
            python_policy(path)
        assert caught.value.field == "policy"
    with pytest.raises(FieldError, match="pmf"):
        run(TableSource(rows), policy=PolicySpec(kind="python", name="x", path=f"{__name__}:no_distribution"))


def test_a_log_with_wrong_propensities_is_refused_and_says_so(rows: pa.Table) -> None:
    at = rows.schema.get_field_index("propensity")
    halved = pa.array(rows["propensity"].to_numpy() / 2)
    wrong = rows.set_column(at, rows.schema.field(at), halved)
    result = run(TableSource(wrong))
    assert set(result.estimates.values()) == {None}
    assert not result.trusted
    assert result.recommended is None
    assert any("mean weight" in reason and "not 1" in reason for reason in result.refused)
    page = replay_report(result)
    assert "cannot answer" in page
    assert ">refused<" in page
    shown = run(TableSource(wrong), msgspec.structs.replace(OPTIONS, force=True))
    assert shown.estimates["ips"] is not None
    assert shown.refused


def test_vw_models_do_not_depend_on_the_cut_either(rows: pa.Table) -> None:
    options = Options(reward_model="vw", replicates=20)
    some = rows.slice(0, 300)
    assert bits(run(TableSource(some, rows=77), options)) == bits(run(TableSource(some), options))


def test_the_page_has_every_figure(rows: pa.Table) -> None:
    page = replay_report(run(TableSource(rows)))
    assert page.count("<svg ") == 5
    assert "http-equiv" not in page


def test_times_must_be_a_range() -> None:
    for changes, field in (
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001
        ({"since": START, "until": START}, "until"),
    ):
        with pytest.raises(FieldError) as caught:
            Cut(**changes)  # pyright: ignore[reportArgumentType]
        assert caught.value.field == field


def test_engines_are_named() -> None:
    assert isinstance(engine_of("local"), LocalEngine)
    with pytest.raises(FieldError, match="'local' or 'ray'"):
        engine_of("spark")


def test_the_report_on_a_log_by_hand(rows: pa.Table) -> None:
    found = describe(TableSource(rows, rows=250), LocalEngine(), log="news")
    assert bits_of(found) == bits_of(describe(TableSource(rows), LocalEngine(), log="news"))
    whole = found.whole
    assert (whole.rows, whole.actions, whole.coverage) == (1_200, 3, 1.0)
    # Contexts: 2 countries x 2 numbers, each with three actions: all 12 pairs occur in 1,200 rows.
    assert whole.saco == 1.0
    entropy = -np.log(rows["propensity"].to_numpy()).mean() / np.log(3)
    assert whole.entropy == pytest.approx(entropy)
    means = [rows["reward"].to_numpy()[rows["action_index"].to_numpy() == k].mean() for k in range(3)]
    assert whole.tq == pytest.approx((whole.reward - min(means)) / (max(means) - min(means)))
    assert [part.name for part in found.parts] == ["0", "1"]
    assert "off-policy gradient" in whole.suits


def test_quality_lies_between_the_worst_and_the_best_policy_known() -> None:
    early = log(600, policy_version=["0"] * 600)
    late = log(600, policy_version=["1"] * 600, reward=[1.0] * 600, pmf=(0.1, 0.1, 0.8))
    both = pa.concat_tables([early, late])
    found = describe(TableSource(both), LocalEngine(), log="x")
    chosen, reward, weight = (
        both["action_index"].to_numpy(),
        both["reward"].to_numpy(),
        1 / both["propensity"].to_numpy(),
    )
    single = [float(np.average(reward[chosen == k], weights=weight[chosen == k])) for k in range(3)]
    worst = min(*single, float(reward[:600].mean()))
    parts = {part.name: part.tq for part in found.parts}
    assert parts["1"] == 1.0  # nothing known is better, and no single action
    assert parts["0"] == pytest.approx((reward[:600].mean() - worst) / (1.0 - worst))


def test_a_log_without_choice_suits_imitation_alone(rows: pa.Table) -> None:
    forced = rows.filter(pa.array(rows["action_index"].to_numpy() == 0))
    at = forced.schema.get_field_index("propensity")
    forced = forced.set_column(at, forced.schema.field(at), pa.array(np.ones(len(forced))))
    whole = describe(TableSource(forced), LocalEngine(), log="x").whole
    assert whole.suits == ["imitation of the logged policy"]
    assert any("nothing can be evaluated" in reason for reason in whole.reasons)


def bits_of(found: Any) -> bytes:
    return msgspec.json.encode(found)


def test_rows_that_stand_for_several_leave_the_sequence_out(rows: pa.Table) -> None:
    at = rows.schema.get_field_index("pass_probability")
    sampled = rows.set_column(at, rows.schema.field(at), pa.array(np.tile([1.0, 0.5], 600)))
    result = run(TableSource(sampled, rows=500))
    assert result.trend == []
    assert bits(result) == bits(run(TableSource(sampled)))


def test_a_segment_that_begins_late_is_found(rows: pa.Table) -> None:
    contexts = [json.dumps({"plan": "new" if row >= 1_000 else "old"}) for row in range(1_200)]
    late = TableSource(_with(rows, "context", contexts), rows=100)
    found = run(late, Options(reward_model="means", check=False, where=("plan", "new"), replicates=0))
    assert found.rows == found.logged.n == 200


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_give_the_same_bits(rows: pa.Table, workers: int) -> None:
    several = run(TableSource(rows, rows=150), engine=LocalEngine(workers))
    assert bits(several) == bits(run(TableSource(rows), engine=LocalEngine(1)))


def test_only_settled_rows_count_however_texts_are_held(rows: pa.Table, tmp_path: Path) -> None:
    mixed = _with(rows, "state", [("joined", "expired", "dropped", None)[row % 4] for row in range(1_200)])
    pq.write_table(mixed, tmp_path / "log.parquet", row_group_size=300)
    options = Options(reward_model="means", check=False, replicates=0)
    found = [run(source, options) for source in (TableSource(mixed), FileSource(str(tmp_path / "log.parquet")))]
    assert found[0].rows == 600
    assert bits(found[0]) == bits(found[1])


def test_a_file_says_whether_a_distribution_is_missing(rows: pa.Table, tmp_path: Path) -> None:
    missing = [None if row == 450 else pmf for row, pmf in enumerate(rows["pmf"].to_pylist())]
    pq.write_table(_with(rows, "pmf", missing), tmp_path / "log.parquet", row_group_size=300)
    source = FileSource(str(tmp_path / "log.parquet"))
    assert [source.whole(unit) for unit in source.units()] == [True, False, True, True]
    assert run(source, Options(reward_model="means", check=False, replicates=0)).estimates.keys().isdisjoint({"cab"})


def test_progress_tells_every_decision_of_every_look(rows: pa.Table) -> None:
    told: list[tuple[str, float, float | None]] = []
    options = Options(reward_model="means", check=False, replicates=0)
    run(TableSource(rows, rows=200), options, progress=lambda *what: told.append(what))
    looks = ["decisions found", "decisions surveyed", "decisions evaluated"]
    assert [look for look, done, _ in told if done == 0] == looks
    assert {look: (done, of) for look, done, of in told} == {
        "decisions found": (1_200, None),
        "decisions surveyed": (1_200, 1_200),
        "decisions evaluated": (1_200, 1_200),
    }


def test_rows_fall_into_the_folds_they_always_fell_into() -> None:
    ids = ["a", "e0000000001", "0194f3c8-6a00-7000-8000-000000000000"]
    table = pa.table({"event_id": ids, "slot": ["", "top", ""]})
    assert hash_of(table).tolist() == [9426782791366445287, 7070888624619793239, 13882303576150597950]
    coded = table.set_column(1, "slot", table["slot"].dictionary_encode())
    assert hash_of(coded).tolist() == hash_of(table).tolist()


def _with(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = rows.column_names.index(name)
    return rows.set_column(at, rows.field(at), pa.array(values, rows.field(at).type))
