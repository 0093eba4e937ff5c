"""What a replica says of how far behind it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec

from pipelines.ingestion.forward import forward
from pipelines.ingestion.ingest import ingest
from pipelines.log.protocol import TOPICS
from pipelines.log.sqlite.log import LocalLog
from serving import metrics
from serving.lags import DiskUse, IngestLag, Lags
from serving.loops import Loops
from tests.worlds.lake import World, decision
from tests.worlds.rollout import GuardedLoop
from tests.worlds.synthetic import new_settings


def shown(name: str) -> float:
    (line,) = [line for line in metrics.exposition().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_what_is_in_the_spool_and_not_on_the_log_is_counted_with_and_without_a_forwarder(tmp_path: Path) -> None:
    shop, spool, target = GuardedLoop(tmp_path), LocalLog(tmp_path / "spool.db"), LocalLog(tmp_path / "target.db")
    for topic in TOPICS:
        spool.create(topic, 2)
    spool.append_many("decisions", [(b"%d" % number, b"", ()) for number in range(5)])
    loops = Loops(shop.settings, shop.registry)
    lags = Lags(msgspec.structs.replace(shop.settings, log="kafka://broker:9092"), spool, loops, lambda: 0.0)
    assert lags.to_forward() == 5
    forward(spool, target, once=True)
    assert lags.to_forward() == 0
    spool.append_many("outcomes", [(b"1", b"", ())])
    lags.observe()
    assert shown("decision_forward_lag") == 1
    assert 0 < shown("decision_disk_free_ratio") <= 1
    assert Lags(shop.settings, spool, loops, lambda: 0.0).to_forward() == 0  # its spool is the log
    for log in (spool, target):
        log.close()
    shop.close()


def test_the_weight_of_a_candidate_and_how_long_it_holds_are_shown(tmp_path: Path) -> None:
    shop = GuardedLoop(tmp_path)
    loops = Loops(shop.settings, shop.registry)
    loops.refresh()
    Lags(shop.settings, shop.world.log, loops, lambda: shop.now.timestamp()).observe()
    assert shown('decision_guard_left_seconds{loop="shop"}') == float("inf")
    assert shown('decision_guard_weight{loop="shop"}') == 0.0

    shop.point("candidate", "2")
    state = shop.step()
    loops.refresh()
    Lags(shop.settings, shop.world.log, loops, shop.now.timestamp).observe()
    assert shown('decision_guard_weight{loop="shop"}') == state.weight > 0.0
    late = shop.now + timedelta(seconds=3000)
    Lags(shop.settings, shop.world.log, loops, late.timestamp).observe()
    assert shown('decision_guard_left_seconds{loop="shop"}') == 600.0
    Lags(shop.settings, shop.world.log, loops, (shop.now + timedelta(days=2)).timestamp).observe()
    assert shown('decision_guard_weight{loop="shop"}') == 0.0
    shop.close()


def test_what_is_on_the_log_and_not_in_the_lake_is_counted(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    world = World(settings.spool_path.parent)
    assert world.path == settings.spool_path
    lag = IngestLag(settings)
    for arrived, want in ((3, 3), (2, 5)):
        world.append(*(decision(f"e{arrived}-{number}") for number in range(arrived)))
        lag.observe()
        assert shown("decision_ingest_lag") == want
    ingest(world.log, world.lake)
    lag.observe()
    assert shown("decision_ingest_lag") == 0
    lag.close()


def test_the_space_of_every_part_is_shown_and_not_looked_at_again_at_once(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(new_settings(tmp_path), home=str(tmp_path))
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "rows").write_bytes(b"x" * 321)
    use = DiskUse(settings)
    use.observe()
    assert shown('decision_disk_bytes{part="lake"}') == 321
    assert shown('decision_disk_bytes{part="imports"}') == 0
    (tmp_path / "lake" / "more").write_bytes(b"x")
    use.observe()
    assert shown('decision_disk_bytes{part="lake"}') == 321
