from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from decision.oracles.vw import MODEL_FILE, SETTINGS_FILE, VwOracle, VwSettings, _text
from tests.strategies import interactions_of


@pytest.mark.parametrize("interactions", [True, False])
def test_predictions_equal_vws_own(interactions: bool) -> None:
    data = interactions_of(np.random.default_rng(0), 500)
    oracle = VwOracle(VwSettings(interactions=interactions, bits=18))
    oracle.fit(data)
    ours = oracle.predict(data.batch)
    offsets = data.batch.offsets
    theirs = [
        oracle._workspace.predict(f"|C {_text(context)}|A {_text(data.batch.actions[j])}")
        for i, context in enumerate(data.batch.contexts)
        for j in range(offsets[i], offsets[i + 1])
    ]
    assert np.allclose(ours, theirs, atol=2e-6)


def test_names_that_would_break_vws_format_are_kept_apart() -> None:
    names = ["a b", "a:b", "a|b", "a%20b", "a\nb", "a\tb", "é", "7", ""]
    texts = [_text({name: 1.0}) for name in names]
    assert len(set(texts)) == len(names)
    assert not any(sign in text[:-3] for text in texts for sign in " \n\t|")


def test_damaged_files_name_themselves() -> None:
    oracle = VwOracle(VwSettings(bits=12))
    oracle.fit(interactions_of(np.random.default_rng(0), 50))
    files = oracle.save()
    for name, data in ((SETTINGS_FILE, b"{"), (MODEL_FILE, b"not a model")):
        with pytest.raises(FieldError) as caught:
            VwOracle.load(files | {name: data})
        assert caught.value.field == name


def test_range_must_not_be_empty() -> None:
    with pytest.raises(FieldError, match="high"):
        VwOracle(VwSettings(low=1.0, high=1.0))
