"""A store that does not answer is the service's trouble for a moment: 503 with a time to come back, never 500."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.fairness.store import Governance
from pipelines.log.protocol import LogUnavailable
from pipelines.operations.waiting import wait_until
from pipelines.state.state import State
from serving import metrics
from serving.problems import problem_of
from tests.serving.http.test_app import QUESTION, Caller, open_at

ASKED = [
    ("GET", "/personalizer/v1.0/configurations/service", None),
    ("GET", "/personalizer/v1.0/configurations/policy", None),
    ("PUT", "/personalizer/v1.0/configurations/policy", {"name": "x", "arguments": "--cb_explore_adf --epsilon 0.2"}),
    ("DELETE", "/personalizer/v1.0/configurations/policy", None),
    ("GET", "/personalizer/v1.0/model/properties", None),
    ("GET", "/personalizer/v1.0/model", None),
    ("DELETE", "/personalizer/v1.0/model", None),
    ("GET", "/v1/loops/news", None),
    ("GET", "/console/", None),
    ("GET", "/console/loops/news", None),
    ("GET", "/console/loops/news/settings", None),
    ("GET", "/fairness/tasks/next", None),
]


@pytest.mark.parametrize("store", ["state.db", "mlflow.db", "governance/governance.db"])
def test_a_damaged_store_is_no_failure_of_the_service(store: str, tmp_path: Path) -> None:
    core = open_at(tmp_path, "[fairness]\nenabled = true\n")
    call = Caller(core)
    with Governance.at(core.settings) as governance:
        governance.head()
    call("GET", "/fairness/tasks/next", authorization="Bearer dsk_nobody")
    for path in tmp_path.glob(f"{store}*"):
        path.unlink()
    (tmp_path / store).write_bytes(b"no database at all, " * 500)
    for method, path, body in ASKED:
        answer = call(method, path, body, x_decision_loop="news", authorization="Bearer dsk_nobody")
        told = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        assert answer.status_code < 500 or (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), told
        assert not path.startswith("/fairness") or str(tmp_path) not in answer.text  # nobody has shown a key yet
    core.close()


@pytest.mark.parametrize("key", ["loop/news/charge", "loop/news/guard", "verdict/news/000000001", "run/news/x"])
@pytest.mark.parametrize("value", [b"\xff\x00", b'{"aliases": 3', b"[1, 2]"])
def test_a_row_of_state_that_was_changed_by_hand_is_named(key: str, value: bytes, tmp_path: Path) -> None:
    core = open_at(tmp_path)
    try:
        with State(core.settings.state_url) as state:
            state.put({key: (None, value)})
        core.loops.refresh()
        call = Caller(core)
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        page = call("GET", "/console/loops/news")
        assert (page.status_code, page.headers["retry-after"]) == (503, "1")
        assert f"the row '{key}' of State is damaged" in page.json()["detail"]
    finally:
        core.close()


def test_a_log_file_that_is_taken_away_takes_no_decision_until_it_is_back(tmp_path: Path) -> None:
    core = open_at(tmp_path)
    try:
        call, path = Caller(core), core.settings.spool_path
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        away = path.rename(tmp_path / "away")
        refused = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "e2"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert call("GET", "/readyz").status_code == 503
        away.rename(path)
        wait_until(lambda: call("GET", "/readyz").status_code == 200, "the service to be ready again")
        assert call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "e2"}).status_code == 200
    finally:
        core.close()


def test_a_scrape_without_the_files_of_the_metrics_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = open_at(tmp_path)
    try:
        monkeypatch.setattr(metrics, "run_folder", lambda: tmp_path / "removed")
        answer = Caller(core)("GET", "/metrics")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "start the service again" in answer.json()["detail"]
    finally:
        core.close()


def test_a_log_that_cannot_be_read_is_no_failure_of_the_service() -> None:
    told = problem_of(LogUnavailable("log.db: disk I/O error"))
    assert told is not None
    assert (told.status, "log.db" in str(told)) == (503, False)
