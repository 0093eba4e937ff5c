"""The gate hears two witnesses of a policy with memory: the log on few decisions, a simulator on many."""

from __future__ import annotations

from typing import Any

import pytest

from decision.ope.estimate import Estimate
from pipelines.evaluation.trajectories import Trajectories
from pipelines.evaluation.witness import Heard, Witness, heard, missed
from pipelines.training.promises import Promise


def said(gain: float, *, half: float = 0.1, near: float | None = None, off: float = 0.0) -> Witness:
    """Return a simulator's word: the gain, and the one over the first decisions, +- `half`."""
    bounds: dict[str, Any] = {"gain_low": gain - half, "gain_high": gain + half, "missed": off}
    if near is not None:
        bounds |= {"near_gain": [near] * 5, "near_half": [half] * 5}
    return Witness(method="clone", users=50, believed=1.0, held_out=1.0, gain=gain, error=0.0, **bounds)


def seen(gain: float, *, half: float = 0.1, ess: float = 80.0, steps: int = 3) -> Trajectories:
    value = Estimate(1.0 + gain, 1.0 + gain - half, 1.0 + gain + half, 0.95, 100, ess, ())
    return Trajectories(users=100, steps=steps, value=value, logged=1.0)


def hear(found: Trajectories, witness: Witness | None, margin: float = 0.0) -> Heard:
    return heard(found, witness, minimum_ess=50.0, margin=margin)


@pytest.mark.parametrize(
    ("found", "witness", "better", "reason"),
    [
        (seen(0.0), None, False, ""),
        (seen(-0.5), None, False, "worth 0.6000 at most, logged 1.0000"),
        (seen(0.0, ess=20.0), said(0.5, near=0.0), False, "20 effective trajectories are below 50"),
        (seen(0.0), said(0.5, near=0.1), True, ""),
        (seen(0.0), said(0.05, near=0.1), False, ""),
        (seen(0.0), said(-0.5, near=0.0), False, "-0.5000 over the log, -0.4000 at most"),
        # A policy that loses at first and gains later, as its simulator says: it is what it pays for.
        (seen(-0.5), said(0.5, near=-0.45), True, ""),
        (seen(-0.5), said(0.05, near=-0.45), False, "worth 0.6000 at most"),
        # Promised was a gain from the first decision on, and the log knows nothing of it; or the other way round.
        (seen(-0.5), said(0.5, near=0.5), False, "the witnesses disagree over 3 decisions"),
        (seen(0.5), said(0.5, near=-0.5), False, "the witnesses disagree over 3 decisions"),
        # The simulator tells of fewer decisions than the log was weighed over, so its word opens nothing.
        (seen(0.0, steps=6), said(0.5, near=0.0), False, ""),
        (seen(0.0), said(0.5), False, ""),
        # What it was off by before is taken off its word, on either side.
        (seen(0.0), said(0.5, near=0.1, off=0.45), False, ""),
        (seen(0.0), said(-0.5, near=0.1, off=0.45), False, ""),
        (seen(-0.5), said(0.9, near=-0.05, off=0.3), True, ""),
    ],
)
def test_a_version_goes_on_if_the_witnesses_agree_and_neither_speaks_against_it(
    found: Trajectories, witness: Witness | None, better: bool, reason: str
) -> None:
    verdict = hear(found, witness)
    assert verdict.better is better
    assert bool(verdict.refused) is bool(reason)
    assert all(reason in text for text in verdict.refused)


def test_the_margin_is_what_may_be_lost_over_the_first_decisions() -> None:
    assert hear(seen(-0.5), None, margin=0.5) == Heard(False, [])
    assert hear(seen(-0.5), None, margin=0.3).refused


def promise(gain: float, gained: float | None) -> Promise:
    return Promise(version="1", method="clone", believed=1.0, held_out=1.0, gain=gain, gained=gained)


def test_the_record_is_the_root_mean_square_of_what_did_not_come_true() -> None:
    kept = [promise(0.5, 0.2), promise(0.1, 0.5), promise(0.9, None)]
    assert missed(kept, 7.0) == pytest.approx(0.125**0.5)


def test_without_a_record_what_it_was_off_by_on_the_logged_actions_stands_in() -> None:
    assert missed([], -0.3) == pytest.approx(0.3)
    assert missed([promise(0.5, None)], 0.2) == pytest.approx(0.2)
