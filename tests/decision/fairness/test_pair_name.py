"""Names of pairs: always the same, and rarely shared."""

from __future__ import annotations

import re

from decision.fairness.pair_name import pair_name


def test_a_pair_s_name_is_always_the_same() -> None:
    assert pair_name("t000000000001") == "Indigo Gull 98"
    assert pair_name("t000000000001") != pair_name("t000000000002")


def test_a_name_is_two_words_and_a_number_and_of_two_thousand_few_are_shared() -> None:
    """Of 600,750 names 3.3 are expected to meet; the ids are fixed, so this cannot fail by chance."""
    names = [pair_name(f"t{number:012x}") for number in range(2_000)]
    assert all(re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+ [1-9][0-9]", name) for name in names)
    assert len(set(names)) >= 1_990
