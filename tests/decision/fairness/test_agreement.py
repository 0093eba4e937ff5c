"""Agreement in words: the bands, and what is said where there is no number."""

from __future__ import annotations

import pytest

from decision.fairness.agreement import Agreement, agreement, in_words


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (1.0, "agree"),
        (0.8, "agree"),
        (0.799, "mostly agree"),
        (0.667, "mostly agree"),
        (0.666, "agree in part"),
        (0.2, "agree in part"),
        (0.199, "agree hardly more than chance would have it"),
        (-0.4, "agree hardly more than chance would have it"),
    ],
)
def test_each_band_has_its_words(alpha: float, words: str) -> None:
    assert in_words(Agreement(alpha, 0.9, 10, 30)) == words


def test_without_a_number_the_words_say_why() -> None:
    assert in_words(agreement([])) == "have not judged the same pair yet"
    assert in_words(agreement([["fair"], ["unfair"]])) == "have not judged the same pair yet"
    assert in_words(agreement([["fair", "fair"], ["fair", "fair"]])) == "have all said the same so far"


def test_units_that_occur_often_count_as_if_each_were_given() -> None:
    units = [["unfair", "unfair", "fair"], ["fair", "fair"], ["unfair"]]
    often = agreement(units, [3, 2, 4])
    assert often == pytest.approx(agreement([units[0]] * 3 + [units[1]] * 2 + [units[2]] * 4))
    assert often.units == 5
    assert agreement(units, [0, 0, 4]) == (None, None, 0, 0)
