"""Kinds of auditors on a loop's dashboard: what each weighs, and nothing about who is of which."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from pipelines.fairness.judges.judge_types import TypesTold, TypeTold, note
from tests.worlds.panel_service import House
from tests.worlds.panels import LOOP, NOW

ONE = TypeTold(share=0.6, judges=4.8, unfair=0.3, weighs=[("income", -2.25), ("<b>debt</b>", 0.4)], asked=True)
OTHER = TypeTold(share=0.4, judges=3.2, unfair=0.7, weighs=[("gap", 1.5)])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


def dashboard(house: House) -> str:
    form = urlencode({"key": house.keys["owner"]}).encode()
    signed_in = house("POST", "/console/login", content=form, content_type="application/x-www-form-urlencoded")
    cookie = signed_in.headers["set-cookie"].split(";")[0]
    answer = house("GET", f"/console/fairness/{LOOP}", cookie=cookie)
    assert answer.status_code == 200
    return answer.text


def seen(*types: TypeTold) -> TypesTold:
    held_out, error = [-0.61, -0.48, -0.49][: 3 if types else 0], [0.0, 0.03, 0.04][: 3 if types else 0]
    return TypesTold(
        judges=8, judgements=150, types=list(types), held_out=held_out, gain_error=error, upheld=9, backed=4
    )


def test_the_dashboard_says_what_was_found_last(house: House) -> None:
    new = dashboard(house)
    assert "Nobody looked for kinds of auditors yet" in new
    assert "Nothing is judged yet" in new
    assert "As of" not in new
    for types, wanted in (
        ((), "150 judgements of 8 auditors are too few to tell kinds of them apart"),
        ((ONE,), "disagree by noise and not in kind"),
        ((ONE, OTHER), "4 of 9 upheld pairs are backed by each type that a clamp asks"),
    ):
        with house.store.write(NOW, "test") as writing:
            note(writing, LOOP, seen(*types))
        assert wanted in dashboard(house)
    page = dashboard(house)
    assert "income -2.25, &lt;b&gt;debt&lt;/b&gt; +0.40" in page
    assert "-0.4800" in page
    assert (page.count("<td>yes</td>"), page.count("<td>no</td>")) == (1, 1)
    assert not any(person.person_id in page or person.name in page for person in house.panel.people)
