"""A rollout on several machines that share State on PostgreSQL and a server of MLflow: one stops it, all stop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.guard.step import guard
from pipelines.lake.lake import Lake
from pipelines.nightly import nightly
from pipelines.operations.apply import apply
from pipelines.operations.installation import Installation
from pipelines.operations.waiting import wait_until
from pipelines.registry.registry import Registry
from pipelines.runs import runs
from pipelines.settings import Settings, load_loop, load_settings
from pipelines.state import postgresql
from serving.core import Core
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.postgres_server import Postgres, new_database, own_server
from tests.worlds.s3 import BUCKET, S3
from tests.worlds.shop import PAYS, policy, register
from tests.worlds.synthetic import play

TEXT = "[guard]\nenabled = true\nfresh_s = 1.5\n"
RELOAD_S = 0.2


class Rollout:
    """Two replicas in homes of their own, with a candidate at its first weight."""

    def __init__(self, folder: Path, tracking: str, postgres: Postgres) -> None:
        self.tracking, self.state = tracking, new_database(postgres.uri)
        self.a, self.b = (self._settings(folder / name) for name in ("a", "b"))
        apply(self.a, TEXT, "shop", by="ann", environ={})
        registry, made = Registry(self.a), (policy(PAYS["good"], 0.7), policy(PAYS["good"], 0.05))
        for alias, version in zip(("champion", "candidate"), [register(registry, one) for one in made], strict=True):
            registry.set_alias("shop", alias, version, {"verdict": "set", "reasons": ["a test"]})  # type: ignore[arg-type]
        with ExitStack() as opened:
            state = guard(self.a, load_loop(self.a, "shop", {}), Lake(self.a.lake_url), registry, datetime.now(UTC))
            self.weight = state.weight
            self.replicas = [open_core(settings) for settings in (self.a, self.b)]
            for replica in self.replicas:
                opened.callback(replica.close)
            self.close = opened.pop_all().close
        self.asked = 0

    def _settings(self, home: Path) -> Settings:
        return load_settings({}, home=str(home), tracking_uri=self.tracking, state=self.state, reload_s=RELOAD_S)

    def command(self, *arguments: str) -> None:
        """Run a command on machine A."""
        home = {"DECISION_HOME": str(self.a.root), "DECISION_STATE": self.state, "DECISION_TRACKING_URI": self.tracking}
        done = CliRunner().invoke(app, list(arguments), env=home)
        assert done.exit_code == 0, done.output

    def served(self, replica: Core) -> float:
        """Return the candidate's weight in one decision."""
        self.asked += 1
        actions = [Action(name, {"colour": name}) for name in ("red", "green", "blue")]
        event_id = f"e{self.asked:06d}"
        asyncio.run(replica.decide("shop", DecideRequest({"kind": "red"}, actions, event_id=event_id)))
        (record,) = replica.stored(event_id)
        return record.guard_weight


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory, own_postgres: Postgres, mlflow_server: str) -> Iterator[Rollout]:
    made = Rollout(tmp_path_factory.mktemp("homes"), mlflow_server, own_postgres)
    yield made
    made.close()


@pytest.mark.connected
def test_kill_switch(rollout: Rollout, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped on A, it is stopped on B at its next look; what B cannot hear of any more it does not serve either.

    A State that hangs keeps no thread waiting, so B stays ready and says what it serves.
    """
    b = rollout.replicas[1]
    assert rollout.weight > 0.0
    for (
        replica
    ) in rollout.replicas:  # on a busy machine a look may take longer than the candidate is served without one
        wait_until(lambda: rollout.served(replica) == rollout.weight, "the candidate to be served")  # noqa: B023
    rollout.command("guard", "shop", "--stop")
    looks = b.loops.refresher.rounds
    wait_until(lambda: b.loops.refresher.rounds >= looks + 2, "two looks of the other replica")
    assert rollout.served(b) == 0.0
    rollout.command("guard", "shop", "--resume")
    wait_until(lambda: rollout.served(b) == rollout.weight, "the rollout to go on")

    own_postgres.freeze(on=True)
    try:
        wait_until(lambda: rollout.served(b) == 0.0, "the replica to serve no candidate while State is silent")
        assert rollout.served(rollout.replicas[0]) in (0.0, rollout.weight)
        looks = b.loops.refresher.rounds
        monkeypatch.setattr(postgresql, "CONNECT_S", 1)
        wait_until(lambda: b.loops.refresher.rounds >= looks + 2, "the replica to give up two looks")
        assert "postgresql" in str(b.loops.error("shop"))
    finally:
        own_postgres.freeze(on=False)
    wait_until(lambda: rollout.served(b) == rollout.weight, "State to be heard again")


@pytest.mark.connected
def test_settings_that_one_machine_applies_are_in_force_on_the_other(rollout: Rollout, tmp_path: Path) -> None:
    file = tmp_path / "shop" / "loop.toml"
    file.parent.mkdir()
    file.write_text(TEXT + "[reward]\nwindow_s = 77\n")
    rollout.command("apply", str(file), "--expected", "1")
    for replica in rollout.replicas:
        wait_until(lambda: replica.snapshot("shop").loop.reward.window_s == 77.0, "the settings")  # noqa: B023
    refused = CliRunner().invoke(app, ["apply", str(file)], env={"DECISION_HOME": str(tmp_path / "alone")})
    assert refused.exit_code == 2
    assert "DECISION_STATE" in refused.output


@pytest.mark.connected
def test_night_moves(rollout: Rollout, s3: S3) -> None:
    """A night whose machine is killed after the training goes on, on another machine, under its id."""
    assert s3.address in os.environ["AWS_ENDPOINT_URL"], "the night's process finds it by the environment"
    files = f"s3://{BUCKET}/night"
    shared = {"DECISION_STATE": rollout.state, "DECISION_TRACKING_URI": rollout.tracking, "DECISION_FILES": files}
    a, b = (load_settings(shared, home=str(rollout.a.root.parent / name)) for name in ("night-a", "night-b"))
    apply(a, "[gate]\nminimum_ess = 5\nmargin = 0.0", "moved", by="ann", environ={})
    with Installation(a) as parts:
        play(parts.log, "moved", 600)  # type: ignore[arg-type]
    environment = {**os.environ, **shared, "DECISION_HOME": str(a.root)}
    command = [sys.executable, "-m", "pipelines.cli", "nightly", "moved", "--run-id", "one"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as night:

        def trained() -> bool:
            assert night.poll() is None, night.stderr and night.stderr.read()
            return any(run.result("train") is not None for run in runs(a, "moved"))

        wait_until(trained, "the training")
        night.kill()
    (left,) = runs(b, "moved")
    assert (left.run_id, left.status) == ("one", "running")
    with Installation(b) as parts:
        loop, now = parts.loop("moved"), datetime.now(UTC)
        run = nightly(b, parts.log, parts.lake, parts.registry, loop, now=now)
        assert (run.run_id, run.status, run.started_at) == ("one", "done", left.started_at)
        assert [step.name for step in run.steps][: len(left.steps)] == [step.name for step in left.steps]
        assert len(parts.registry.versions("moved")) == 1
    assert runs(a, "moved") == [run]
