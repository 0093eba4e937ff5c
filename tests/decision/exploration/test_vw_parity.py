"""Our rules beside VW's own, on VW's own predictions; and where VW 9.11.9 is wrong, what it returns."""

from __future__ import annotations

import numpy as np
import pytest
from vowpalwabbit import Workspace

from decision.exploration.mix import check_pmf
from decision.exploration.regcb import regcb
from decision.exploration.squarecb import squarecb

GAMMA, ACTIONS = 50.0, 5


def examples(n: int, rng: np.random.Generator) -> list[str]:
    """Return labelled ADF examples, logged with propensity 1: costs of 0 and 1, as both learners then weigh alike."""
    out = []
    for _ in range(n):
        pick, x = int(rng.integers(ACTIONS)), float(rng.random())
        cost = float(rng.random() < 0.3 + 0.1 * pick * x)
        lines = [f"{f'0:{cost}:1.0 ' if a == pick else ''}|A a{a}" for a in range(ACTIONS)]
        out.append("\n".join([f"shared |C x:{x:.3f}", *lines]))
    return out


def trained(arguments: str, data: list[str]) -> Workspace:
    vw = Workspace(f"--quiet -q CA {arguments}")
    for example in data:
        vw.learn(example)
    return vw


def test_squarecb_equals_vws_on_vws_scores() -> None:
    rng = np.random.default_rng(0)
    data, asked = examples(400, rng), examples(50, rng)
    by_vw = trained(f"--cb_explore_adf --squarecb --gamma_scale {GAMMA} --gamma_exponent 0", data)
    scores = trained("--cb_adf --cb_type mtr", data)
    for example in asked:
        question = example.replace("0:0.0:1.0 ", "").replace("0:1.0:1.0 ", "")
        costs = np.array(scores.predict(question))
        ours = squarecb(-costs, np.array([0, ACTIONS]), gamma=GAMMA)
        assert np.allclose(ours, by_vw.predict(question), atol=2e-4)


def test_vws_regcbopt_sums_to_more_than_one_where_actions_tie_and_ours_does_not() -> None:
    vw = Workspace("--quiet --cb_explore_adf --regcbopt")
    pmf = vw.predict("\n".join(["shared |C x", *[f"|A a{a}" for a in range(ACTIONS)]]))
    assert sum(pmf) == pytest.approx(ACTIONS)  # should a release of VW mend this, the note on it can go
    check_pmf(regcb(np.ones(ACTIONS), np.zeros(ACTIONS), np.array([0, ACTIONS])), np.array([0, ACTIONS]))
