"""From the event log to the lake, against a consumer that reads the same log and only counts bytes.

Decisions of 1.2 KB with 10 of 60 actions, 20 context features and their full distributions, in two partitions. Both
sides read the same messages, in alternation; ours decodes and checks every record, looks for repeated ones, flattens
contexts into columns, writes Parquet and commits. ``local`` is ours with one worker per core; ``local_one_process`` and
``kafka`` with a single one. ``microseconds_by_stage`` says where the processor's time goes. ``python
tests/bench/ingest.py``, ``QUICK=1`` for under a minute.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec
import pyarrow as pa

from decision.draw import draw, seed_of
from decision.records import SCHEMA_VERSION, Decision, encode
from pipelines.ingestion.columns import decision_columns
from pipelines.ingestion.ingest import Ingested, ingest
from pipelines.ingestion.parse import parse_decisions
from pipelines.ingestion.workers import IngestWorkers
from pipelines.lake.features import with_features
from pipelines.lake.lake import Lake
from pipelines.log.open import open_log
from pipelines.log.protocol import DECISIONS, TOPICS, EventLog, Item, Stretch
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.kafka_server import KafkaServerError, kafka_server, missing_parts

QUICK = os.environ.get("QUICK") == "1"
MESSAGES, ROUNDS = (20_000, 2) if QUICK else (500_000, 9)
KAFKA_MESSAGES, KAFKA_ROUNDS = (10_000, 2) if QUICK else (150_000, 5)
DISTINCT = 5_000
PARTITIONS = 2
WORKERS = min(PARTITIONS, os.cpu_count() or 1)


def decisions() -> list[Decision]:
    """Return decisions as the service would log them."""
    rng, start = random.Random(1), datetime(2026, 1, 1, tzinfo=UTC)
    catalogue = [f"article-{n}" for n in range(60)]
    made: list[Decision] = []
    for n in range(DISTINCT):
        context: dict[str, object] = {f"f{i:02d}": round(rng.random(), 4) for i in range(17)}
        context |= {"country": rng.choice(["de", "fr", "us"]), "device": rng.choice(["ios", "web"]), "hour": n % 24}
        actions = [{"price": round(rng.random(), 3), "kind": rng.choice("abc")} for _ in range(10)]
        weights = [rng.random() for _ in range(10)]
        pmf = [weight / sum(weights) for weight in weights]
        made.append(
            Decision(
                schema_version=SCHEMA_VERSION,
                loop="bench",
                event_id="",
                ts=start,
                subject_id=f"s{rng.randrange(10_000)}",
                context=msgspec.Raw(msgspec.json.encode(context)),
                actions=msgspec.Raw(msgspec.json.encode(actions)),
                action_ids=rng.sample(catalogue, 10),
                pmf=pmf,
                action_index=0,
                propensity=pmf[0],
                policy_version="3",
                baseline_version="uniform",
                seed=0,
            )
        )
    return made


def messages(count: int) -> Iterator[Item]:
    """Yield `count` decisions with their own ids, times and draws."""
    rng, templates = random.Random(2), decisions()
    for n in range(count):
        event_id, template = f"{rng.getrandbits(128):032x}", templates[n % DISTINCT]
        seed = seed_of("bench", event_id)
        index = draw(template.pmf, seed)
        record = msgspec.structs.replace(
            template,
            event_id=event_id,
            ts=template.ts + timedelta(milliseconds=n),
            seed=seed,
            action_index=index,
            propensity=template.pmf[index],
        )
        yield event_id.encode(), encode(record), ()


def fill(log: EventLog, count: int) -> None:
    for topic in TOPICS:
        log.create(topic, PARTITIONS)
    log.append_many(DECISIONS, messages(count))


def consume(log: EventLog) -> int:
    """Read all decisions and add up their sizes."""
    count = size = 0
    for partition in range(PARTITIONS):
        offset, high = log.watermarks(DECISIONS, partition)
        while offset < high:
            batch = log.read(DECISIONS, partition, offset, wait_s=1.0)
            count += len(batch)
            size += sum(len(message.value) for message in batch)
            offset = batch[-1].offset + 1
    return count


def timed(step: Callable[[], int], count: int) -> float:
    """Return messages per second of `step`."""
    before = time.perf_counter()
    done = step()
    seconds = time.perf_counter() - before
    if done != count:
        raise RuntimeError(f"wanted {count} messages, got {done}")
    return count / seconds


def one_process(log: EventLog, count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: ingest(log, Lake(folder)).decisions, count)


def workers(url: str, count: int) -> float:
    with tempfile.TemporaryDirectory() as folder, IngestWorkers(url, Lake(folder), WORKERS) as pool:
        ingested: list[Ingested] = []
        rate = timed(lambda: ingested.append(pool.run()) or ingested[0].decisions, count)
        if len(Lake(folder).table("decisions").to_pyarrow_table(columns=["offset"])) != count:
            raise RuntimeError("rows are missing")
        return rate


def each(step: Callable[[Any], object], parts: Sequence[object]) -> Callable[[], None]:
    """Return what takes `step` for one of `parts` after another and keeps nothing."""

    def run() -> None:
        for part in parts:
            step(part)

    return run


def stages(log: EventLog, count: int) -> dict[str, float]:
    """Return the processor's microseconds per decision of each stage, the least of three runs."""
    read, parts, at = list[Stretch](), 20, log.watermarks(DECISIONS, 0)[0]
    for _ in range(min(parts, count // PARTITIONS // 1000)):
        read.append(log.read_stretch(DECISIONS, 0, at))
        at = read[-1].offsets[-1] + 1
    rows = sum(map(len, read))
    decode = msgspec.json.Decoder(Decision).decode
    decoded = [list(map(decode, messages.values)) for messages in read]
    table = pa.Table.from_batches([parse_decisions(messages, None).rows for messages in read])

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            Lake(folder).write("decisions", flat)

    flat = with_features(table)
    steps: dict[str, Callable[[], object]] = {
        # one stretch after another, as ingestion goes: many that are held at once cost more, for their memory is new
        "read": each(lambda part: log.read_stretch(DECISIONS, 0, part.offsets[0], max_messages=len(part)), read),
        "decode": each(lambda part: list(map(decode, part.values)), read),
        "columns": each(lambda pair: decision_columns(*pair), list(zip(decoded, read, strict=True))),
        "decode, columns, check": each(lambda part: parse_decisions(part, None), read),
        "features": lambda: with_features(table),
        "write": write,
    }
    spent = dict.fromkeys(steps, float("inf"))
    for _ in range(3):
        for name, step in steps.items():
            before = time.process_time()
            step()
            spent[name] = min(spent[name], (time.process_time() - before) / rows * 1e6)
    return {name: round(each, 2) for name, each in spent.items()}


def compare(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return messages per second of each side, timed in alternation after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            rate = side()
            if number:
                rates[name].append(rate)
                print(f"{name:24s} {rate:12,.0f} messages/s", file=sys.stderr)
    return rates


def ratio(rates: dict[str, list[float]], ours: str, reference: str) -> float:
    """Return the median over rounds of ours by the reference timed just before."""
    return statistics.median(a / b for a, b in zip(rates[ours], rates[reference], strict=True))


def main() -> None:
    ratios: dict[str, float] = {}
    detail: dict[str, object] = {"messages": MESSAGES, "workers": WORKERS, "partitions": PARTITIONS, "rounds": ROUNDS}
    with tempfile.TemporaryDirectory() as folder:
        url = f"local:{folder}/log.db"
        with closing(LocalLog(url.removeprefix("local:"))) as log:
            fill(log, MESSAGES)
            detail["microseconds_by_stage"] = stages(log, MESSAGES)
            rates = compare(
                {
                    "local consumer": lambda: timed(lambda: consume(log), MESSAGES),
                    "local ingest": lambda: workers(url, MESSAGES),
                    "local ingest, 1 process": lambda: one_process(log, MESSAGES),
                },
                ROUNDS,
            )
        ratios["local"] = ratio(rates, "local ingest", "local consumer")
        ratios["local_one_process"] = ratio(rates, "local ingest, 1 process", "local consumer")
        if missing := missing_parts():
            detail["kafka"] = f"not measured: {missing}"
        else:
            try:
                with (
                    kafka_server(Path(folder) / "kafka") as bootstrap,
                    closing(open_log(f"kafka://{bootstrap}")) as log,
                ):
                    fill(log, KAFKA_MESSAGES)
                    sides = {
                        "kafka consumer": lambda: timed(lambda: consume(log), KAFKA_MESSAGES),
                        "kafka ingest": lambda: one_process(log, KAFKA_MESSAGES),
                    }
                    rates |= compare(sides, KAFKA_ROUNDS)
                ratios["kafka"] = ratio(rates, "kafka ingest", "kafka consumer")
            except KafkaServerError as error:
                detail["kafka"] = f"not measured: {error}"
    detail["messages_per_second"] = {name: round(statistics.median(rate)) for name, rate in rates.items()}
    print(json.dumps({"name": "ingest", "ratios": {k: round(v, 3) for k, v in ratios.items()}, "detail": detail}))


if __name__ == "__main__":
    main()
