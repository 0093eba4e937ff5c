"""The files that a forge reads: its CI runs what anyone can run, and its forms are well-formed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
NEEDS = {"markdown": "value", "textarea": "label", "input": "label", "dropdown": "label", "checkboxes": "label"}


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


def test_ci_of_a_forge_runs_the_script_of_the_repository_and_no_test_of_its_own() -> None:
    workflow = read(ROOT / ".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[-1] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert not any(word in run for run in runs[:-1] for word in ("pytest", "make "))
    assert workflow["permissions"] == {"contents": "read"}
    assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)


@pytest.mark.parametrize("path", [form for form in FORMS if form.name != "config.yml"], ids=lambda path: path.name)
def test_an_issue_form_has_what_a_forge_asks_of_it(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    for field in form["body"]:
        assert field["attributes"][NEEDS[field["type"]]]
        assert field["type"] != "dropdown" or len(set(field["attributes"]["options"])) > 1
