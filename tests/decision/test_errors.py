"""Errors name their field wherever they are raised."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from decision.errors import FieldError


def _refuse(got: str) -> None:
    raise FieldError("size", wanted="200 or more", got=got)


def test_an_error_of_a_worker_process_keeps_its_field_and_its_words() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(FieldError) as caught,
    ):
        pool.submit(_refuse, "x" * 200).result()
    with pytest.raises(FieldError) as here:
        _refuse("x" * 200)
    told, meant = caught.value, here.value
    assert (told.field, told.wanted, told.got, str(told)) == (meant.field, meant.wanted, meant.got, str(meant))
