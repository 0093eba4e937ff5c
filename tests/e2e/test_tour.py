"""The tour leaves an installation behind that lives: its rollout is under way, and everybody it names can sign in."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from decision.errors import FieldError
from pipelines.demo.tour import FEED, QUICK, SHOP, run_tour, show_tour
from pipelines.fairness.people import by_key, open_session
from pipelines.fairness.store import Governance
from pipelines.fairness.verify import verify
from pipelines.settings import load_settings
from serving.fairness.console.site import COOKIE
from serving.start import open_core
from tests.serving.http.test_app import Caller


@pytest.mark.connected
def test_a_tour_leaves_a_rollout_under_way_a_refusal_a_panel_and_logins_that_open(tmp_path: Path) -> None:
    now, quiet = datetime.now(UTC), Console(quiet=True)
    tour = run_tour(QUICK, home=tmp_path, now=now, console=quiet)
    assert tour.verdicts[0] == "promoted"
    assert tour.verdicts[-1] == "rolling out"
    assert 0.0 < tour.weight < 1.0
    assert tour.refused
    assert all("that is not above 0" in why for why in tour.refused.values())
    assert any("'device' moved" in text for text in tour.alarms)
    assert tour.pairs > 0
    assert {"upheld", "dismissed", "disputed"} <= tour.judged.keys()
    assert tour.judged["disputed"] >= 2  # one that divided its panel, and one that was appealed
    assert tour.changed > 0
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
    seen = (
        ("auditor 1", None, "left to judge"),
        ("auditor 4", "/console/judged", "You appealed"),
        ("adjudicator", None, "appealed"),
        ("administrator", None, "Revoke"),
        ("owner", None, "As they are answered now, clamped"),
        ("owner", f"/console/fairness/{SHOP}", "1 appealed decision waits"),
        ("owner", f"/console/fairness/{SHOP}/pairs", "An adjudicator upheld it"),
    )
    logins = {login.role: login for login in tour.logins if login.role != "operator"}
    assert {role for role, _, _ in seen} | {"auditor 2", "auditor 3"} == logins.keys()
    with Governance.at(settings) as store:
        for role, path, words in seen:
            person = by_key(store, logins[role].key)
            assert person is not None
            cookie = f"{COOKIE}={open_session(store, person, now=datetime.now(UTC))}"
            page = call("GET", path or logins[role].page, accept="text/html", cookie=cookie)
            assert page.status_code == 200
            assert words in " ".join(page.text.split()), (role, path)
        assert not verify(store).faults
    call.app.close()
    with pytest.raises(FieldError, match="loop"):
        run_tour(QUICK, home=tmp_path, now=now, console=quiet)
