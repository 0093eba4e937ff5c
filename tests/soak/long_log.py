"""A training on a long log of rare clicks: memory, rows a second, and that every click is learned from.

``python -m tests.soak.long_log [--rows N] [--rate R] [--driver N] [--home DIR]`` writes a lake of N decisions over 30
days, each with ten actions, of which the share R was clicked, and trains on it as `decision train` does, in a process
of its own; a lake that stands in DIR is taken as it is. VW's driver learns beside it, as dsjson (``--cb_explore_adf``)
and as one line of text for the drawn action, the least that it can be asked to do: from the first of all rows, and from
the very sample that the training drew, with its weights. The last column is the rate of the training over the driver's,
or for the sample, the driver's time for it alone over the time of the training, which reads all rows and draws it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.batch import Floats, Ints
from decision.columns import FeatureRows
from decision.features import flatten
from decision.oracles.vw import texts_of
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.training.train import train
from pipelines.training.window import window
from tests.worlds.logged import DAY_US, START_US, append, rows_of
from tests.worlds.synthetic import START, new_loop, new_settings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

LOOP, AT_ONCE, DAYS = "clicks", 100_000, 30
ACTIONS = [{"price": round(0.1 * i, 1), "kind": "abcdefgh"[i % 8]} for i in range(10)]
MODEL = "-q CA -b 18"


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


class Lines:
    """What VW's driver reads of rows of such a log: dsjson, and text of the drawn action."""

    def __init__(self, contexts: list[dict[str, Any]]) -> None:
        """Prepare what there is of each of the `contexts` and actions."""
        said = texts_of(FeatureRows.of([flatten(context, field="c") for context in contexts]))
        self._text = pc.binary_join_element_wise(" |C ", pc.cast(said, pa.string()), "")
        done = texts_of(FeatureRows.of([flatten(action, field="a") for action in ACTIONS]))
        self._drawn = pc.binary_join_element_wise("|A ", pc.cast(done, pa.string()), "")
        encoded = [json.dumps(context) for context in contexts]
        multi = json.dumps([{"A": action} for action in ACTIONS])
        self._dsjson = [f'"c": {{"C": {one}, "_multi": {multi}}}, "p": {[0.1] * 10}, "pdrop": ' for one in encoded]
        self._places = pa.array([msgspec.json.encode(context).decode() for context in contexts])
        self._order = [[n + 1, *[m + 1 for m in range(10) if m != n]] for n in range(10)]

    def text(self, table: pa.Table, weight: Floats) -> bytes:
        """Return a line for each row, which counts `weight` times."""
        label = pa.array(np.where(table["reward"].to_numpy() > 0, "1 ", "-1 "))
        said, drawn = self._text.take(self._place(table)), self._drawn.take(table["action_index"].combine_chunks())
        lines = pc.binary_join_element_wise(label, pa.array(weight).cast(pa.string()), said, drawn, "")
        return ("\n".join(lines.to_pylist()) + "\n").encode()

    def dsjson(self, table: pa.Table, weight: Floats) -> bytes:
        """Likewise."""
        columns = [self._place(table).to_pylist(), table["action_index"].to_pylist(), table["reward"].to_pylist()]
        return "".join(
            f'{{"_label_cost": {-reward}, "_label_probability": 0.1, "_label_Action": {pick + 1}, '
            f'"_labelIndex": {pick}, "Timestamp": "2026-01-01T00:00:00.0000000Z", "Version": "1", '
            f'"EventId": "{number:032x}", '
            f'"a": {self._order[pick]}, {self._dsjson[place]}{1.0 - 1.0 / times}, "VWState": {{"m": "1"}}}}\n'
            for number, (place, pick, reward, times) in enumerate(zip(*columns, weight.tolist(), strict=True))
        ).encode()

    def _place(self, table: pa.Table) -> pa.Array:
        return pc.index_in(table["context"], value_set=self._places).combine_chunks()


