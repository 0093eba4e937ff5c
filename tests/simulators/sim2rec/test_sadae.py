"""The set autoencoder: a product of experts that knows neither order nor number, and what it learns of groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from simulators.sim2rec.sadae import Sadae, divergence_of_normals, fit

ONE = np.ones(1, np.float32)


def groups(rng: np.random.Generator, means: np.ndarray, users: int) -> np.ndarray:
    return (means[:, None, None] + 3.0 * rng.standard_normal((len(means), users, 1))).astype(np.float32)


@given(st.integers(0, 2**31), st.integers(2, 40))
@settings(max_examples=25, deadline=None)
def test_posterior_does_not_know_the_order(seed: int, users: int) -> None:
    rng, model = np.random.default_rng(seed), Sadae(14 * ONE, 8 * ONE)
    sets = groups(rng, np.array([6.0, 20.0]), users)
    with torch.no_grad():
        mean, sd = model.posterior(torch.from_numpy(sets))
        shuffled = model.posterior(torch.from_numpy(sets[:, rng.permutation(users)]))
    assert torch.allclose(mean, shuffled[0], atol=1e-5)
    assert torch.allclose(sd, shuffled[1], atol=1e-5)


def test_variance_shrinks_with_the_number_of_elements() -> None:
    sets = torch.from_numpy(groups(np.random.default_rng(0), np.array([14.0]), 50))
    with torch.no_grad():
        once = Sadae(14 * ONE, 8 * ONE).posterior(sets)
        four = Sadae(14 * ONE, 8 * ONE).posterior(sets.repeat(1, 4, 1))
    assert torch.allclose(four[1], once[1] / 2.0, rtol=1e-4)
    assert torch.allclose(four[0], once[0], atol=1e-5)


def test_embedding_of_ragged_groups_is_the_posterior_of_each() -> None:
    rng, model = np.random.default_rng(1), Sadae(14 * ONE, 8 * ONE)
    elements = rng.normal(14.0, 3.0, (30, 1)).astype(np.float32)
    group = rng.integers(0, 3, 30)
    got = model.embed(elements, group)
    for number in range(3):
        with torch.no_grad():
            mean, _ = model.posterior(torch.from_numpy(elements[group == number])[None])
        assert np.allclose(got[group == number], mean.numpy(), atol=1e-5)


def test_bound_is_the_closed_form_for_one_linear_element() -> None:
    """One element, noise 0: the bound is log N(x; decoder(mean)) - KL, computed by hand."""
    model = Sadae(0 * ONE, ONE, latent=1)
    x = torch.tensor([[[0.3]]])
    with torch.no_grad():
        mean, sd = model.posterior(x)
        centre, spread = model.decoded(mean)
        got = float(model.bound(x, torch.zeros(1, 1)))
    likelihood = -0.5 * ((0.3 - float(centre)) / float(spread)) ** 2 - np.log(float(spread)) - 0.5 * np.log(2 * np.pi)
    m, s = float(mean), float(sd)
    assert got == pytest.approx(likelihood - 0.5 * (m * m + s * s - 1.0 - 2.0 * np.log(s)), abs=1e-5)


def test_divergence_of_normals_is_that_of_scipy_integration() -> None:
    grid = np.linspace(-30, 30, 60_001)
    p = np.exp(-0.5 * ((grid - 1) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
    q = np.exp(-0.5 * (grid / 3) ** 2) / (3 * np.sqrt(2 * np.pi))
    assert divergence_of_normals(1, 2, 0, 3) == pytest.approx(np.trapezoid(p * np.log(p / q), grid), abs=1e-6)


def test_trained_code_orders_groups_and_puts_the_unseen_one_between() -> None:
    """Seeded, so the same on every run of one torch version."""
    chocs = np.array([6.0, 7, 8, 9, 19, 20, 21])
    model = Sadae(14 * ONE, 8 * ONE, seed=0)
    done = fit(model, lambda rng: groups(rng, chocs, 60), 0, steps=400)
    assert done.bound[-1] > done.bound[0]
    unseen = np.arange(6.0, 22.0)
    with torch.no_grad():
        mean, _ = model.posterior(torch.from_numpy(groups(np.random.default_rng(1), unseen, 2000)))
        centre, spread = model.decoded(mean)
    assert np.corrcoef(centre[:, 0], unseen)[0, 1] > 0.98
    at_14 = float(centre[8, 0])
    assert float(centre[3, 0]) + 1.0 < at_14 < float(centre[13, 0]) - 1.0
    assert divergence_of_normals(14.0, 3.0, at_14, float(spread[8, 0])) < 0.5


def test_states_and_actions_are_modelled_together() -> None:
    """The action's mean is the state's negative; a decoder that reads the state beats one that cannot, by far."""
    rng = np.random.default_rng(0)

    def draw(rng: np.random.Generator) -> np.ndarray:
        state = rng.normal(rng.normal(0, 1, (8, 1)), 1.0, (8, 40))
        return np.stack([state, -state + 0.1 * rng.standard_normal((8, 40))], axis=2).astype(np.float32)

    both = Sadae(np.zeros(2, np.float32), np.ones(2, np.float32), actions=1)
    apart = Sadae(np.zeros(2, np.float32), np.ones(2, np.float32))
    fit(both, draw, 0, steps=300)
    fit(apart, draw, 0, steps=300)
    sets = torch.from_numpy(draw(rng))
    noise = torch.zeros(8, both.latent)
    with torch.no_grad():
        assert both.bound(sets, noise).mean() > apart.bound(sets, noise).mean() + 0.5


@pytest.mark.parametrize(("scale", "actions", "field"), [(0.0, 0, "scale"), (1.0, 1, "actions")])
def test_impossible_elements_are_refused(scale: float, actions: int, field: str) -> None:
    with pytest.raises(FieldError, match=field):
        Sadae(ONE, scale * ONE, actions=actions)
