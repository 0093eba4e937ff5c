"""What versions promised, beside what came true once they decided, in charge or as candidates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from decision.records import Decision, Outcome
from pipelines.evaluation.witness import missed
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.registry.charge import Version, WrittenVerdict
from pipelines.training.promises import Promise, promises
from tests.worlds.lake import LATER, START, World, decision, loop_of, outcome

SESSION = Version(
    version="2",
    run_id="r",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    tags={"method": "clone", "believed": "0.9", "held_out": "0.8", "gain": "0.3"},
)
BANDIT = Version(version="1", run_id="r", created_at=datetime(2026, 1, 1, tzinfo=UTC), tags={})


def verdict(number: int, to: str | None, since: timedelta, before: str | None = None) -> WrittenVerdict:
    return WrittenVerdict(
        number=number,
        version=to or before or "",
        alias="candidate",
        from_version=before,
        to_version=to,
        at=(START + since).isoformat(),
    )


class Traffic:
    """Decisions with a reward each, in a lake."""

    def __init__(self, folder: Path) -> None:
        self.world, self.rng, self.made = World(folder), np.random.default_rng(0), 0

    def serve(self, count: int, mean: float, since: timedelta, **fields: object) -> None:
        records: list[Decision | Outcome] = []
        for _ in range(count):
            event, self.made = f"e{self.made}", self.made + 1
            ts = START + since + timedelta(milliseconds=self.made)
            records.append(decision(event, ts=ts, **fields))
            value = float(self.rng.random() < mean)
            records.append(outcome(event, value, ts=ts + timedelta(seconds=1)))
        self.world.append(*records)

    def promises(self, *verdicts: WrittenVerdict) -> list[Promise]:
        ingest(self.world.log, self.world.lake)
        join(self.world.lake, loop_of(""), LATER)
        return promises(self.world.lake, "shop", [BANDIT, SESSION], verdicts)


def drawn(side: str) -> dict[str, object]:
    """Return the fields of a decision of an episode whose coin gave it to one side, at weight .5."""
    candidate, baseline = [0.7, 0.3], [0.2, 0.8]
    pmf = candidate if side == "candidate" else baseline
    return {
        "action_ids": ["a", "b"],
        "pmf": pmf,
        "action_index": 0,
        "propensity": pmf[0],
        "pmf_candidate": candidate,
        "pmf_baseline": baseline,
        "guard_weight": 0.5,
        "policy_version": "1",
    }


def test_of_a_version_in_charge_all_it_decided_counts_and_nothing_beside_it_tells_a_gain(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    traffic.serve(300, 0.4, timedelta(0), policy_version="1")
    traffic.serve(300, 0.6, timedelta(hours=5), policy_version="2")
    (found,) = traffic.promises()
    assert (found.version, found.held_out, found.gain, found.decisions) == ("2", 0.8, 0.3, 300.0)
    assert found.came_true == pytest.approx(0.6, abs=0.1)
    assert found.gained is None


def test_a_candidate_is_held_against_those_who_decided_in_the_same_hours(tmp_path: Path) -> None:
    """The night before it was a bad time for everybody; the candidate's gain is not taken over that."""
    traffic = Traffic(tmp_path)
    traffic.serve(300, 0.0, timedelta(0), policy_version="1")
    for side, mean in (("candidate", 0.8), ("baseline", 0.5)):
        traffic.serve(400, mean, timedelta(hours=5), **drawn(side))
    (found,) = traffic.promises(verdict(1, "2", timedelta(hours=4)))
    assert found.decisions == 400.0
    assert found.came_true == pytest.approx(0.8, abs=0.07)
    assert found.gained == pytest.approx(0.3, abs=0.1)
    # Promised were 0.3, so the simulator was hardly off.
    assert missed([found], 0.0) == pytest.approx(abs((found.gained or 0.0) - 0.3))


def test_of_a_mixed_draw_each_side_has_its_probability(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    mixed = {**drawn("candidate"), "pmf": [0.45, 0.55], "propensity": 0.45}
    traffic.serve(90, 1.0, timedelta(hours=5), **mixed)
    (found,) = traffic.promises(verdict(1, "2", timedelta(hours=4)))
    assert found.decisions == pytest.approx(90 * 0.5 * 0.7 / 0.45)


def test_what_another_candidate_drew_is_not_its_own(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    traffic.serve(50, 1.0, timedelta(hours=5), **drawn("candidate"))
    history = [verdict(1, "2", timedelta(hours=1)), verdict(2, "3", timedelta(hours=4), before="2")]
    (found,) = traffic.promises(*history)
    assert (found.decisions, found.came_true, found.gained) == (0.0, None, None)
