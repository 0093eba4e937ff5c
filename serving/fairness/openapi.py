"""The panels' part of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.fairness.tasks import Judgement
from serving.fairness.api import Adjudication, Appeal, NewPerson, Replay

SHAPES: list[Any] = [Judgement, Adjudication, Replay, Appeal, NewPerson]


def paths(operation: Callable[..., dict[str, Any]], refs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the paths.

    Args:
        operation: makes one operation of a summary, a request, a response, parameters and a status.
        refs: schemas of `SHAPES` by name.
    """
    anything: dict[str, Any] = {"type": "object"}
    text = {"type": "string"}
    task = [{"name": "task_id", "in": "path", "required": True, "schema": text}]
    loop = [{"name": "loop", "in": "query", "required": True, "schema": text}]
    status = [*loop, {"name": "status", "in": "query", "required": False, "schema": text}]
    made = {
        "/fairness/tasks": {"get": operation("Own open tasks (auditor)", None, anything)},
        "/fairness/tasks/next": {"get": operation("The most urgent own task; 204 without (auditor)", None, anything)},
        "/fairness/tasks/{task_id}": {"get": operation("One own task (auditor)", None, anything, task)},
        "/fairness/tasks/{task_id}/judgements": {
            "post": operation("Judge a pair (auditor)", refs["Judgement"], anything, task, "201")
        },
        "/fairness/reports": {"get": operation("Pairs of a loop with their votes", None, anything, status)},
        "/fairness/reports/{task_id}/adjudicate": {
            "post": operation("Decide a dispute (adjudicator)", refs["Adjudication"], anything, task, "201")
        },
        "/fairness/pairs/{task_id}": {"get": operation("Lineage of a pair (administrator)", None, anything, task)},
        "/fairness/replay": {"post": operation("Judgements under another rule", refs["Replay"], anything)},
        "/fairness/metrics": {"get": operation("How a loop's panels stand", None, anything, loop)},
        "/fairness/appeals": {
            "post": operation("Appeal a decision or a verdict", refs["Appeal"], anything, None, "201")
        },
        "/fairness/export": {"get": operation("The audit log as JSON lines (administrator)", None, anything)},
        "/fairness/verify": {"get": operation("Check the audit log (administrator)", None, anything)},
        "/fairness/people": {
            "get": operation("Everyone (administrator)", None, anything),
            "post": operation("Add someone; the answer holds their key", refs["NewPerson"], anything, None, "201"),
        },
    }
    for methods in made.values():
        for one in methods.values():
            one["security"] = [{"bearer": []}]
    return made
