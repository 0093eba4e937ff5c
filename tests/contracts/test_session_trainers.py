from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import pytest

from decision.errors import FieldError
from tests.parts import require

require(importlib.util.find_spec("torch"), "torch is not installed")

import torch  # noqa: E402

from simulators.trainers.contract import TRAINERS, trainer_of  # noqa: E402
from tests.contracts.session_trainer import CHECKS, PLAN, check_a_unit_changes_nothing  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("method", TRAINERS)
def test_session_trainer_contract(method: str, check) -> None:
    check(trainer_of(method))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_clone_in_gated_steps_keeps_the_contract(check) -> None:
    clone = trainer_of("clone")
    check(lambda log, simulators, plan, seed: clone(log, simulators, replace(plan, gated="always"), seed))


def test_the_gap_is_taken_off_without_a_unit() -> None:
    check_a_unit_changes_nothing(trainer_of("sim2rec"), replace(PLAN, penalty_kind="gap"))


def test_a_method_that_does_not_exist_is_named() -> None:
    with pytest.raises(FieldError, match=r"session\.method"):
        trainer_of("guess")
