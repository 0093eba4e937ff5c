"""Traces: what a request waited for, from its head to the disk, as OpenTelemetry spans that a collector is sent.

Off without an address. A trace begins with the caller's ``traceparent`` (W3C Trace Context, 2021), or here, by a share
of the requests. Spans name loop, version and event id. They hold no context, no feature, no header and no error's text.

    POST /v1/loops/{loop}/decide    from the head to the answer
      decide                        the draw, with all that was asked in the same turn
      spool.queue                   waiting for the commit before
      spool.commit                  the write, with all that was waiting
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from decision.errors import FieldError, Words
from pipelines.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

EXPORT_S, CLOSE_S = 3.0, 5.0
"""Most seconds for a request to the collector, and for what is left when the service ends."""
_QUEUE, _AT_ONCE, _DELAY_MS = 2_048, 512, 1_000
_LONGEST = 256
_CALLERS = b"traceparent"

now_ns = time.time_ns
"""Nanoseconds since 1970, as spans have them."""


class Trace:
    """One request that is traced; any thread may add to it.

    Args:
        tracer: makes its spans.
        span: the request's own.
        context: of the spans below it.
    """

    __slots__ = ("_context", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, context: Context) -> None:
        self._tracer, self._span, self._context = tracer, span, context

    @property
    def trace_id(self) -> str:
        """The trace's id: 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def about(self, told: Mapping[str, str]) -> None:
        """Say of the request what it is about: ``loop``, ``event_id``, ``version``."""
        self._span.set_attributes(_named(told))

    def step(self, name: str, begun_ns: int, ended_ns: int, told: Mapping[str, str | int], *, failed: bool) -> None:
        """Add what was done for the request.

        Args:
            name: of the span.
            begun_ns: nanoseconds since 1970.
            ended_ns: likewise.
            told: what it was about.
            failed: it did not end well.
        """
        span = self._tracer.start_span(name, self._context, attributes=_named(told), start_time=begun_ns)
        if failed:
            _fail(span)
        span.end(ended_ns)

    def end(self, status: int) -> None:
        """End the request's span with the status of its answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _fail(self._span)
        self._span.end()


CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that a coroutine works for."""


class Traces:
    """Begins traces and sends them.

    Args:
        provider: of the spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("decision")

    def begin(self, method: str, route: str, headers: Iterable[tuple[bytes, bytes]], begun_ns: int) -> Trace | None:
        """Return the trace of a request; None where it is not sampled.

        Args:
            method: of the request.
            route: its path with parameters in braces: no value of a path goes in.
            headers: the request's, names in lower case.
            begun_ns: when it came, in nanoseconds since 1970.
        """
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = next((value.decode("latin-1") for name, value in headers if name == _CALLERS), None)
        parent = None if given is None else TraceContextTextMapPropagator().extract({"traceparent": given})
        attributes = {"http.request.method": method, "http.route": route}
        span = self._tracer.start_span(f"{method} {route}", parent, SpanKind.SERVER, attributes, start_time=begun_ns)
        return Trace(self._tracer, span, set_span_in_context(span)) if span.is_recording() else None

    def close(self) -> None:
        """Send what is left, for five seconds at most."""
        # The library waits for half a minute where the collector is away.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def open_traces(settings: Settings) -> Traces | None:
    """Return what begins traces; None where no collector is set.

    Raises:
        FieldError: the exporter is not installed.
    """
    if not settings.traces:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        wanted = "\"\" without OpenTelemetry's exporter: pip install 'decision-service[traces]'"
        raise FieldError("traces", wanted=wanted, got=Words("an address")) from None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.traces_share)),
        resource=Resource.create({"service.name": "decision"}),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attribute_length=_LONGEST),
    )
    exporter = OTLPSpanExporter(f"{settings.traces.rstrip('/')}/v1/traces", timeout=EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, _QUEUE, _DELAY_MS, _AT_ONCE))
    return Traces(provider)


def _named(told: Mapping[str, str | int]) -> dict[str, Any]:
    return {f"decision.{name}": value for name, value in told.items() if value != ""}


def _fail(span: Span) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
