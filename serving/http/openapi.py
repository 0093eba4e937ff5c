"""The OpenAPI 3.1 document, made from the wire structs so that it cannot drift from them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from serving.wire import Accepted, ActivateRequest, BatchRequest, DecideRequest, DecideResponse, OutcomeRequest, Problem


@cache
def document() -> bytes:
    """Return the document as JSON."""
    from serving.fairness import openapi as panels  # imports SQLAlchemy, which nothing else of the start needs

    shapes: list[Any] = [
        DecideRequest,
        DecideResponse,
        BatchRequest,
        OutcomeRequest,
        ActivateRequest,
        Accepted,
        Problem,
    ]
    shapes += panels.SHAPES
    schemas, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    refs = {shape.__name__: schema for shape, schema in zip(shapes, schemas, strict=True)}
    many = {"anyOf": [refs["OutcomeRequest"], {"type": "array", "items": refs["OutcomeRequest"], "maxItems": 1000}]}
    loop = [{"name": "loop", "in": "path", "required": True, "schema": {"type": "string"}}]
    event = [{"name": "event_id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 256}}]
    anything: dict[str, Any] = {"type": "object"}
    paths = {
        "/v1/loops": {"get": _operation("Names of the loops", None, anything)},
        "/v1/loops/{loop}": {"get": _operation("Settings, versions, guard state, counters", None, anything, loop)},
        "/v1/loops/{loop}/decide": {
            "post": _operation("One decision", refs["DecideRequest"], refs["DecideResponse"], loop)
        },
        "/v1/loops/{loop}/decide/batch": {
            "post": _operation(
                "Many decisions, each answered or refused on its own", refs["BatchRequest"], anything, loop
            )
        },
        "/v1/loops/{loop}/outcomes": {"post": _operation("Report outcomes", many, refs["Accepted"], loop, "202")},
        "/v1/loops/{loop}/activate": {
            "post": _operation("Activate a deferred decision", refs["ActivateRequest"], refs["Accepted"], loop, "202")
        },
        "/v1/decisions/{event_id}": {
            "get": _operation("Explain a decision and repeat its draw", None, anything, event)
        },
        "/livez": {"get": _operation("Liveness", None, anything)},
        "/readyz": {"get": _operation("Readiness: loops are loaded, the spool accepts writes", None, anything)},
        **panels.paths(_operation, refs),
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "decision", "version": "1", "description": "Decisions with exact propensities."},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "subscription": {"type": "apiKey", "in": "header", "name": "Ocp-Apim-Subscription-Key"},
                },
            },
            "security": [{}, {"bearer": []}, {"subscription": []}],
        }
    )


def _operation(
    summary: str,
    request: dict[str, Any] | None,
    response: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    status: str = "200",
) -> dict[str, Any]:
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            status: {"description": "Done", "content": {"application/json": {"schema": response}}},
            "4XX": {"description": "The request does not fit"} | problem,
            "503": {"description": "Try again"} | problem,
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    return operation
