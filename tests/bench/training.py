"""Training from a log, against VW's own driver on the same file.

The file is a dsjson log, as Azure Personalizer and VW's reinforcement learning library write it: 10 actions, 20 context
features and 2 features an action. Both read it from disk and learn from the drawn action: the driver by ``--dsjson
--cb_explore_adf --cb_type mtr -q``, ours as `decision train LOOP --dsjson FILE` does, chunk by chunk.
The default oracle, ``logistic``, learns from the same file in the same way.
``text`` is the driver on the same events written as one line of VW text for the drawn action: the least that VW can be
asked to do. ``python tests/bench/training.py``, ``QUICK=1`` for under a minute.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from decision.columns import FeatureRows
from decision.features import flatten
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.oracles.vw import texts_of
from decision.protocols import FitsChunks
from pipelines.scratch import scratch
from pipelines.training.dsjson import CHUNK, chunks

QUICK = os.environ.get("QUICK") == "1"
EVENTS, ROUNDS = (20_000, 2) if QUICK else (1_000_000, 2)
FLAT = (EVENTS // 4, EVENTS // 2, EVENTS)


def write(folder: Path) -> tuple[Path, Path]:
    """Write the events as dsjson, and as text lines of the drawn actions."""
    rng = random.Random(1)
    log, text = folder / "log.dsjson", folder / "log.txt"
    kinds = [
        [{"A": {"price": round(rng.random(), 3), "kind": rng.choice("abcdefgh")}} for _ in range(10)]
        for _ in range(200)
    ]
    start = 1_767_225_600
    with log.open("w") as lines, text.open("w") as plain:
        for number in range(EVENTS):
            context = {f"f{i:02d}": round(rng.random(), 3) for i in range(18)}
            context |= {"country": rng.choice(["de", "fr", "us"]), "device": rng.choice(["ios", "web"])}
            multi = kinds[rng.randrange(200)]
            pick = rng.randrange(10)
            cost = -float(rng.random() < 0.1 + 0.3 * float(context["f00"]) * float(multi[pick]["A"]["price"]))
            order = [pick + 1, *[n for n in range(1, 11) if n != pick + 1]]
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start + number))
            line = {
                "_label_cost": cost,
                "_label_probability": 0.1,
                "_label_Action": pick + 1,
                "_labelIndex": pick,
                "Timestamp": f"{at}.0000000Z",
                "Version": "1",
                "EventId": f"{number:032x}",
                "a": order,
                "c": {"C": context, "_multi": multi},
                "p": [0.1] * 10,
                "VWState": {"m": "1"},
            }
            lines.write(json.dumps(line) + "\n")
            chosen = flatten(multi[pick]["A"], field="a")
            said, done = texts_of(FeatureRows.of([flatten(context, field="c"), chosen])).to_pylist()
            plain.write(f"{'1' if cost < 0 else '-1'} |C {said}|A {done}\n")
    return log, text


def native(arguments: str) -> float:
    """Return the seconds that VW's driver takes in a process of its own."""
    code = f"from vowpalwabbit import Workspace; w = Workspace({arguments!r}); w.finish()"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def ours(kind: str, path: Path, events: int) -> float:
    """Return the seconds that our pipeline takes, in this process."""
    start = time.perf_counter()
    oracle = new_oracle(OracleSettings(kind=kind, passes=1))
    read = (chunk for chunk, _ in islice(chunks(path), -(-events // CHUNK)))
    if isinstance(oracle, FitsChunks):
        with scratch() as place:
            oracle.fit_chunks(read, place=place)
    else:
        for chunk in read:
            oracle.fit(chunk)
    oracle.save()
    return time.perf_counter() - start


def peak_mb(kind: str, path: Path, events: int) -> float:
    """Return the peak resident memory of a process that trains on the first `events`."""
    code = (
        f"import sys; sys.argv = ['training', 'child', {kind!r}, {str(path)!r}, '{events}']; "
        f"import runpy; runpy.run_path({str(Path(__file__))!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _peak_kb() -> int:
    # getrusage would count what the parent held when this process was forked from it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        ours(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        print(_peak_kb() / 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        log, text = write(Path(name))
        adf = f"--quiet --dsjson -d {log} --cb_explore_adf --cb_type mtr -q CA -b 18 -f {name}/a.vw"
        plain = f"--quiet -d {text} --loss_function logistic --link logistic -q CA -b 18 -f {name}/b.vw"
        times: dict[str, list[float]] = {"vw": [], "logistic": [], "native_dsjson": [], "native_text": []}
        for _ in range(ROUNDS):
            times["native_dsjson"].append(native(adf))
            times["vw"].append(ours("vw", log, EVENTS))
            times["logistic"].append(ours("logistic", log, EVENTS))
            times["native_text"].append(native(plain))
        memory = {kind: {str(n): round(peak_mb(kind, log, n), 1) for n in FLAT} for kind in ("vw", "logistic")}
    middle = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        "time_over_native_dsjson": round(middle["vw"] / middle["native_dsjson"], 3),
        "time_over_native_text": round(middle["vw"] / middle["native_text"], 3),
        "logistic_time_over_native_dsjson": round(middle["logistic"] / middle["native_dsjson"], 3),
        "memory_whole_over_quarter": round(memory["vw"][str(FLAT[-1])] / memory["vw"][str(FLAT[0])], 3),
        "logistic_memory_whole_over_quarter": round(
            memory["logistic"][str(FLAT[-1])] / memory["logistic"][str(FLAT[0])], 3
        ),
    }
    detail = {"events": EVENTS, "seconds": {k: round(v, 2) for k, v in middle.items()}, "peak_mb": memory}
    print(json.dumps({"name": "training", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
