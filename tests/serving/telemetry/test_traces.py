"""A traced request is spans at a collector, sent over HTTP by the exporter itself; what nobody traces costs nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from decision.errors import FieldError
from pipelines.settings import load_settings
from serving.telemetry.traces import open_traces
from tests.serving.http.test_app import QUESTION, Caller, open_at

CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLERS[:-1] + "0"


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.sent: list[ExportTraceServiceRequest] = []
        self.paths = set[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.paths.add(self.path)
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.sent.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> dict[str, Any]:
        """The spans by name."""
        every = [span for each in self.sent for of in each.resource_spans for s in of.scope_spans for span in s.spans]
        found = {span.name: span for span in every}
        assert len(found) == len(every)
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def said(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_callers_trace_goes_from_the_head_through_the_draw_to_the_disk(collector: Collector, tmp_path: Path) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=0.0, api_keys="a-secret-key")
    call = Caller(core)
    headers = {"traceparent": CALLERS, "authorization": "Bearer a-secret-key"}
    answer = call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "e1", "subject_id": "somebody"}, **headers)
    assert answer.status_code == 200
    core.close()
    spans = collector.spans()
    assert collector.paths == {"/v1/traces"}
    assert set(spans) == {"POST /v1/loops/{loop}/decide", "decide", "spool.queue", "spool.commit"}
    assert {span.trace_id.hex() for span in spans.values()} == {CALLERS.split("-")[1]}
    request = spans.pop("POST /v1/loops/{loop}/decide")
    assert request.parent_span_id.hex() == CALLERS.split("-")[2]
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}
    about = {"decision.loop": "news", "decision.event_id": "e1", "decision.version": "baseline:uniform"}
    assert about.items() <= said(spans["decide"]).items()
    assert about.items() <= said(request).items()
    assert said(request)["http.response.status_code"] == 200
    decide, queue, commit = (spans[name] for name in ("decide", "spool.queue", "spool.commit"))
    times = [request.start_time_unix_nano, decide.start_time_unix_nano, decide.end_time_unix_nano]
    times += [queue.start_time_unix_nano, commit.start_time_unix_nano, commit.end_time_unix_nano]
    assert times == sorted(times)
    sent = b"".join(each.SerializeToString() for each in collector.sent)
    for kept_back in (b"a-secret-key", b"somebody", b"geo", b"hour"):
        assert kept_back not in sent


def test_a_batch_is_traced_as_one_draw_of_so_many(collector: Collector, tmp_path: Path) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=1.0)
    asked = [QUESTION | {"event_id": f"e{n}"} for n in range(3)]
    assert Caller(core)("POST", "/v1/loops/news/decide/batch", {"decisions": asked}).status_code == 200
    core.close()
    spans = collector.spans()
    assert set(spans) == {"POST /v1/loops/{loop}/decide/batch", "decide", "spool.queue", "spool.commit"}
    about = {"decision.loop": "news", "decision.together": 3}
    assert about.items() <= said(spans["decide"]).items()
    assert spans["decide"].parent_span_id == spans["POST /v1/loops/{loop}/decide/batch"].span_id


def test_outcomes_are_traced_to_the_disk_and_probes_are_not(collector: Collector, tmp_path: Path) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=1.0)
    call = Caller(core)
    assert call("POST", "/v1/loops/news/outcomes", {"event_id": "e1", "value": 1.0}).status_code == 202
    for path in ("/readyz", "/metrics", "/v1/loops"):
        assert call("GET", path).status_code == 200
    core.close()
    assert set(collector.spans()) == {"POST /v1/loops/{loop}/outcomes", "spool.queue", "spool.commit"}


def test_a_refusal_is_the_requests_status_and_nothing_of_its_path(collector: Collector, tmp_path: Path) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=1.0)
    assert Caller(core)("POST", "/v1/loops/secret-name/decide", QUESTION).status_code == 404
    core.close()
    (span,) = collector.spans().values()
    assert said(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/loops/{loop}/decide",
        "http.response.status_code": 404,
    }


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer another-key"}])
def test_who_may_not_ask_has_no_trace_made(collector: Collector, tmp_path: Path, headers: dict[str, str]) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=1.0, api_keys="a-secret-key")
    answer = Caller(core)("POST", "/v1/loops/news/decide", QUESTION, **headers, traceparent=CALLERS)
    assert answer.status_code == 401
    core.close()
    assert collector.sent == []


@pytest.mark.parametrize("headers", [{}, {"traceparent": UNSAMPLED}, {"traceparent": "no trace at all"}])
def test_what_is_not_sampled_is_not_sent(collector: Collector, tmp_path: Path, headers: dict[str, str]) -> None:
    core = open_at(tmp_path, traces=collector.url, traces_share=0.0)
    assert Caller(core)("POST", "/v1/loops/news/decide", QUESTION, **headers).status_code == 200
    core.close()
    assert collector.sent == []


def test_a_collector_that_is_away_holds_nobody_up(collector: Collector, tmp_path: Path) -> None:
    collector.close()
    core = open_at(tmp_path, traces=collector.url, traces_share=1.0)
    for _ in range(3):
        assert Caller(core)("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
    core.close()


def test_without_a_collector_nothing_is_traced_and_the_exporter_not_asked_for() -> None:
    assert open_traces(load_settings({})) is None


def test_where_the_exporter_is_not_installed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(FieldError, match=r"traces.*decision-service\[traces\]"):
        open_traces(load_settings({"DECISION_TRACES": "http://collector:4318"}))


@pytest.mark.parametrize("url", ["collector:4318", "http://me:password@collector:4318", "http://collector:4318/?key=x"])
def test_an_address_that_is_none_is_refused_by_name_and_not_shown(url: str) -> None:
    with pytest.raises(FieldError, match="DECISION_TRACES") as refused:
        load_settings({"DECISION_TRACES": url})
    assert "password" not in str(refused.value)