def by_driver(folder: Path, lines: Lines, parts: Iterator[tuple[pa.Table, Floats]]) -> tuple[int, dict[str, float]]:
    """Return how many rows `parts` has, and the seconds that VW's driver takes to learn from them in each format."""
    log, text, rows = folder / "log.dsjson", folder / "log.txt", 0
    with log.open("wb") as as_dsjson, text.open("wb") as as_text:
        for table, weight in parts:
            as_dsjson.write(lines.dsjson(table, weight))
            as_text.write(lines.text(table, weight))
            rows += len(table)
    took = {
        "dsjson": native(f"--quiet --dsjson -d {log} --cb_explore_adf --cb_type mtr {MODEL} -f {folder}/a.vw"),
        "text": native(f"--quiet -d {text} --loss_function logistic --link logistic {MODEL} -f {folder}/b.vw"),
    }
    log.unlink()
    text.unlink()
    return rows, took


def sampled(home: Path, text: str) -> Iterator[tuple[pa.Table, Floats]]:
    """Yield the rows that a training learns from, with their weights."""
    settings = new_settings(home)
    rows = window(Lake(settings.lake_url), new_loop(settings, LOOP, text))
    rates = {day.day: (day.rate, day.rewarded_rate) for day in rows.data.days}
    for table in rows.picked():
        days = table["ts"].cast(pa.date32()).to_pylist()
        of = [rates[day.isoformat()][int(paid)] for day, paid in zip(days, table["reward"].to_numpy(), strict=True)]
        yield table, 1.0 / np.array(of)


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
    done = train(Lake(settings.lake_url), Registry(settings), loop, seed=1, now=START + timedelta(days=DAYS + 1))
    seconds = time.perf_counter() - start
    # getrusage would count what the parent held when this process was forked from it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {"seconds": seconds, "peak_mb": int(status["VmHWM"].split()[0]) / 1024}
    print(json.dumps(found | {"data": msgspec.to_builtins(done.data), "metrics": done.metrics}))


def trained(home: Path, text: str = "") -> dict[str, Any]:
    """Return what a training in a process of its own took and found."""
    command = [sys.executable, "-m", "tests.soak.long_log", "--child", str(home), "--settings", text]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--driver", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--settings", default="")
    given = parser.parse_args()
    if given.child:
        child(given.child, given.settings)
        return
    contexts = contexts_of(np.random.default_rng(0), 5_000)
    with nullcontext(given.home) if given.home else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (folder / "lake").exists():
            append(Lake(folder / "lake"), tables(given.rows, given.rate, contexts))
        took = trained(folder, given.settings)
        data, lines = took["data"], Lines(contexts)
        assert data["rows"] == given.rows, "another log"
        clicks, learned = sum(day["rewarded"] for day in data["days"]), data["sampled"]
        print(f"{given.rows} rows, {clicks} clicks, {learned} learned from, peak {took['peak_mb']:.0f} MB", flush=True)
        ours = given.rows / took["seconds"]
        print(f"{'decision train, all rows':<40}{ours:>12,.0f} rows a second", flush=True)
        parts = tables(min(given.driver, given.rows), given.rate, contexts)
        first, all_rows = by_driver(folder, lines, ((part, np.ones(len(part))) for part in parts))
        for kind, seconds in all_rows.items():
            ratio = ours * seconds / first
            print(
                f"VW's driver, {f'the first {first} as {kind}':<40}{first / seconds:>12,.0f}{ratio:>8.2f}", flush=True
            )
        again, alike = by_driver(folder, lines, sampled(folder, given.settings))
        assert again == learned, "another sample"
        for kind, seconds in alike.items():
            ratio = seconds / took["seconds"]
            print(f"VW's driver, {f'the same sample as {kind}':<40}{again / seconds:>12,.0f}{ratio:>8.2f}", flush=True)
    assert all(day["rewarded_rate"] == 1.0 for day in data["days"]), "a click was left out"
    assert took["peak_mb"] < 2_000, "more than 2 GB"
    result = {"name": "long_log", "rows": given.rows, "clicks": clicks, "sampled": learned}
    result |= {"peak_mb": round(took["peak_mb"], 1), "seconds": round(took["seconds"], 1)}
    result |= {"driver_rows": first, "driver_seconds": all_rows, "driver_seconds_of_the_sample": alike}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
