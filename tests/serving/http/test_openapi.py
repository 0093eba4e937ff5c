"""The description of the interface is valid, complete, and true: its examples are accepted, its schemas hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import validate

from serving.http.app import App
from serving.routes import Route
from tests.parts import require
from tests.serving.http.test_app import QUESTION, Caller, open_at

NODE_PACKAGES = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    core = open_at(tmp_path_factory.mktemp("home"))
    caller = Caller(core)
    yield caller
    caller.app.close()


@pytest.fixture(scope="module")
def document(call: Caller) -> dict[str, Any]:
    return json.loads(call("GET", "/openapi.json").content)


def routes(app: App) -> list[Route]:
    app.document()
    return app._routes


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_route_is_described_with_id_tag_summary_example_and_schema(
    call: Caller, document: dict[str, Any]
) -> None:
    operations = [(path, method) for path, methods in document["paths"].items() for method in methods]
    assert sorted(operations) == sorted((route.path, route.method.lower()) for route in routes(call.app))
    names = [document["paths"][path][method]["operationId"] for path, method in operations]
    assert len(set(names)) == len(names)
    for path, method in operations:
        operation = document["paths"][path][method]
        assert operation["summary"], path
        assert operation["tags"][0] in [tag["name"] for tag in document["tags"]]
        for status, response in operation["responses"].items():
            told = "$ref" in response or "content" in response
            assert told or status == "204" or 300 <= int(status) < 400, (path, status)
        if operation["tags"] != ["console"]:
            if "requestBody" in operation:
                assert "example" in operation["requestBody"]["content"]["application/json"], path
            content = next(iter(operation["responses"].values())).get("content")
            assert content is None or path == "/fairness/metrics" or "example" in next(iter(content.values())), path


def test_paths_of_every_interface_are_there(document: dict[str, Any]) -> None:
    wanted = {"/livez", "/readyz", "/metrics", "/openapi.json", "/v1/loops/{loop}/decide", "/personalizer/v1.0/rank"}
    assert wanted | {"/fairness/tasks", "/console"} <= document["paths"].keys()


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def test_examples_fit_their_schemas_and_the_shapes_that_requests_are_decoded_by(
    call: Caller, document: dict[str, Any]
) -> None:
    for route in routes(call.app):
        operation = document["paths"][route.path][route.method.lower()]
        if route.example is not None:
            content = operation["requestBody"]["content"]["application/json"]
            resolved(content["schema"], document).validate(content["example"])
            msgspec.convert(route.example, route.request)
        content = operation["responses"][str(route.status)].get("content", {})
        for described in content.values():
            if "example" in described:
                resolved(described["schema"], document).validate(described["example"])


def test_free_form_objects_say_so_and_requests_have_no_defaults(document: dict[str, Any]) -> None:
    free: list[Any] = []

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            if schema.get("type") == "object" and "properties" not in schema:
                free.append(schema)
                assert "additionalProperties" in schema
            for each in schema.values():
                walk(each)
        elif isinstance(schema, list):
            for each in schema:
                walk(each)

    walk(document["components"]["schemas"])
    assert len(free) > 5
    action = document["components"]["schemas"]["Action"]
    assert action["required"] == ["id"]
    assert "default" not in action["properties"]["features"]
    assert action["properties"]["features"]["description"]


@pytest.mark.parametrize(
    "path", ["/v1/loops", "/v1/loops/news", "/livez", "/readyz", "/openapi.json", "/v1/decisions/shown"]
)
def test_answers_fit_the_schemas_that_describe_them(call: Caller, document: dict[str, Any], path: str) -> None:
    call("POST", "/v1/loops/news/decide", QUESTION | {"event_id": "shown", "subject_id": "s"})
    call("POST", "/v1/loops/news/outcomes", {"event_id": "shown", "value": 1.0})
    template = path.replace("news", "{loop}").replace("shown", "{event_id}")
    schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    resolved(schema, document).validate(call("GET", path).json())


def test_errors_fit_the_schema_of_problems(call: Caller, document: dict[str, Any]) -> None:
    schema = resolved({"$ref": "#/components/schemas/Problem"}, document)
    for body in (b"", b"{}", b'{"actions": 3}'):
        schema.validate(call("POST", "/v1/loops/news/decide", body).json())


def typescript() -> Path:
    """Return a folder with the compiler and the generator, fetched once into a cache folder."""
    require(shutil.which("npm"), "npm is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decision-service" / "typescript"
    if not all((cache / "node_modules" / name.rpartition("@")[0]).is_dir() for name in NODE_PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(cache), *NODE_PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"npm cannot fetch {', '.join(NODE_PACKAGES)}: {done.stderr[-300:]}")
    return cache


GOOD = """
const { data, error } = await client.POST("/v1/loops/{loop}/decide", {
  params: { path: { loop: "news" } },
  body: { context: { hour: 9 }, actions: [{ id: "a" }] },
});
const chosen: string | undefined = data?.action_id;
const field: string | null | undefined = error?.field;
await client.POST("/v1/loops/{loop}/outcomes", {
  params: { path: { loop: "news" } },
  body: { event_id: data?.event_id ?? "", value: 1 },
});
await client.POST("/personalizer/v1.0/rank", {
  body: { contextFeatures: [{ hour: 9 }], actions: [{ id: "a", features: [{ price: 1 }] }] },
});
console.log(chosen, field);
"""
WRONG = """
await client.POST("/v1/loops/{loop}/decide", {
  params: { path: { loop: "news" } },
  body: { context: { hour: 9 }, actions: [{ name: "a" }] },
});
"""


def test_a_generated_typescript_client_type_checks_the_smallest_request(
    document: dict[str, Any], tmp_path: Path
) -> None:
    tools = typescript()
    (tmp_path / "node_modules").symlink_to(tools / "node_modules")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    made = subprocess.run(["node_modules/.bin/openapi-typescript", "openapi.json", "-o", "schema.d.ts"], **run)
    assert made.returncode == 0, made.stderr
    head = 'import createClient from "openapi-fetch";\nimport type { paths } from "./schema";\n'
    head += 'const client = createClient<paths>({ baseUrl: "http://localhost:8080" });\n'
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
    flags += ["--moduleResolution", "bundler"]
    for name, body, fits in (("good.ts", GOOD, True), ("wrong.ts", WRONG, False)):
        (tmp_path / name).write_text(head + body)
        checked = subprocess.run(["node_modules/.bin/tsc", *flags, name], **run)
        assert (checked.returncode == 0) == fits, checked.stdout
