"""A training on a long log of rare clicks: memory, rows a second, and that every click is learned from.

``python -m tests.soak.long_log [--rows N] [--rate R] [--driver N]`` writes a lake of N decisions over 30 days, each
with ten actions, of which the share R was clicked, and trains on it as `decision train` does, in a process of its own.
VW's driver learns from the first decisions of the same log beside it, as dsjson (``--cb_explore_adf``) and as one line
of text for the drawn action, the least that it can be asked to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats, Ints
from decision.columns import FeatureRows
from decision.features import flatten
from decision.oracles.vw import texts_of
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.training.train import train
from tests.worlds.logged import DAY_US, START_US, append, rows_of
from tests.worlds.synthetic import START, new_loop, new_settings

LOOP, AT_ONCE, DAYS = "clicks", 100_000, 30
ACTIONS = [{"price": round(0.1 * i, 1), "kind": "abcdefgh"[i % 8]} for i in range(10)]


def contexts_of(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    return [
        {f"f{i:02d}": round(value, 3) for i, value in enumerate(row)}
        | {"country": str(rng.choice(["de", "fr", "us"])), "device": str(rng.choice(["ios", "web"]))}
        for row in rng.random((count, 18)).tolist()
    ]


def drawn(rng: np.random.Generator, n: int, rate: float, first: Floats) -> tuple[Ints, Ints, Floats]:
    """Return [n] context, [n] action and [n] reward; a click is likelier where the context's first number is large."""
    context, chosen = rng.integers(0, first.size, n), rng.integers(0, len(ACTIONS), n)
    chance = rate * (0.5 + 2.0 * first[context] * np.array([a["price"] for a in ACTIONS], float)[chosen] / 0.9)
    return context, chosen, (rng.random(n) < chance).astype(np.float64)


def tables(rows: int, rate: float, contexts: list[dict[str, Any]]) -> Iterator[pa.Table]:
    first = np.array([context["f00"] for context in contexts])
    step = DAYS * DAY_US // rows
    for number, start in enumerate(range(0, rows, AT_ONCE)):
        n = min(AT_ONCE, rows - start)
        context, chosen, reward = drawn(np.random.default_rng([1, number]), n, rate, first)
        ts = START_US + (start + np.arange(n)) * step
        yield rows_of(
            LOOP,
            ts=ts,
            reward=reward,
            contexts=contexts,
            context=context,
            actions=ACTIONS,
            chosen=chosen,
            first=start,
            partition=number % 2,
        )


def for_driver(folder: Path, rows: int, rate: float, contexts: list[dict[str, Any]]) -> tuple[Path, Path]:
    """Write the first decisions for VW's driver: as dsjson, and as lines of text."""
    log, text = folder / "log.dsjson", folder / "log.txt"
    said = texts_of(FeatureRows.of([flatten(context, field="c") for context in contexts])).to_pylist()
    done = texts_of(FeatureRows.of([flatten(action, field="a") for action in ACTIONS])).to_pylist()
    places = {msgspec.json.encode(context).decode(): at for at, context in enumerate(contexts)}
    with log.open("w") as lines, text.open("w") as plain:
        for table in tables(rows, rate, contexts):
            columns = [table[name].to_pylist() for name in ("action_index", "reward", "context")]
            for number, (pick, reward, said_as) in enumerate(zip(*columns, strict=True)):
                at = places[said_as]
                order = [pick + 1, *[n for n in range(1, 11) if n != pick + 1]]
                line = {
                    "_label_cost": -reward,
                    "_label_probability": 0.1,
                    "_label_Action": pick + 1,
                    "_labelIndex": pick,
                    "Timestamp": "2026-01-01T00:00:00.0000000Z",
                    "Version": "1",
                    "EventId": f"{number:032x}",
                    "a": order,
                    "c": {"C": contexts[at], "_multi": [{"A": action} for action in ACTIONS]},
                    "p": [0.1] * 10,
                    "VWState": {"m": "1"},
                }
                lines.write(json.dumps(line) + "\n")
                plain.write(f"{'1' if reward > 0 else '-1'} |C {said[at]}|A {done[pick]}\n")
    return log, text


def native(arguments: str) -> float:
    """Return the seconds that VW's driver takes in a process of its own."""
    code = f"from vowpalwabbit import Workspace; w = Workspace({arguments!r}); w.finish()"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def child(home: Path, text: str) -> None:
    """Train, and print what it took."""
    settings = new_settings(home)
    loop, start = new_loop(settings, LOOP, text), time.perf_counter()
    done = train(Lake(settings.lake_path), Registry(settings), loop, seed=1, now=START + timedelta(days=DAYS + 1))
    seconds = time.perf_counter() - start
    # getrusage would count what the parent held when this process was forked from it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {"seconds": seconds, "peak_mb": int(status["VmHWM"].split()[0]) / 1024}
    print(json.dumps(found | {"data": msgspec.to_builtins(done.data), "metrics": done.metrics}))


def trained(home: Path, text: str = "") -> dict[str, Any]:
    """Return what a training in a process of its own took and found."""
    command = [sys.executable, "-m", "tests.soak.long_log", "--child", str(home), "--settings", text]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--driver", type=int, default=200_000)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--settings", default="")
    given = parser.parse_args()
    if given.child:
        child(given.child, given.settings)
        return
    contexts = contexts_of(np.random.default_rng(0), 5_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        append(Lake(folder / "lake"), tables(given.rows, given.rate, contexts))
        log, text = for_driver(folder, given.driver, given.rate, contexts)
        options = f"--cb_explore_adf --cb_type mtr -q CA -b 18 -f {folder}/a.vw"
        plain = f"--quiet -d {text} --loss_function logistic --link logistic -q CA -b 18 -f {folder}/b.vw"
        as_dsjson, as_text = native(f"--quiet --dsjson -d {log} {options}"), native(plain)
        took = trained(folder)
    data = took["data"]
    clicks, rows = sum(day["rewarded"] for day in data["days"]), given.rows / took["seconds"]
    seconds = {"dsjson": given.driver / as_dsjson, "text": given.driver / as_text, "ours": rows}
    print("rows, clicks, learned from, peak MB, rows a second, over VW's driver on dsjson and on text:")
    over = [rows / seconds[kind] for kind in ("dsjson", "text")]
    print(f"{given.rows} {clicks} {data['sampled']} {took['peak_mb']:.0f} {rows:.0f} {over[0]:.2f} {over[1]:.2f}")
    assert all(day["rewarded_rate"] == 1.0 for day in data["days"]), "a click was left out"
    assert took["peak_mb"] < 2_000, "more than 2 GB"
    result = {"name": "long_log", "rows": given.rows, "clicks": clicks, "sampled": data["sampled"]}
    result |= {"peak_mb": round(took["peak_mb"], 1), "rows_per_second": {k: round(v) for k, v in seconds.items()}}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
