"""Evaluation against bare numpy, and against the Open Bandit Pipeline where an environment with it is named.

``OBP_PYTHON=PYTHON python -m tests.bench.evaluation``; PYTHON has obp 0.5.7, see infra/docs/evaluation.md.
OBP's time for 1,000 replicates is measured at 1,000 with ``FULL=1``, else at fewer and scaled up: it is proportional
to the replicates, each of which it resamples row by row.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from decision.batch import Batch, Floats, Interactions
from decision.ope.evaluation.family import Plan, Shard
from decision.ope.evaluation.results import results
from decision.ope.evaluation.sums import evaluation_sums
from decision.ope.quick import ips_snips_dr
from decision.ope.rows import Rows

QUICK = os.environ.get("QUICK") == "1"
ROWS = 50_000 if QUICK else 1_000_000
ACTIONS, REPLICATES, ROUNDS = 5, 1_000, 5
PROBE = REPLICATES if os.environ.get("FULL") == "1" else 5


def log_of(n: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Return a log of n rows with five actions."""
    logging = rng.dirichlet(np.ones(ACTIONS) * 2.0, size=n)
    logging = 0.9 * logging + 0.1 / ACTIONS
    policy = rng.dirichlet(np.ones(ACTIONS), size=n)
    action = (rng.random(n)[:, None] > logging.cumsum(1)).sum(1).clip(0, ACTIONS - 1)
    expected = rng.random((n, ACTIONS))
    reward = (rng.random(n) < expected[np.arange(n), action]).astype(np.float64)
    pscore = logging[np.arange(n), action]
    return {
        "policy": policy,
        "action": action,
        "expected": expected,
        "reward": reward,
        "pscore": pscore,
        "pmf": logging,
    }


def ours(log: dict[str, Any]) -> dict[str, float]:
    """Return the whole family with 1,000 replicates, from the arrays of a log."""
    n = len(log["reward"])
    empty: Any = {}
    batch = Batch([empty] * n, [empty] * (n * ACTIONS), [""] * (n * ACTIONS), np.arange(n + 1) * ACTIONS)
    chosen = np.arange(n) * ACTIONS + log["action"]
    interactions = Interactions(batch, chosen, log["pscore"], log["reward"], log["pmf"].ravel())
    rows = Rows.of(interactions, log["policy"].ravel(), log["expected"].ravel())
    plan = Plan(low=0.0, high=1.0, buckets=0)
    group = np.random.default_rng(0).integers(plan.bootstrap, size=n)
    found = results(evaluation_sums(Shard(rows=rows, group=group), plan), plan, count=REPLICATES)
    out = {name: estimate.value for name, estimate in found.estimates.items() if estimate is not None}
    out |= {f"{name}@10": found.by_parameter[name][10.0].value for name in ("clipped", "switch_dr", "dros")}
    return out


def bare(weights: Floats, reward: Floats, direct: Floats, fitted: Floats) -> Any:
    """The three estimators with their standard errors in plain numpy, as an analyst would write them."""
    n = len(weights)
    wr = weights * reward
    total = weights.sum()
    ratio = wr.sum() / total
    dr = direct + weights * (reward - fitted)
    return (
        (wr.mean(), wr.std(ddof=1) / np.sqrt(n)),
        (ratio, np.sqrt((weights**2 * (reward - ratio) ** 2).sum()) / total),
        (dr.mean(), dr.std(ddof=1) / np.sqrt(n)),
        total**2 / (weights**2).sum(),
    )


def fastest(work: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the fastest of `rounds` of both, in alternation."""
    best = [float("inf")] * 2
    for _ in range(rounds):
        for number, call in enumerate((work, other)):
            started = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - started)
    return best[0], best[1]


def main() -> None:
    """Run the benchmark and print its line."""
    rng = np.random.default_rng(7)
    log = log_of(ROWS, rng)
    n = ROWS
    at = (np.arange(n), log["action"].astype(int))
    weights = log["policy"][at] / log["pscore"]
    columns = (weights, log["reward"], (log["policy"] * log["expected"]).sum(1), log["expected"][at])
    quick, plain = fastest(lambda: ips_snips_dr(*columns), lambda: bare(*columns), 4 * ROUNDS)
    ratios = {"ips+snips+dr over bare numpy": round(quick / plain, 3)}
    detail: dict[str, Any] = {"rows": n, "ips_snips_dr_s": quick, "bare_numpy_s": plain}
    started = time.perf_counter()
    values = ours(log)
    family = time.perf_counter() - started
    detail |= {"family_with_bootstrap_s": round(family, 3), "replicates": REPLICATES}
    python = os.environ.get("OBP_PYTHON")
    if python:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.npz"
            np.savez(path, **{name: value for name, value in log.items() if name != "pmf"})
            script = Path(__file__).with_name("obp_reference.py")
            done = subprocess.run(
                [python, "-W", "ignore", str(script), str(path), str(PROBE)], capture_output=True, text=True, check=True
            )
        reference = json.loads(done.stdout.strip().splitlines()[-1])
        started = time.perf_counter()
        values = ours(log)
        family = min(family, time.perf_counter() - started)
        whole = reference["points"] + reference["intervals"] * REPLICATES / PROBE
        ratios["family with 1,000 replicates, obp over ours"] = round(whole / family, 1)
        names = {"ipw": "ips", "snipw": "snips", "clipped": "clipped@10", "dm": "dm", "dr": "dr", "sndr": "sndr"}
        names |= {"switch": "switch_dr@10", "dros": "dros@10"}
        apart = max(abs(reference["values"][theirs] - values[mine]) for theirs, mine in names.items())
        detail |= {"obp_s": round(whole, 1), "obp_replicates_measured": PROBE, "largest_difference": apart}
        detail["family_with_bootstrap_s"] = round(family, 3)
    print(json.dumps({"name": "evaluation", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
