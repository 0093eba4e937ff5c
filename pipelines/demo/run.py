"""The whole loop on real input: traffic over HTTP, late outcomes, nightly training, gates, promotions under load.

Everything is the shipped thing: the service is started as its own process, generations are made by `nightly`, and the
application is a third process that keeps its own journal, against which losses are counted at the end. The world is
a labelled data set, so what each version is worth is known exactly beside what the log says it is.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from decision.artifact import unpack
from pipelines.demo.application import ApplicationProcess, running
from pipelines.demo.open_bandit import study_open_bandit
from pipelines.demo.proof import expected_rewards, prove
from pipelines.demo.result import DemoResult, Generation, Plan
from pipelines.demo.traffic import Habits, read_journal
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.nightly import nightly
from pipelines.operations.init import init_loop
from pipelines.operations.installation import Installation
from pipelines.operations.processes import (
    ServiceError,
    forward_command,
    free_port,
    process,
    serve_command,
    wait_until_ready,
)
from pipelines.operations.waiting import wait_until
from pipelines.progress import Progress, silent
from pipelines.registry.tracking import RegistryError
from pipelines.runs import Run
from pipelines.settings import Settings, load_settings
from simulators.environments.classification import ClassificationWorld, classification_world

LOOP = "digits"
_MATURE_MARGIN_S = 0.3


def run_demo(
    plan: Plan, *, out: Path, home: Path | None = None, console: Console, progress: Progress = silent
) -> DemoResult:
    """Run a demonstration and write its report.

    Args:
        plan: what to do.
        out: folder of the report.
        home: home folder of the installation, kept; None for a temporary one.
        console: where it says what it does.
        progress: told of decisions made.

    Raises:
        FieldError: `home` holds a loop of that name already.
        ServiceError: a process did not start or did not live.
    """
    begun = time.monotonic()
    world = classification_world(LOOP, seed=plan.seed)
    with ExitStack() as stack:
        root = home if home is not None else Path(stack.enter_context(_scratch()))
        folder = root.absolute() / "demo"
        log = "local:" if plan.log == "local" else f"kafka://{stack.enter_context(_broker(folder, console))}"
        settings = load_settings(home=str(root), port=free_port(), host="127.0.0.1", reload_s=0.3, log=log)
        parts = stack.enter_context(Installation(settings))
        init_loop(settings, LOOP, values=_loop_values(plan))
        folder.mkdir(exist_ok=True)
        journal = folder / "journal.ndjson"
        with ExitStack() as processes:
            application = _start(processes, plan, settings, journal, console)
            # Its seconds pass while the first decisions are made; an error shows again where the registry is used.
            threading.Thread(target=_opened, args=(parts,), daemon=True).start()
            generations = _generations(plan, parts, world, application, console, progress)
            _burst(application, plan.farewell, "under the last champion", console, progress)
            application.stop()
            time.sleep(plan.window_s + _MATURE_MARGIN_S)
            _drain(settings)
            console.print("closing the books", style="bold")
            ingest(parts.log, parts.lake, loops=parts.loops, progress=progress)
            join(parts.lake, parts.loop(LOOP), datetime.now(UTC), progress=progress)
        entries = read_journal(journal)
        proof = prove(parts.lake, parts.registry, LOOP, entries, application.status)
        expected = expected_rewards(entries)
        studies: list[Any] = []
        if plan.open_bandit:
            console.print("Open Bandit logs", style="bold")
            studies = study_open_bandit(settings, progress=lambda text: console.print(f"  {text}", highlight=False))
        out.mkdir(parents=True, exist_ok=True)
        report = out / "demo.html"
        result = DemoResult(
            plan=plan,
            world=world.name,
            uniform=world.uniform_value,
            optimum=world.optimum,
            generations=generations,
            champion=parts.registry.aliases(LOOP).get("champion"),
            counters=counters(parts.lake, parts.loop(LOOP), datetime.now(UTC), in_full=True),
            proof=proof,
            regret=float((world.optimum - expected).sum()),
            regret_uniform=(world.optimum - world.uniform_value) * len(expected),
            open_bandit=studies,
            report=str(report),
            seconds=time.monotonic() - begun,
        )
        from pipelines.demo.report import demo_report

        report.write_text(demo_report(result, entries, parts.lake.decisions(LOOP), _last_replay(parts, result)))
    return msgspec.structs.replace(result, seconds=time.monotonic() - begun)


def _loop_values(plan: Plan) -> dict[str, Any]:
    return {
        "reward.window_s": plan.window_s,
        "policy.floor": plan.floor,
        "training.holdout": plan.holdout,
        "gate.margin": plan.margin,
        "gate.minimum_ess": plan.minimum_ess,
    }


def _start(processes: ExitStack, plan: Plan, settings: Settings, journal: Path, console: Console) -> ApplicationProcess:
    output = journal.with_name("service.log")
    console.print("starting the service", style="bold")
    service = processes.enter_context(process("service", serve_command(settings), settings, output))
    if settings.log != "local:":
        forwarder = journal.with_name("forwarder.log")
        processes.enter_context(process("forwarder", forward_command(), settings, forwarder))
    url = f"http://{settings.host}:{settings.port}/v1/loops/{LOOP}"
    habits = Habits(delay_s=0.5 * plan.window_s, late_s=1.5 * plan.window_s)
    # Started beside the service: both take seconds to import what they need.
    application = processes.enter_context(running(url, world=LOOP, seed=plan.seed, journal=journal, habits=habits))
    seconds = wait_until_ready(service, settings, output)
    console.print(f"  ready after {seconds:.1f} s at http://{settings.host}:{settings.port}", highlight=False)
    return application


def _opened(parts: Installation) -> None:
    with suppress(RegistryError):
        parts.registry.open()


def _generations(
    plan: Plan,
    parts: Installation,
    world: ClassificationWorld,
    application: ApplicationProcess,
    console: Console,
    progress: Progress,
) -> list[Generation]:
    found: list[Generation] = []
    for number in range(1, plan.generations + 1):
        console.print(f"generation {number} of {plan.generations}", style="bold")
        _burst(application, plan.decisions, application.status.version or "baseline", console, progress)
        application.trickle(plan.per_second)  # the load goes on while the generation is made
        time.sleep(plan.window_s + _MATURE_MARGIN_S)
        _drain(parts.settings, all_of_it=False)
        run = nightly(
            parts.settings,
            parts.log,
            parts.lake,
            parts.registry,
            parts.loop(LOOP),
            now=datetime.now(UTC),
            seed=plan.seed,
            progress=progress,
        )
        promoted_at = time.monotonic()
        switch_s = None
        if run.verdict == "promoted":
            version = (run.result("train") or {})["version"]
            application.wait(lambda status, v=version: status.version == v, moves=lambda status: status.version)
            switch_s = time.monotonic() - promoted_at
        generation = _measured(run, parts, world, switch_s)
        found.append(generation)
        word = "promoted" if generation.promoted else "refused"
        console.print(
            f"  version {generation.version}: worth {generation.value:.3f} [{generation.low:.3f}, "
            f"{generation.high:.3f}] by the log, {generation.true_value:.3f} in truth; greedy accuracy "
            f"{generation.greedy_accuracy:.3f}; {word}",
            highlight=False,
            markup=False,
        )
    return found


def _measured(run: Run, parts: Installation, world: ClassificationWorld, switch_s: float | None) -> Generation:
    trained, evaluated, promoted = (run.result(step) or {} for step in ("train", "evaluate", "promote"))
    if "version" not in evaluated:
        raise ServiceError(f"the generation was not evaluated: {trained.get('skipped') or evaluated.get('skipped')}")
    policy, _ = unpack(parts.registry.files(LOOP, trained["version"]))
    batch = world.batch(world.heldout)
    scores = policy.scores(batch)
    estimate = next(value["dr"] for value in evaluated["values"] if value["role"] == "version")
    return Generation(
        version=trained["version"],
        learned_from=trained["rows"],
        value=estimate["value"],
        low=estimate["low"],
        high=estimate["high"],
        true_value=world.value(policy.pmf_of(scores, batch), world.heldout),
        greedy_accuracy=world.greedy_accuracy(scores, world.heldout),
        lift=evaluated["lift_estimate"]["value"],
        lift_bound=promoted["numbers"].get("lower_bound"),
        promoted=promoted["promoted"],
        reasons=promoted["reasons"],
        switch_s=switch_s,
    )


def _last_replay(parts: Installation, result: DemoResult) -> Any:
    """Return the replay of the champion on its holdout, None while the baseline is in charge."""
    from pipelines.replay.replay import replay
    from pipelines.training.window import window

    if result.champion is None:
        return None
    policy, _ = unpack(parts.registry.files(LOOP, result.champion))
    rows = window(parts.lake, parts.loop(LOOP)).holdout
    return replay(rows, policy, log=LOOP, policy_name=f"version {result.champion}", check=False)


def _burst(application: ApplicationProcess, count: int, under: str, console: Console, progress: Progress) -> None:
    start = application.status.decided
    application.burst(count, lambda status: progress(f"decisions, {under}", min(count, status.decided - start), count))
    console.print(f"  {count} decisions, {under}; {application.status.failed} failed requests", highlight=False)


def _drain(settings: Settings, *, all_of_it: bool = True) -> None:
    """Wait until the forwarder has copied what the spool held; with a local log there is nothing to copy."""
    if settings.log == "local:":
        return
    from pipelines.ingestion.forward import lags
    from pipelines.log.sqlite.log import LocalLog

    source = LocalLog(settings.spool_path)
    try:
        most = 0 if all_of_it else 100

        def left() -> int | None:
            found = lags(source)
            return sum(sum(lag.values()) for lag in found.values()) if found else None

        def forwarded() -> list[dict[tuple[str, int], int]]:
            return [source.positions(reader) for reader in source.readers()]

        wait_until(lambda: (lag := left()) is not None and lag <= most, "the forwarder", progress=forwarded)
    finally:
        source.close()


@contextmanager
def _scratch() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="decision-demo-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _broker(folder: Path, console: Console) -> Iterator[str]:
    from pipelines.operations.kafka_server import kafka_server

    console.print("starting a Kafka broker", style="bold")
    with kafka_server(folder / "kafka") as bootstrap:
        console.print(f"  at {bootstrap}", highlight=False)
        yield bootstrap
