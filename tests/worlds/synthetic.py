"""A loop with a known truth, played as records on a real log: the right one of three actions pays .8, others .1."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zlib
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from decision.batch import Batch, one
from decision.draw import draw, seed_of
from decision.policy import UniformPolicy
from decision.protocols import Policy
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.registry.tracking import Tracking
from pipelines.settings import LoopSettings, Settings, load_settings, parse_loop

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("red", "green", "blue")
GOOD, BAD = 0.8, 0.1
LATER = START + timedelta(days=2)
"""When every reward window of a played loop is over."""


def new_settings(home: Path) -> Settings:
    """Return settings for an installation in `home`, whose registry is there already: making one takes seconds."""
    settings = load_settings({}, home=str(home))
    shutil.copy(_empty_registry(), settings.root / "mlflow.db")
    return settings


@cache
def _empty_registry() -> Path:
    made = Path(tempfile.mkdtemp(prefix="registry-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    settings = load_settings({}, home=str(made))
    with Tracking(settings).client():
        return made / "mlflow.db"


def new_loop(settings: Settings, name: str, text: str = "[gate]\nminimum_ess = 5\nmargin = 0.0") -> LoopSettings:
    """Return the loop `name` with the settings in the TOML `text`, its file written; logs here are short."""
    path = settings.loop_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return parse_loop(text, name, {})


def open_parts(settings: Settings) -> tuple[LocalLog, Lake]:
    log = LocalLog(settings.spool_path)
    for topic in (DECISIONS, OUTCOMES):
        log.create(topic, settings.partitions)
    return log, Lake(settings.lake_url)


def batch_of(kind: str) -> Batch:
    return one({f"kind={kind}": 1.0}, [{f"colour={colour}": 1.0} for colour in KINDS], list(KINDS))


def name_of(test: str) -> str:
    """Return a loop name for a test's own loop; the data of a loop depend on its name alone."""
    return f"loop-{zlib.crc32(test.encode())}"


def play(
    log: LocalLog,
    loop: str,
    n: int,
    *,
    first: int = 0,
    policy: Policy | None = None,
    version: str = "baseline:uniform",
) -> None:
    """Append `n` decisions of `policy` (uniform by default), numbered from `first`, and their outcomes to the log."""
    policy = policy or UniformPolicy()
    pmfs = {kind: policy.pmf(batch_of(kind)).tolist() for kind in KINDS}
    actions = msgspec.Raw(msgspec.json.encode([{"colour": colour} for colour in KINDS]))
    decisions, outcomes = [], []
    for number in range(first, first + n):
        event_id = f"{loop}-{number}"
        rng = np.random.default_rng([number, zlib.crc32(loop.encode())])
        kind = KINDS[int(rng.integers(3))]
        seed = seed_of(loop, event_id)
        index = draw(pmfs[kind], seed)
        ts = START + timedelta(seconds=number)
        decision = Decision(
            schema_version=SCHEMA_VERSION,
            loop=loop,
            event_id=event_id,
            ts=ts,
            context=msgspec.Raw(msgspec.json.encode({"kind": kind})),
            actions=actions,
            action_ids=list(KINDS),
            pmf=pmfs[kind],
            action_index=index,
            propensity=pmfs[kind][index],
            policy_version=version,
            baseline_version="uniform",
            seed=seed,
        )
        decisions.append((event_id.encode(), encode(decision), ()))
        if rng.random() < (GOOD if KINDS[index] == kind else BAD):
            reward = Outcome(
                schema_version=SCHEMA_VERSION, loop=loop, event_id=event_id, value=1.0, ts=ts + timedelta(seconds=5)
            )
            outcomes.append((event_id.encode(), encode(reward), ()))
    log.append_many(DECISIONS, decisions)
    log.append_many(OUTCOMES, outcomes)


def settle(log: LocalLog, lake: Lake, loop: LoopSettings) -> None:
    """Ingest everything and join it when every reward window is over."""
    ingest(log, lake)
    join(lake, loop, LATER)


def value_of(policy: Policy) -> float:
    """Return the true reward per decision of `policy`."""
    return float(
        np.mean([policy.pmf(batch_of(kind)) @ [GOOD if colour == kind else BAD for colour in KINDS] for kind in KINDS])
    )
