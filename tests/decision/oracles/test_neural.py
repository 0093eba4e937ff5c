"""What a fit of the network holds in memory."""

from __future__ import annotations

import pytest

from decision.batch import Floats, Interactions, Ints
from decision.oracles import neural
from decision.oracles.products import Entries, written_out
from tests.decision.oracles.test_rare_rewards import clicks

pytest.importorskip("torch")


@pytest.mark.parametrize("per_step", [64, 200])
def test_a_fit_writes_out_the_rows_of_a_step_and_never_all_of_them(
    per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def seen(entries: Entries, width: int, rows: Ints | None = None) -> Floats:
        out = written_out(entries, width, rows)
        sizes.append(len(out))
        return out

    monkeypatch.setattr(neural, "written_out", seen)
    log: Interactions = clicks(1_000, 0.2, 1)
    neural.NeuralOracle(neural.NeuralSettings(steps=3, rows_per_step=per_step)).fit(log)
    assert set(sizes) == {per_step}
