"""The OpenAPI 3.1 document, made from the table of routes and the shapes it names: it cannot drift from them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from serving.problems import PROBLEM, TITLES
from serving.routes import FORM, JSON, OF_KEYS, Refusals, Role, Route

_OF_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"subscription": []}]
_SECURITY: dict[Role, list[dict[str, list[str]]]] = {
    "anyone": [],
    "decide": _OF_KEYS,
    "report": _OF_KEYS,
    "explain": _OF_KEYS,
    "read": _OF_KEYS,
    "operate": _OF_KEYS,
    "admin": _OF_KEYS,
    "panel member": [{"panelKey": []}],
    "visitor": [{}, {"panelSession": []}],
}
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token of the installation's issuer, that holds the operation's role",
    },
    "subscription": {
        "type": "apiKey",
        "in": "header",
        "name": "Ocp-Apim-Subscription-Key",
        "description": "The same key, as clients of Personalizer send it",
    },
    "panelKey": {"type": "http", "scheme": "bearer", "description": "The key of a member of the panels"},
    "panelSession": {"type": "apiKey", "in": "cookie", "name": "panel_session"},
    "operatorSession": {"type": "apiKey", "in": "cookie", "name": "operator_session"},
}
_TAGS = {
    "loops": "The decision points of the installation",
    "decisions": "Questions, answers with exact propensities, and their explanation",
    "outcomes": "What happened after decisions",
    "personalizer": "Azure Personalizer's interface on the same loops",
    "fairness": "Panels that judge pairs of decisions",
    "console": "Pages for people",
    "operations": "For those who run the service",
}
_TOLD_TWICE: dict[str, Any] = {
    "description": "What is wrong: a page for who asks for one, else a problem document (RFC 9457)",
    "content": {
        "text/html": {"schema": {"type": "string"}},
        PROBLEM.decode(): {"schema": {"$ref": "#/components/schemas/Problem"}},
    },
}
_ATTRIBUTE = re.compile(r"^    (\w+): (.+)$")


def document(routes: Sequence[Route]) -> bytes:
    """Return the document of `routes` as JSON."""
    shapes = _Shapes(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, shapes)
    used = {route.tag for route in routes}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "decision",
                "version": version("decision-service"),
                "description": "Decisions under uncertainty, each with the exact probability of its draw.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
            "paths": paths,
            "components": {
                "schemas": shapes.components,
                "securitySchemes": _SCHEMES,
                "responses": {route.refusals.shape.__name__: _refusal(route.refusals) for route in routes},
            },
        }
    )


def _refusal(refusals: Refusals) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{refusals.shape.__name__}"}
    return {"description": refusals.text, "content": {refusals.content: {"schema": schema}}}


class _Shapes:
    """The schemas of all requests and responses, by shape."""

    def __init__(self, routes: Sequence[Route]) -> None:
        requests = [route.request for route in routes if route.request is not None]
        responses = [route.response for route in routes if route.response is not None]
        wanted: list[Any] = []
        for shape in (*requests, *responses, *(route.refusals.shape for route in routes)):
            if shape not in wanted:
                wanted.append(shape)
        schemas, components = msgspec.json.schema_components(wanted, ref_template="#/components/schemas/{name}")
        self._schemas = list(zip(wanted, schemas, strict=True))
        self.components: dict[str, Any] = components
        if "BatchResponse" in components:  # one list of two shapes, which msgspec's types cannot say
            either = [{"$ref": f"#/components/schemas/{name}"} for name in ("DecideResponse", "Problem")]
            components["BatchResponse"]["properties"]["decisions"]["items"] = {"anyOf": either}
        described = _described(wanted)
        for name, schema in components.items():
            for field, text in described.get(name, {}).items():
                if field in schema.get("properties", {}):
                    schema["properties"][field].setdefault("description", text)
        for schema in (*components.values(), *schemas):
            _say_what_is_free(schema)

    def of(self, shape: Any) -> dict[str, Any]:
        """Return the schema of a shape."""
        return next(schema for known, schema in self._schemas if known == shape)


def _operation(route: Route, shapes: _Shapes) -> dict[str, Any]:
    told = route.refusals.shape.__name__
    made: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "security": _SECURITY[route.role] + ([] if route.page is None else [{"operatorSession": []}]),
        "responses": {str(status): _response(route, status, shapes) for status in (route.status, *route.also)}
        | {str(status): {"$ref": f"#/components/responses/{told}"} for status in _errors(route)},
    }
    if route.page is not None:
        responses = made["responses"]
        made["responses"] = responses | {status: _TOLD_TWICE for status in responses if int(status) >= 400}
    if route.also_at:
        made["description"] = "Also at " + ", ".join(f"`{path}`" for path in route.also_at)
    if route.role in OF_KEYS:
        made["x-decision-role"] = route.role
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 256}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    for query in route.parameters:
        given = {"name": query.name, "in": query.where, "required": query.required, "description": query.text}
        parameters.append(given | {"schema": {"type": "string"}})
    if parameters:
        made["parameters"] = parameters
    if route.request is not None:
        content: dict[str, Any] = {"schema": shapes.of(route.request)}
        if route.example is not None:
            content["example"] = route.example
        made["requestBody"] = {"required": True, "content": {FORM if route.form else JSON: content}}
    return made


def _response(route: Route, status: int, shapes: _Shapes) -> dict[str, Any]:
    if 300 <= status < 400:
        return {"description": "Go there", "headers": {"location": {"schema": {"type": "string"}}}}
    if route.response is None or status == 204:
        return {"description": "Done; there is nothing to say"}
    if status >= 400:
        page = {"schema": {"type": "string"}}
        return {"description": "A page that tells what is wrong", "content": {"text/html": page}}
    content: dict[str, Any] = {"schema": shapes.of(route.response)}
    if route.answers is not None:
        content["example"] = route.answers
    return {"description": "Done", "content": {route.content.partition(";")[0]: content}}


def _errors(route: Route) -> list[int]:
    if route.role == "visitor":
        return []
    found = {500, *route.errors}
    if route.role in OF_KEYS:
        found |= {401, 403, 404, 429, 503}
    if route.request is not None:
        found |= {400, 408, 413, 503}
    if route.request is not None or "{" in route.path or route.parameters:
        found |= {404, route.refusals.invalid}
    unknown = found - TITLES.keys()
    if unknown:
        raise ValueError(f"{route.name}: no title for {unknown}")
    return sorted(found)


def _described(shapes: Iterable[Any]) -> dict[str, dict[str, str]]:
    """Return what the docstrings of all shapes say of their fields, by shape and field."""
    found: dict[str, dict[str, str]] = {}
    pending, seen = list(shapes), set[Any]()
    while pending:
        shape = pending.pop()
        if isinstance(shape, type) and issubclass(shape, msgspec.Struct) and shape not in seen:
            seen.add(shape)
            fields = msgspec.structs.fields(shape)
            said = _said(shape)
            found[shape.__name__] = {field.encode_name: said[field.name] for field in fields if field.name in said}
            pending += [field.type for field in fields]
        else:
            pending += getattr(shape, "__args__", ())
    return found


def _said(shape: type) -> dict[str, str]:
    """Return the sentences under ``Attributes:`` of a docstring, those of its parents first."""
    found: dict[str, str] = {}
    for kind in reversed(shape.__mro__):
        _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
        name = ""
        for line in attributes.splitlines():
            start = _ATTRIBUTE.match(line)
            if start:
                name = start[1]
                found[name] = start[2]
            elif name and line.startswith("        "):
                found[name] += f" {line.strip()}"
            else:
                name = ""
    return {name: text[0].upper() + text[1:] for name, text in found.items()}


def _say_what_is_free(schema: Any) -> None:
    """Say of each free-form object that it is one, and drop defaults: generators take what has one for required."""
    if isinstance(schema, list):
        for each in schema:
            _say_what_is_free(each)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and not schema.keys() & {"properties", "additionalProperties"}:
        schema["additionalProperties"] = True
    if "type" in schema or "$ref" in schema or "anyOf" in schema or "enum" in schema:
        schema.pop("default", None)
    properties = schema.get("properties", {})
    for name in properties:  # a property may be called as a keyword is
        _say_what_is_free(properties[name])
    for key, each in schema.items():
        if key in ("items", "prefixItems", "anyOf", "additionalProperties"):
            _say_what_is_free(each)
