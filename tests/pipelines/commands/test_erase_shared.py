"""What an erasure takes away where machines share a Redis, and that it begins nothing while that is away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.online.answers import answer_key
from pipelines.online.connection import Online
from pipelines.trajectories.shared_memories import SharedMemories
from tests.redis_server import own_redis
from tests.worlds.lake import World, decision, outcome
from tests.worlds.synthetic import new_loop, new_settings


def test_an_erasure_reaches_redis_and_fails_where_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with own_redis() as server:
        monkeypatch.setenv("DECISION_HOME", str(tmp_path))
        monkeypatch.setenv("DECISION_ONLINE", server.url)
        new_loop(new_settings(tmp_path), "shop", "")
        world, online = World(tmp_path), Online(server.url)
        world.append(decision("e1"), outcome("e1"), decision("e2", subject_id="bob"))
        memories = SharedMemories(online, "shop", 600.0)
        assert memories.follow(world.log, datetime.now(UTC)) == 3
        for event_id in (b"e1", b"e2"):
            online.ask([("SET", answer_key("shop", event_id), b"the record")])
        world.log.close()

        def erase() -> int:
            with pytest.raises(SystemExit) as ended:
                main(["erase", "--subject", "ann", "--yes", "--json"])
            return int(ended.value.code or 0)

        server.pause()
        assert erase() == 1
        assert "online" in capfd.readouterr().err
        server.go_on()
        assert erase() == 0
        assert json.loads(capfd.readouterr().out.splitlines()[-1])["remembered_turns"] == 1
        online.close()
        left = Online(server.url)
        (keys,) = left.ask([("KEYS", "*")]) or [[]]
        assert not [key for key in keys if b"ann" in key or key.endswith(b":e1")]
        assert answer_key("shop", b"e2") in keys
        left.close()
