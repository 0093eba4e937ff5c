"""What every policy keeps. Each check takes a policy and a batch of ragged decisions."""

from __future__ import annotations

import numpy as np

from decision.batch import one
from decision.exploration import mix


def check_pmf_is_a_distribution(policy, batch) -> None:
    pmf = policy.pmf(batch)
    assert pmf.shape == (len(batch.actions),)
    mix.check_pmf(pmf, batch.offsets)


def check_pmf_is_the_same_when_asked_again(policy, batch) -> None:
    assert np.array_equal(policy.pmf(batch), policy.pmf(batch))


def check_pmf_of_a_decision_does_not_depend_on_the_others(policy, batch) -> None:
    whole = policy.pmf(batch)
    parts = [policy.pmf(batch.take(np.array([i]))) for i in range(len(batch))]
    assert np.allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)


def check_what_is_prepared_gives_the_same_bit_for_bit(policy, batch) -> None:
    for i in range(len(batch)):
        asked = batch.take(np.array([i]))
        prepared = policy.prepare(asked.actions, asked.action_ids)
        contexts = batch.contexts[: i + 1]
        alone = [policy.pmf(one(each, asked.actions, asked.action_ids)).tolist() for each in contexts]
        assert prepared(contexts) == alone
        assert [prepared([each])[0] for each in contexts] == alone


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
