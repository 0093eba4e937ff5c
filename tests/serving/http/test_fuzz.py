"""Requests made from the description, and beside it: no answer is a 5xx, and every answer is as described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.operations import evaluations
from serving.http.app import App
from serving.refresher import Refresher
from tests.serving.http.test_app import open_at

ALL = list(HealthCheck)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PATIENCE_S = 300.0
"""For an answer; a busy machine takes longer than 10 s, the default here, to describe the API."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("home")
    core = open_at(home, api_keys="k")
    with Governance.at(core.settings) as store:
        roles = ["auditor", "adjudicator", "administrator", "owner"]
        _, key = add_person(store, name="All", roles=roles, owns=["news"], now=datetime.now(UTC), by="test")
    app = App(lambda: core)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Refresher, "late", False)  # a busy machine refreshes late, and /readyz says so by 503
        patch.setattr(evaluations, "start", lambda *of: None)  # one process each, which the cases here are not about
        yield schemathesis.openapi.from_asgi("/openapi.json", app, timeout=PATIENCE_S), key
    app.close()


def each_operation(schema: Any, examples: int, check: Callable[[Any], None]) -> int:
    """Call `check` with good and bad requests of every operation, and return how many operations there are."""
    count = 0
    for operation in (found.ok() for found in schema.get_all_operations()):
        count += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(operation.as_strategy(generation_mode=mode))
            @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=ALL)
            def run(case: Any) -> None:
                check(case)

            try:
                run()
            except Unsatisfiable:  # nothing about a call without parameters can be wrong
                assert mode is GenerationMode.NEGATIVE
    return count


def test_no_answer_is_a_5xx_and_every_answer_is_as_described(api: Any) -> None:
    schema, panel_key = api

    def check(case: Any) -> None:
        key = panel_key if case.path.startswith("/fairness") else "k"
        headers = {"Authorization": f"Bearer {key}"}
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=PATIENCE_S)
        if "loop" in (case.path_parameters or {}):  # a loop's name is hardly ever met by chance
            case.path_parameters["loop"] = "news"
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=PATIENCE_S)
        elif case.path.startswith("/personalizer"):
            case.call_and_validate(headers={**headers, "X-Decision-Loop": "news"}, checks=CHECKS, timeout=PATIENCE_S)
        elif "loop" in (case.query or {}):
            case.query["loop"] = "news"
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=PATIENCE_S)

    assert each_operation(schema, 8, check) > 40


def test_without_a_key_nothing_is_answered_but_what_is_open_to_anyone(api: Any) -> None:
    schema, _ = api

    def check(case: Any) -> None:
        response = case.call_and_validate(checks=CHECKS, timeout=PATIENCE_S)
        if case.operation.definition.raw["security"] and not case.path.startswith("/console"):
            assert response.status_code == 401

    each_operation(schema, 2, check)
