"""Nights of a loop whose policy remembers its users: from its log to a candidate that the guard rolls out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipelines.guard.step import guard
from pipelines.nightly import STEPS, nightly
from pipelines.operations.init import SESSIONS, init_loop
from pipelines.registry.registry import Registry
from pipelines.settings import load_loop
from tests.parts import require
from tests.worlds.satisfaction import LATER, fill, habit
from tests.worlds.synthetic import new_settings, open_parts

require(importlib.util.find_spec("torch"), "torch is not installed")


def test_a_night_makes_a_candidate_with_memory_and_the_next_one_waits_for_the_guard(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    own = {"session.method": "clone", "session.also": [], "session.horizon": 24, "session.members": 2}
    # So many may be lost that any version is let through: what is asked here is where it goes.
    own |= {"session.effort": 0.02, "gate.margin": 100.0, "gate.minimum_ess": 5.0}
    init_loop(settings, "feed", values={**SESSIONS, **own})
    loop, registry, (log, lake) = load_loop(settings, "feed", {}), Registry(settings), open_parts(settings)
    fill(log, "feed", habit(0, 70, 24))
    first = nightly(settings, log, lake, registry, loop, now=LATER, seed=3)
    assert (first.status, first.verdict, [step.name for step in first.steps]) == ("done", "rolling_out", list(STEPS))
    found = {step.name: step.result for step in first.steps}
    version = found["train"]["version"]
    assert registry.aliases("feed") == {"candidate": version}
    numbers = found["promote"]["numbers"]
    assert {"trajectories", "witness_gain", "witness_missed"} <= set(numbers)
    worst, share = (found["evaluate"]["witness"][name] for name in ("worst", "worst_share"))
    assert numbers["witness_worst_share"] == share
    assert f"note: of the simulators it earns least in {worst}, {share:.3f} of" in " ".join(found["promote"]["reasons"])
    assert found["evaluate"]["witness"]["promises"] == []
    state = guard(settings, loop, lake, registry, LATER)
    assert (state.status, state.candidate_version) == ("climbing", version)
    assert state.terms is not None
    assert state.terms.unit == "episode"
    second = nightly(settings, log, lake, registry, loop, now=LATER.replace(hour=1), seed=3)
    assert second.verdict == "waiting"
    (kept,) = next(step.result for step in second.steps if step.name == "evaluate")["witness"]["promises"]
    assert (kept["version"], kept["decisions"], kept["came_true"]) == (version, 0.0, None)
    log.close()
