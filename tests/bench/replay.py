"""Memory and speed of `decision replay` on logs of many sizes, costs by stage, and two Ray workers against one.

``python -m tests.bench.replay``; ``QUICK=1`` for less, ``ROWS=20000000`` for the largest log, ``RAY=0`` without Ray,
``TURNS=8`` to take the best of eight where the machine is busy.
The peak of memory is that of the whole process, its imports included, as the kernel tells it. Stages are those of one
thread on a log with three context features and five actions: what a replay does there is done here, timed apart.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.rows import Rows
from decision.policy import UniformPolicy
from pipelines.formats.rows import complete
from pipelines.formats.store import Imported
from pipelines.lake.features import with_features
from pipelines.lake.schemas import INTERACTIONS
from pipelines.replay.models import LEARNED, RewardModel, crossfit_of, reward_models
from pipelines.replay.passes import Job, extent_unit, survey_unit
from pipelines.replay.policy import PolicySpec
from pipelines.replay.rows import Loaded, group_of_hash, load
from pipelines.replay.source import COLUMNS, FileSource

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

QUICK = os.environ.get("QUICK") == "1"
LARGEST = int(os.environ.get("ROWS", "60000" if QUICK else "2000000"))
WITH_RAY = os.environ.get("RAY", "1") == "1"
STAGES: list[str] = ["read", "features", "models", "predict", "estimate"]
CHUNK, ACTIONS = (20_000 if QUICK else 200_000), 5


def written(home: Path, name: str, rows: int, *, features: bool = False) -> None:
    """Write an import of `rows` decisions, five actions each, with whole distributions; `features` on demand."""
    folder = home / "imports" / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(rows)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    template = _chunk(rng, min(CHUNK, rows), start)
    with pq.ParquetWriter(folder / "interactions.parquet", INTERACTIONS, compression="zstd") as writer:
        for first in range(0, rows, CHUNK):
            n = min(CHUNK, rows - first)
            if len(template) != n:
                template = _chunk(rng, n, start)
            columns = _drawn(rng, pc.list_flatten(template["pmf"]).to_numpy().reshape(n, ACTIONS))
            columns["event_id"] = [f"e{first + row:010d}" for row in range(n)]
            if features:
                columns |= _features(rng, n)
            table = template
            for column, values in columns.items():
                at = INTERACTIONS.get_field_index(column)
                table = table.set_column(at, INTERACTIONS.field(at), pa.array(values, INTERACTIONS.field(at).type))
            writer.write_table(with_features(table))
    note = Imported(name=name, format="bench", source="bench", rows=rows, with_pmf=rows, first=None, last=None)
    (folder / "import.json").write_bytes(msgspec.json.encode(note))


def _chunk(rng: np.random.Generator, n: int, start: datetime) -> pa.Table:
    pmf = 0.9 * rng.dirichlet(np.ones(ACTIONS) * 2.0, size=n) + 0.1 / ACTIONS
    columns: dict[str, Any] = {
        "event_id": [""] * n,
        "ts": [start + timedelta(seconds=int(second)) for second in rng.integers(86_400, size=n)],
        "action_ids": [list("abcde")] * n,
        "pmf": list(pmf),
    }
    return complete(columns | _drawn(rng, pmf), n)


def _features(rng: np.random.Generator, n: int) -> dict[str, Any]:
    country, hour, score = rng.integers(20, size=n), rng.integers(24, size=n), rng.random(n).round(4)
    drawn = zip(country.tolist(), hour.tolist(), score.tolist(), strict=True)
    actions = json.dumps([{"name": f"n{a}", "size": a / 10} for a in range(ACTIONS)])
    context = [f'{{"country":"c{a}","hour":{b},"score":{c!r}}}' for a, b, c in drawn]
    return {"context": context, "actions": [actions] * n}


def _drawn(rng: np.random.Generator, pmf: Any) -> dict[str, Any]:
    # Only the distributions are written again and again: the same draws would make chance look like a fault.
    n = len(pmf)
    action = (rng.random(n)[:, None] > pmf.cumsum(1)).sum(1).clip(0, ACTIONS - 1)
    reward = (rng.random(n) < 0.1 + 0.1 * action).astype(np.float64)
    return {"action_index": action, "propensity": pmf[np.arange(n), action], "reward": reward}


def replayed(home: Path, name: str, *more: str) -> dict[str, Any]:
    """Run the command in a process of its own; return its result, seconds and peak memory in MB."""
    script = (
        "import resource, sys, time; from pipelines.commands.outcome import console; started = time.perf_counter();\n"
        "from pipelines.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n"
        "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "    print(f'PEAK {peak:.1f} {time.perf_counter() - started:.3f}', file=sys.stderr)\n"
    )
    command = ["replay", name, "--reward-model", "means", "--home", str(home), "--json", *more]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    peak, seconds = done.stderr.split("PEAK ")[1].split()[:2]
    return {"result": json.loads(done.stdout), "peak_mb": float(peak), "seconds": float(seconds)}


def staged(path: Path, kind: RewardModel, *, dictionaries: bool = False) -> dict[str, float]:
    """Return the CPU seconds of every stage of a replay of the uniform policy, in one thread.

    Args:
        path: of the log.
        kind: the reward model.
        dictionaries: predict from one dictionary per row, as the reference.
    """
    spent = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        spent[name] += time.process_time() - began

    source, policy = FileSource(str(path)), UniformPolicy()
    job = Job(source=source, policy=PolicySpec(kind="uniform", name="uniform"), robust=True, sampled=COLUMNS)
    with stage("read"):
        extent = reduce(add, (extent_unit(job, unit) for unit in source.units()))
    job = replace(job, extent=extent)
    with stage("models"):
        survey = reduce(add, (survey_unit(job, unit) for unit in source.units()))
        crossfit = crossfit_of(survey.sampled(), kind)
        models = reward_models(survey, None if crossfit is None else crossfit.models())
        oracles = models.loaded_oracles()
    plan, total = Plan(low=0.0, high=1.0, robust=True, buckets=0), None
    for unit in source.units():
        batches = source.batches(unit)
        while True:
            with stage("read"):
                table = next(batches, None)
            if table is None:
                break
            with stage("features"):
                loaded = load(table, features=kind in LEARNED, counted=False)
            if dictionaries:
                loaded = _in_dictionaries(loaded)
            with stage("predict"):
                predicted = models.predict(loaded, oracles)
            with stage("estimate"):
                pmf = policy.pmf(loaded.interactions.batch)
                rows = Rows.of(loaded.interactions, pmf, predicted.expected, robust=predicted.robust)
                group = group_of_hash(loaded.hashed, plan.bootstrap)
                part = evaluation_sums(Shard(rows=rows, group=group), plan)
                total = part if total is None else total + part
    return spent


def _in_dictionaries(loaded: Loaded) -> Loaded:
    log = loaded.interactions
    batch = replace(log.batch, contexts=list(log.batch.contexts), actions=list(log.batch.actions))
    return replace(loaded, interactions=replace(log, batch=batch))


def _stages(home: Path, rows: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return ratios and the microseconds of CPU a decision by stage and reward model."""
    written(home, "features", rows, features=True)
    path = home / "imports" / "features" / "interactions.parquet"
    detail: dict[str, Any] = {}
    for kind in ("means", "vw", "logistic"):
        detail[kind] = staged(path, kind)
    whole = {kind: sum(spent.values()) for kind, spent in detail.items()}
    ratios = {f"{kind} over means": round(whole[kind] / whole["means"], 2) for kind in LEARNED}
    reference = staged(path, "vw", dictionaries=True)
    ratios["predicting from dictionaries over columns, vw"] = round(reference["predict"] / detail["vw"]["predict"], 2)
    shown = {kind: {name: round(1e6 * part / rows, 2) for name, part in of.items()} for kind, of in detail.items()}
    return ratios, {"microseconds a decision": shown, "rows": rows}


