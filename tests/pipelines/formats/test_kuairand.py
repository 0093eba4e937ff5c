"""KuaiRand: what was exposed at random comes with its exact propensity, the rest is left out and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from pipelines.formats.kuairand import OFFERED, find
from pipelines.formats.store import load_import, save_import
from pipelines.interactions.arrays import to_interactions
from pipelines.settings import load_settings

HEAD = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms,duration_ms,is_rand,tab\n"


def log(folder: Path, *, pool: int, rows: int, seed: int) -> Path:
    """A log in KuaiRand's columns: a third of the rows at random from `pool` videos, v0 clicked in .9 of its shows."""
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    for row in range(rows):
        drawn = rng.random() < 1 / 3
        video = rng.integers(pool) if drawn else pool + rng.integers(5)
        click = int(rng.random() < (0.9 if video == 0 else 0.2))
        lines.append(
            f"{row % 40},{video},20220422,{row % 24}00,{1650556800000 + row},{click},0,{click},0,9,{drawn:d},1\n"
        )
    path = folder / "log.csv"
    path.write_text(HEAD + "".join(lines))
    return path


def test_only_random_rows_are_kept_each_with_one_over_the_pool(tmp_path: Path) -> None:
    path = log(tmp_path, pool=7, rows=600, seed=1)
    (found,) = find(path, "kuai")
    rows = pa.concat_tables(found.batches)
    drawn = [line.split(",") for line in path.read_text().splitlines()[1:] if line.split(",")[10] == "1"]
    assert found.left_out() == {"undrawn": 600 - len(drawn)}
    assert rows["propensity"].to_pylist() == [1 / 7] * len(drawn)
    shown = [ids[at] for ids, at in zip(rows["action_ids"].to_pylist(), rows["action_index"].to_pylist(), strict=True)]
    assert shown == [fields[1] for fields in drawn]
    assert rows["subject_id"].to_pylist() == [fields[0] for fields in drawn]
    assert rows["reward"].to_pylist() == [float(fields[5]) for fields in drawn]
    assert rows["ts"][0].as_py().timestamp() * 1000 == pytest.approx(int(drawn[0][4]), abs=0.5)


def test_a_large_pool_is_offered_in_sets_that_hold_the_video_shown_and_repeat_bit_for_bit(tmp_path: Path) -> None:
    path = log(tmp_path, pool=400, rows=900, seed=2)
    first, second = (pa.concat_tables(find(path, "kuai")[0].batches) for _ in range(2))
    assert first.equals(second)
    for ids, at in zip(first["action_ids"].to_pylist(), first["action_index"].to_pylist(), strict=True):
        assert len(set(ids)) == len(ids) == OFFERED
        assert 0 <= at < OFFERED
    assert first["propensity"].to_pylist() == [1 / OFFERED] * len(first)


def test_drawn_sets_leave_the_value_of_a_policy_what_it_is(tmp_path: Path) -> None:
    """IPS of "v0 where it is offered, else the first" against its truth; within 4 errors: fails 1 in 15,000."""
    settings = load_settings({}, home=str(tmp_path / "home"))
    (found,) = find(log(tmp_path, pool=200, rows=60_000, seed=3), "kuai")
    save_import(settings, "kuai", found.batches, format="kuairand", source=found.source, left_out=found.left_out)
    rows = to_interactions(load_import(settings, "kuai"))
    first = rows.chosen == rows.batch.offsets[:-1]  # ids ascend as text, "0" before all
    estimates = first * rows.reward * OFFERED
    # v0 is offered in half of the sets and pays .9, any other first video pays .2.
    assert abs(estimates.mean() - (0.5 * 0.9 + 0.5 * 0.2)) < 4 * estimates.std() / np.sqrt(len(estimates))


def test_reward_and_features_come_from_the_columns_that_are_mapped(tmp_path: Path) -> None:
    path = log(tmp_path, pool=3, rows=30, seed=4)
    rows = pa.concat_tables(find(path, "kuai", {"reward": "duration_ms", "context.hour": "hourmin"})[0].batches)
    assert set(rows["reward"].to_pylist()) == {9.0}
    assert '"hour":' in rows["context"][0].as_py()
    assert '"tab":1' in rows["context"][0].as_py()


@pytest.mark.parametrize(
    ("columns", "match"),
    [({"reward": "applause"}, "map.reward"), ({"propensity": "is_rand"}, "map"), ({"context.a": "b"}, "map.context.a")],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, str], match: str) -> None:
    with pytest.raises(FieldError, match=match):
        find(log(tmp_path, pool=3, rows=9, seed=5), "kuai", columns)


def test_a_log_without_random_rows_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = log(tmp_path, pool=3, rows=9, seed=6)
    path.write_text("".join(line.replace(",1,1\n", ",0,1\n") for line in path.read_text().splitlines(keepends=True)))
    with pytest.raises(FieldError, match="is_rand"):
        list(find(path, "kuai")[0].batches)
    path.write_text("user,video\n1,2\n")
    with pytest.raises(FieldError, match="KuaiRand"):
        find(path, "kuai")
