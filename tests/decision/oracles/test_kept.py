from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.kept import MOST, SETTINGS_FILE, KeptOracle, kept, kept_after
from decision.oracles.kind import OracleSettings
from tests.strategies import interactions_of

ONE = np.array([0, 3])
OLD = np.array([0.9, 0.1, 0.2])


def fitted(log: Interactions, seed: int) -> KeptOracle:
    oracle = new_oracle(OracleSettings(kind="linear"))
    oracle.fit(log.take(np.random.default_rng(seed).integers(len(log), size=100)))
    return kept_after(("linear", oracle), ("linear", oracle), 0.0)


def test_a_tie_goes_to_what_the_champion_does() -> None:
    new = np.array([0.50, 0.53, 0.1])
    assert kept([OLD, new], ONE, margins=[0.0, 0.03 + 1e-12]).tolist() == [0.53, 0.50, 0.1]
    assert kept([OLD, new], ONE, margins=[0.0, 0.02]).tolist() == new.tolist()


def test_what_the_champion_kept_is_kept() -> None:
    # the first took a; the second would have taken b by a little, and kept a; to the third, b is best by a little
    second, third = np.array([0.5, 0.52, 0.0]), np.array([0.4, 0.42, 0.41])
    assert kept([OLD, second, third], ONE, margins=[0.0, 0.05, 0.05]).argmax() == 0
    assert kept([OLD, second, third], ONE, margins=[0.0, 0.0, 0.05]).argmax() == 1


def test_decisions_are_kept_apart_and_no_score_is_lost() -> None:
    rng = np.random.default_rng(3)
    offsets = np.array([0, 2, 7, 8, 12])
    scores = [rng.normal(size=12) for _ in range(4)]
    whole = kept(scores, offsets, margins=[0.0, 1.0, 0.5, 0.7])
    for low, high in pairwise(offsets):
        alone = kept([one[low:high] for one in scores], np.array([0, high - low]), margins=[0.0, 1.0, 0.5, 0.7])
        assert alone.tolist() == whole[low:high].tolist()
        assert sorted(alone) == sorted(scores[-1][low:high])


def test_a_margin_follows_the_unit_of_the_rewards() -> None:
    rng = np.random.default_rng(4)
    scores, offsets = [rng.normal(size=30) for _ in range(3)], np.arange(0, 31, 3)
    found = kept(scores, offsets, margins=[0.0, 0.5, 0.5])
    again = kept([64.0 * one for one in scores], offsets, margins=[0.0, 32.0, 32.0])
    assert (again == 64.0 * found).all()


def test_the_chain_holds_the_newest_models_and_is_the_same_once_loaded() -> None:
    log = interactions_of(np.random.default_rng(0), 300)
    champion = fitted(log, 0)
    for seed in range(1, MOST + 3):
        new = new_oracle(OracleSettings(kind="linear"))
        new.fit(log.take(np.random.default_rng(seed).integers(len(log), size=100)))
        champion = kept_after(("kept", champion), ("linear", new), 0.1)
    assert len(champion.members_by_kind) == MOST + 1
    again = load_oracle("kept", champion.save())
    assert again.predict(log.batch).tolist() == champion.predict(log.batch).tolist()
    alone: Batch = log.batch.take(np.array([5]))
    whole = champion.predict(log.batch)[log.batch.offsets[5] : log.batch.offsets[6]]
    assert champion.predict(alone).tolist() == pytest.approx(whole.tolist())


def test_files_that_are_no_chain_are_refused() -> None:
    log = interactions_of(np.random.default_rng(0), 100)
    files = fitted(log, 0).save()
    for stored in ({"kinds": ["kept"], "margins": [0.0]}, {"kinds": ["linear"], "margins": []}, {"kinds": []}):
        with pytest.raises(FieldError):
            load_oracle("kept", files | {SETTINGS_FILE: msgspec.json.encode(stored)})
    for margin in (-1.0, np.inf):
        with pytest.raises(FieldError, match="margins"):
            KeptOracle(fitted(log, 0).members_by_kind, [0.0, margin])
