"""Several machines, each with a home of its own, that share addresses: what one did, all know."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import redis

from decision.draw import draw
from decision.exploration.rule import Exploration
from decision.policy import OraclePolicy
from pipelines.ingestion.forward import forward, run_forwarder
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.open import open_log
from pipelines.log.protocol import TOPICS
from pipelines.log.sqlite.log import LocalLog
from pipelines.online.answers import answer_key
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.registry.served import ServedCharge
from pipelines.registry.tracking import Tracking
from pipelines.settings import Settings, load_loop, load_settings
from serving.core import Core
from serving.deciding.question import question_of
from serving.errors import ErasedDecisionError, EventIdReusedError
from serving.metrics import exposition
from serving.start import open_core
from serving.wire import Action, DecideRequest, DecideResponse, OutcomeRequest
from tests.contracts.registry import packed
from tests.decision.oracles.test_session import ACTIONS, oracle
from tests.e2e.test_kill_service import kill_all
from tests.e2e.traffic import Load, booked
from tests.kafka_broker import own_broker
from tests.redis_server import RedisServer, own_redis
from tests.worlds.synthetic import new_loop, new_settings

ROUNDS = 20
ASKED = 200


@pytest.fixture
def homes(tmp_path: Path, postgres_database: str, mlflow_server: str) -> list[Settings]:
    """Two machines."""
    return [
        load_settings({}, home=str(tmp_path / name), tracking_uri=mlflow_server, state=postgres_database)
        for name in ("a", "b")
    ]


@pytest.mark.connected
def test_alias_race(homes: list[Settings]) -> None:
    """Both move the champion at once, round after round: one does, and every verdict has a number of its own."""
    registries = [Registry(settings) for settings in homes]
    versions = [registries[0].register("news", packed(a=b"%d" % number)) for number in range(3)]
    stands: str | None = None

    def move(asked: tuple[Registry, str]) -> str | None:
        registry, version = asked
        try:
            registry.set_alias("news", "champion", version, {"verdict": "promoted"}, expected=stands)
        except AliasMovedError:
            return None
        return version

    with ThreadPoolExecutor(2) as pool:
        for _ in range(ROUNDS):
            others = [version for version in versions if version != stands]
            won = [version for version in pool.map(move, zip(registries, others, strict=False)) if version]
            assert len(won) == 1
            stands = won[0]
            assert [registry.aliases("news") for registry in registries] == [{"champion": stands}] * 2
    assert [written.number for written in registries[1].verdicts("news")] == list(range(1, ROUNDS + 1))
    mirror = ServedCharge(Tracking(homes[0]))
    assert mirror.aliases("news") == {"champion": stands}
    assert mirror.verdicts("news") == registries[0].verdicts("news")


@pytest.mark.connected
def test_lost_pod(tmp_path: Path) -> None:
    """Replicas go under load; the lake has all that they acknowledged, each once.

    One acknowledges by its disk, is killed and comes back to its folder. One acknowledges by the log, is killed, and
    its folder is gone.
    """
    with own_broker() as broker, own_redis() as redis, ExitStack() as stack:
        replicas: dict[str, Settings] = {}
        running: dict[str, subprocess.Popen[bytes]] = {}
        loads: dict[str, Load] = {}
        for name, ack in (("kept", "disk"), ("lost", "kafka_unreplicated")):
            home = str(tmp_path / name)
            settings = load_settings(
                {}, home=home, log=f"kafka://{broker.bootstrap}", online=redis.url, ack=ack, port=free_port()
            )
            settings.root.mkdir()
            new_settings(settings.root)
            new_loop(settings, "news", "")
            output = tmp_path / f"{name}.log"
            running[name] = stack.enter_context(process(name, serve_command(settings), settings, output))
            replicas[name], loads[name] = settings, Load(settings.port, name)
        for name, load in loads.items():
            wait_until_ready(running[name], replicas[name], tmp_path / f"{name}.log")
            load.start()
        wait_until(lambda: min(len(load.decided) for load in loads.values()) > 20, "the load to get through")
        for settings in replicas.values():
            kill_all(settings.root)
        for process_ in running.values():
            process_.wait()
        for load in loads.values():
            load.stop.set()
            load.join()
        shutil.rmtree(replicas["lost"].root)
        run_forwarder(replicas["kept"], once=True)
        log = open_log(replicas["lost"].log_url)
        stack.callback(log.close)
        lake = Lake(tmp_path / "lake")
        ingest(log, lake)
    decided = Counter(lake.decisions("news")["event_id"].to_pylist())
    reported = Counter(lake.outcomes("news")["event_id"].to_pylist())
    for load in loads.values():
        assert [event_id for event_id in load.decided if decided[event_id] != 1] == []
        assert [event_id for event_id in load.reported if reported[event_id] != 1] == []


class Fleet(NamedTuple):
    """Two replicas in homes of their own, of two policies, and the Redis that they share."""

    a: Core
    b: Core
    redis: RedisServer


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with own_redis() as server, ExitStack() as stack:
        replicas: list[Core] = []
        for baseline in ("first", "uniform"):
            home = tmp_path_factory.mktemp(baseline)
            for loop in ("shop", "news"):
                new_loop(new_settings(home), loop, f'[baseline]\nkind = "{baseline}"\nexplore = 0.5\n')
            replicas.append(open_core(load_settings({}, home=str(home), online=server.url, reload_s=3600.0)))
            stack.callback(replicas[-1].close)
        a, b = replicas
        yield Fleet(a, b, server)


def question(event_id: str, hour: int = 9) -> DecideRequest:
    return DecideRequest({"hour": hour}, [Action(name) for name in "abcd"], event_id=event_id)


async def ask(core: Core, event_ids: list[str], loop: str = "shop") -> list[DecideResponse]:
    return await asyncio.gather(*[core.decide(loop, question(event_id)) for event_id in event_ids])


def drawn(core: Core, event_id: str) -> str:
    (record,) = core.stored(event_id, "shop")
    return record.action_ids[draw(record.pmf, record.seed)]


def test_repeated_id(fleet: Fleet) -> None:
    a, b, _ = fleet
    event_ids = [f"e{n}" for n in range(ASKED)]
    raced, at_a, at_b = event_ids[: ASKED // 2], event_ids[ASKED // 2 : 3 * ASKED // 4], event_ids[3 * ASKED // 4 :]

    async def both() -> tuple[list[DecideResponse], list[DecideResponse]]:
        of_a, of_b = await asyncio.gather(ask(a, raced), ask(b, raced))
        of_a += await ask(a, at_a)
        of_b += await ask(b, at_a + at_b)
        return of_a + await ask(a, at_b), of_b

    answers, others = asyncio.run(both())
    assert answers == others
    assert {answer.policy_version for answer in answers} == {"baseline:first", "baseline:uniform"}
    for event_id, answer in zip(event_ids, answers, strict=True):
        # what was answered is in both spools: one of them may be lost
        assert drawn(a, event_id) == drawn(b, event_id) == answer.action_id
    assert sum(core.count("shop").decided for core in (a, b)) == ASKED
    with pytest.raises(EventIdReusedError):
        asyncio.run(b.decide("shop", question("e0", hour=10)))
    for core in (a, b):
        counts = booked(core.settings.spool_path)["decisions"]
        assert {counts[event_id] for event_id in event_ids} == {1}


def test_who_repeats_what_was_erased_leaves_nothing_in_redis(fleet: Fleet) -> None:
    a, _, server = fleet
    asyncio.run(ask(a, ["erased"]))
    with closing(LocalLog(a.settings.spool_path)) as log:
        assert log.redact("decisions", [b"erased"]) == 1
    with redis.Redis.from_url(server.url) as client:
        assert client.delete(answer_key("shop", b"erased")) == 1
        with pytest.raises(ErasedDecisionError):
            asyncio.run(ask(a, ["erased"]))
        assert client.get(answer_key("shop", b"erased")) is None


def test_batches_give_what_stands_too(fleet: Fleet) -> None:
    a, b, _ = fleet
    questions = [question_of(question(f"b{n}"), a.catalogues) for n in range(60)]
    answers = asyncio.run(a.answer_many("shop", questions))
    assert asyncio.run(b.answer_many("shop", [*questions, questions[0]])) == [*answers, answers[0]]


def test_an_id_is_unique_in_its_loop_alone(fleet: Fleet) -> None:
    a, b, _ = fleet
    (shop,), (news,) = asyncio.run(ask(a, ["same"])), asyncio.run(ask(a, ["same"], "news"))
    assert asyncio.run(ask(b, ["same"])) == [shop]
    assert asyncio.run(ask(b, ["same"], "news")) == [news]
    assert (a.explain("same", "shop").loop, a.explain("same", "news").loop) == ("shop", "news")


def with_memory(core: Core) -> None:
    """Put a policy with memory in charge of ``news``, without MLflow."""
    rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
    snapshot = core.snapshot("news")
    core.loops._snapshots["news"] = replace(snapshot, policy=OraclePolicy(oracle(), rule), policy_version="1")


def remembered(core: Core, subject: str) -> list[float] | None:
    looked_up = core.features(core.snapshot("news"))
    found = [{}] if looked_up is None else looked_up.online_many([subject], datetime.now(UTC))
    return found[0].get("session")


def known_everywhere(cores: Sequence[Core], expected: list[list[float]]) -> bool:
    return [remembered(core, "u") for core in cores] == expected


def test_memory(fleet: Fleet) -> None:
    a, b, _ = fleet
    for core in (a, b):
        with_memory(core)

    async def decide(core: Core, event_id: str) -> DecideResponse:
        request = DecideRequest({}, [Action(name) for name in ACTIONS], event_id=event_id, subject_id="u")
        return await core.decide("news", request)

    known = oracle()
    state = known.start()
    for number, (decides, reports) in enumerate(((a, b), (b, a), (a, a), (b, b), (a, b))):
        answer = asyncio.run(decide(decides, f"visit-{number}"))
        asyncio.run(reports.report("news", [OutcomeRequest(answer.event_id, number / 4)]))
        state = known.advance(state, answer.action_id, number / 4)
        expected = [state.tolist()] * 2  # what one machine makes of all that happened
        wait_until(partial(known_everywhere, (a, b), expected), "the outcome to be known")
    seen = [asyncio.run(decide(core, f"next-{name}")).propensity for name, core in (("a", a), ("b", b))]
    records = [core.stored(f"next-{name}", "news")[0] for name, core in (("a", a), ("b", b))]
    assert [msgspec.json.decode(record.feature_snapshot)["session"] for record in records] == [state.tolist()] * 2
    assert records[0].pmf == records[1].pmf
    assert seen == [record.propensity for record in records]


def test_without_redis_every_replica_answers_and_says_so(fleet: Fleet) -> None:
    a, b, redis = fleet
    assert a.answers is not None
    assert b.answers is not None
    online = [core.answers.online for core in (a, b) if core.answers is not None]

    def unpinned() -> float:
        lines = [line for line in exposition().decode().splitlines() if line.startswith("decision_unpinned_total{")]
        return sum(float(line.split()[-1]) for line in lines)

    before = unpinned()
    pinned = asyncio.run(ask(a, ["pinned"]))
    redis.pause()
    assert len(asyncio.run(ask(a, [f"alone{n}" for n in range(40)]))) == 40
    assert len(asyncio.run(ask(b, ["alone0", "alone1"]))) == 2
    assert all(each.away for each in online)
    assert unpinned() - before == 42
    redis.go_on()
    wait_until(lambda: not any(each.away for each in online), "Redis to be asked again")
    assert asyncio.run(ask(b, ["pinned"])) == pinned
    redis.kill()
    assert len(asyncio.run(ask(a, ["x", "y"]))) == 2
    assert unpinned() - before == 44
    redis.start()
    wait_until(lambda: not any(each.away for each in online), "Redis to be asked again")
    assert asyncio.run(ask(a, ["z"])) == asyncio.run(ask(b, ["z"]))
    assert unpinned() - before == 44


def test_what_differs_while_redis_is_away_is_dropped_and_never_booked_wrongly(fleet: Fleet, tmp_path: Path) -> None:
    a, b, redis = fleet
    agreed, alone = [f"agreed{n}" for n in range(20)], [f"lost{n}" for n in range(ASKED // 2)]
    asyncio.run(ask(a, agreed))
    acted_on = asyncio.run(ask(b, agreed))
    redis.kill()
    first = asyncio.run(ask(a, alone))
    second = asyncio.run(ask(b, alone))
    redis.start()
    differ = {one.event_id for one, other in zip(first, second, strict=True) if one.action_id != other.action_id}
    assert len(differ) > len(alone) / 4
    acted_on += second  # only "a" pays
    reports = [OutcomeRequest(answer.event_id, float(answer.action_id == "a")) for answer in acted_on]
    asyncio.run(b.report("shop", reports))
    with closing(LocalLog(tmp_path / "common.db")) as common:
        for topic in TOPICS:
            common.create(topic, 2)
        for core in (a, b):
            with closing(LocalLog(core.settings.spool_path)) as spool:
                forward(spool, common, once=True)
        lake, loop = Lake(tmp_path / "lake"), load_loop(a.settings, "shop", {})
        ingest(common, lake)
    later = datetime.now(UTC) + timedelta(days=1)
    join(lake, loop, later)
    counted = counters(lake, loop, later)
    assert counted.balanced
    taken = {answer.event_id: answer.action_id for answer in acted_on}
    rows = [row for row in lake.interactions("shop").to_pylist() if row["event_id"] in taken]
    assert {row["event_id"] for row in rows} >= set(agreed)
    assert not differ & {row["event_id"] for row in rows}
    assert counted.dropped["conflict"] >= len(differ)
    for row in rows:
        action = row["action_ids"][row["action_index"]]
        assert (action, row["reward"]) == (taken[row["event_id"]], float(action == "a"))
