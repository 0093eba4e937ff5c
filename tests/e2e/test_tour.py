"""The tour leaves an installation behind that lives: its rollout is under way, and everybody it names can sign in."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from decision.errors import FieldError
from pipelines.demo.tour import FEED, SHOP, TourPlan, run_tour, show_tour
from pipelines.fairness.people import by_key
from pipelines.fairness.store import Governance
from pipelines.settings import load_settings
from serving.start import open_core
from tests.serving.http.test_app import Caller

QUICK = TourPlan(decisions=400, readers=40, visits=10, effort=0.02)


@pytest.mark.connected
def test_a_tour_leaves_a_rollout_under_way_a_refusal_a_panel_and_logins_that_open(tmp_path: Path) -> None:
    now, quiet = datetime.now(UTC), Console(quiet=True)
    tour = run_tour(QUICK, home=tmp_path, now=now, console=quiet)
    assert tour.verdicts[0] == "promoted"
    assert tour.verdicts[-1] == "rolling out"
    assert 0.0 < tour.weight < 1.0
    assert tour.refused
    assert all("bound" in why for why in tour.refused.values())
    assert any("'device' moved" in text for text in tour.alarms)
    assert tour.pairs > 0
    out = Console(width=200, file=StringIO())
    show_tour(tour, out)
    assert all(login.key in out.file.getvalue() for login in tour.logins)  # type: ignore[attr-defined]

    settings = load_settings({}, home=str(tmp_path))
    operator = next(login for login in tour.logins if login.role == "operator")
    core = open_core(settings)
    call = Caller(core)
    shown = {
        path: call("GET", path, accept="text/html", authorization=f"Bearer {operator.key}")
        for path in ("/console/loops", f"/console/loops/{SHOP}", f"/console/loops/{FEED}")
    }
    assert {path: answer.status_code for path, answer in shown.items()} == dict.fromkeys(shown, 200)
    page = shown[f"/console/loops/{SHOP}"].text
    for wanted in ("Refused by the gate", "rolled out", "Rollout began", "Settings applied", ">moved<"):
        assert wanted in page, wanted
    call.app.close()
    with Governance.at(settings) as store:
        people = [by_key(store, login.key) for login in tour.logins if login.role != "operator"]
        assert all(person is not None for person in people)
    with pytest.raises(FieldError, match="loop"):
        run_tour(QUICK, home=tmp_path, now=now, console=quiet)
