from __future__ import annotations

from typing import Any

from pipelines.registry.charge import WrittenVerdict
from pipelines.registry.proven import Looks, Proven, last_proven


class History:
    """Verdicts as a registry keeps them."""

    def __init__(self) -> None:
        self.verdicts: list[WrittenVerdict] = []
        self.champion: str | None = None

    def moved(self, version: str | None, verdict: str = "promoted", **numbers: float) -> History:
        self._add(version or "", verdict, numbers, alias="champion", to_version=version, from_version=self.champion)
        self.champion = version
        return self

    def refused(self, version: str, rows: float = 100.0, **numbers: float) -> History:
        self._add(version, "refused", {"rows": rows} | numbers)
        return self

    def _add(self, version: str, verdict: str, numbers: dict[str, float], **places: Any) -> None:
        number = len(self.verdicts) + 1
        self.verdicts.append(
            WrittenVerdict(number=number, version=version, verdict=verdict, numbers=dict(numbers), **places)
        )

    @property
    def found(self) -> Proven:
        return last_proven(self.verdicts, self.champion)


def test_before_any_proof_the_margin_counts_from_the_baseline() -> None:
    assert History().found == Proven(None, Looks(0, 0), Looks(0, 0))
    assert History().refused("1").found == Proven(None, Looks(1, 1), Looks(1, 1))
    assert History().moved("1", proven=0.0, rows=10).found == Proven(None, Looks(1, 1), Looks(0, 0))


def test_the_last_proven_version_stays_until_the_next_one() -> None:
    history = History().moved("1", proven=1.0, rows=10).moved("2", proven=0.0, rows=20).refused("3")
    assert history.found == Proven("1", Looks(2, 2), Looks(1, 1))
    assert history.moved("4", proven=1.0, rows=30).found == Proven("4", Looks(0, 0), Looks(0, 0))


def test_the_same_version_on_the_same_rows_is_one_look_and_on_more_rows_another() -> None:
    history = History().moved("1", proven=1.0, rows=10).refused("2").refused("2")
    assert history.found.looks.verdicts == 1
    assert history.refused("2", rows=200.0).found.looks.verdicts == 2


def test_a_verdict_without_a_prospect_is_no_likely_one_and_one_on_too_few_rows_is_none() -> None:
    history = History().refused("1", likely=0.0, judged=1.0).refused("2", likely=1.0, judged=1.0)
    assert history.found == Proven(None, Looks(2, 1), Looks(2, 1))
    assert history.refused("3", likely=1.0, judged=0.0).found == Proven(None, Looks(2, 1), Looks(2, 1))


def test_a_verdict_may_be_likely_against_the_champion_and_not_against_the_last_proven_version() -> None:
    history = History().moved("1", proven=1.0, rows=10).moved("2", proven=0.0, rows=20)
    history.refused("3", likely=1.0, proven_likely=0.0)
    assert history.found == Proven("1", Looks(2, 1), Looks(1, 1))


def test_a_rollback_takes_back_the_proofs_that_came_after() -> None:
    history = History().moved("1", proven=1.0, rows=10).moved("2", proven=1.0, rows=20).moved("1", "rolled_back")
    assert history.found == Proven("1", Looks(1, 1), Looks(1, 1))
    assert history.moved(None, "rolled_back").found == Proven(None, Looks(2, 2), Looks(2, 2))


def test_a_version_set_by_hand_is_no_proof() -> None:
    assert History().moved("1", proven=1.0, rows=10).moved("2", "set").found.version == "1"


def test_what_a_guard_promotes_in_the_place_of_a_proven_version_is_proven() -> None:
    assert History().moved("1", promotion=4.0).moved("2", promotion=4.0).found.version == "2"
    unproven = History().moved("1", proven=1.0, rows=10).moved("2", proven=0.0, rows=20).moved("3", promotion=4.0)
    assert unproven.found.version == "1"


def test_verdicts_from_before_proofs_were_told_go_by_their_lower_bound() -> None:
    history = History().moved("1", lower_bound=0.02, rows=10).moved("2", lower_bound=-0.004, rows=20)
    assert history.found == Proven("1", Looks(1, 1), Looks(0, 0))
