"""The written-out backward pass is torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from simulators.sim2rec.network import ContextPolicy
from simulators.sim2rec.recurrence import Stepper, through_time

USERS, STEPS, INPUTS, HIDDEN, OUTPUTS = 7, 11, 3, 5, 2


@pytest.fixture
def policy() -> ContextPolicy:
    return ContextPolicy(INPUTS, OUTPUTS, hidden=HIDDEN, seed=1).double()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_torch(policy: ContextPolicy, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    assert policy.extractor is not None
    found, last = policy.extractor(inputs, state[None])
    return policy.head(torch.cat([inputs, found], dim=-1)), last[0]


def by_us(policy: ContextPolicy, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    assert policy.extractor is not None
    return through_time(inputs, state, [*policy.extractor.parameters()], [*policy.head.parameters()])


def gradients(policy: ContextPolicy, found: tuple[Tensor, Tensor], *others: Tensor) -> list[Tensor]:
    loss = sum((part * drawn(*part.shape, seed=9)).sum() for part in found)
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, [*policy.parameters(), *others], retain_graph=True))


def test_values_and_gradients_are_torchs(policy: ContextPolicy) -> None:
    inputs, state = drawn(USERS, STEPS, INPUTS).requires_grad_(), drawn(USERS, HIDDEN, seed=1).requires_grad_()
    theirs, ours = by_torch(policy, inputs, state), by_us(policy, inputs, state)
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(other, one)
    expected, got = (gradients(policy, found, inputs, state) for found in (theirs, ours))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one)


def test_gradients_are_those_of_differences() -> None:
    sizes = [(3, 4, 2), (3, 5), (15, 2), (15, 5), (15,), (15,), (6, 7), (6,), (2, 6), (2,)]
    given = [drawn(*size, seed=number).requires_grad_() for number, size in enumerate(sizes)]
    assert torch.autograd.gradcheck(lambda x, s, *w: through_time(x, s, w[:4], w[4:]), given)


def test_passes_that_wait_for_their_gradients_do_not_share_memory(policy: ContextPolicy) -> None:
    state = drawn(USERS, HIDDEN, seed=1)
    batches = [drawn(USERS, STEPS, INPUTS, seed=number) for number in range(4)]
    waiting = [by_us(policy, inputs, state) for inputs in batches]
    for found, inputs in zip(waiting, batches, strict=True):
        expected = gradients(policy, by_torch(policy, inputs, state))
        for _ in range(2):  # once more gives the same
            for one, other in zip(expected, gradients(policy, found), strict=True):
                torch.testing.assert_close(other, one)


def test_steps_one_by_one_are_those_of_the_whole(policy: ContextPolicy) -> None:
    inputs = drawn(USERS, STEPS, INPUTS)
    whole, _ = by_us(policy, inputs, torch.zeros(USERS, HIDDEN, dtype=torch.float64))
    assert policy.extractor is not None
    step = Stepper([*policy.extractor.parameters()], [*policy.head.parameters()], USERS)
    for time in range(STEPS):
        torch.testing.assert_close(step(inputs[:, time]), whole[:, time].detach())


def test_without_gradients_the_policy_says_the_same() -> None:
    policy = ContextPolicy(INPUTS, OUTPUTS, hidden=HIDDEN, seed=2)
    inputs = drawn(USERS, STEPS, INPUTS).float()
    with torch.no_grad():
        plain, last = policy(inputs)
    found, after = policy(inputs)
    torch.testing.assert_close(found.detach(), plain)
    torch.testing.assert_close(after.detach(), last)