def _two_workers(home: Path, name: str) -> dict[str, float]:
    """Return the best wall seconds of one and of two workers, taken in turns, and of the start of the cluster."""
    script = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "from pipelines.replay.replay import Options, replay_log\nfrom pipelines.engines.registry import engine_of\n"
        "from pipelines.replay.policy import PolicySpec\nfrom pipelines.replay.source import FileSource\n"
        "source, spec = FileSource(sys.argv[1]), PolicySpec(kind='uniform', name='uniform')\n"
        "options = Options(reward_model='means', check=False)\n"
        "def timed(workers):\n"
        "    started = time.perf_counter()\n"
        "    replay_log(source, spec, options, log='x', engine=engine_of('ray', workers=workers))\n"
        "    return time.perf_counter() - started\n"
        "out = {'two, with the start of Ray and of its workers': timed(2)}\n"
        "for turn in range(int(sys.argv[2])):\n"
        "    for workers in (1, 2):\n"
        "        out[str(workers)] = min(out.get(str(workers), 1e9), timed(workers))\n"
        "print(json.dumps(out))\n"
    )
    path = home / "imports" / name / "interactions.parquet"
    command = [sys.executable, "-c", script, str(path), os.environ.get("TURNS", "3")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Run the benchmark and print its line."""
    ratios: dict[str, float] = {}
    detail: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        home = Path(folder)
        sizes = [LARGEST // 10, LARGEST // 4, LARGEST]
        for rows in sizes:
            started = time.perf_counter()
            written(home, f"log-{rows}", rows)
            print(f"{rows} rows written in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        peaks: list[float] = []
        for rows in sizes:
            found = replayed(home, f"log-{rows}")
            peaks.append(found["peak_mb"])
            detail[f"{rows} rows"] = {"seconds": found["seconds"], "peak_mb": found["peak_mb"]}
            detail[f"{rows} rows"]["dr"] = found["result"]["estimates"]["dr"]["value"]
            print(f"{rows} rows {detail[f'{rows} rows']}", file=sys.stderr, flush=True)
        ratios["peak memory, ten times the rows over the rows"] = round(peaks[-1] / peaks[0], 3)
        more, detail["stages"] = _stages(home, 10_000 if QUICK else min(LARGEST, 200_000))
        ratios |= more
        if WITH_RAY:
            taken = _two_workers(home, f"log-{sizes[1] if LARGEST > 5_000_000 else LARGEST}")
            ratios["two Ray workers over one"] = round(taken["1"] / taken["2"], 3)
            detail["ray_seconds"] = taken
    detail["cores"] = os.cpu_count()
    detail["own_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({"name": "replay", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
