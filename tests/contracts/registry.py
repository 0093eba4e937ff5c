"""The contract of a registry: what training, promotion and the service rely on, whatever keeps the versions.

Each check gets a way to open the registry; a call with another home is another machine that shares it. The name of
the loop is the check's own.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import pytest

from decision.errors import FieldError
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.registry.tracking import MissingError, RegistryError


class Open(Protocol):
    """Opens the registry, as the machine of that name sees it."""

    def __call__(self, machine: str = "one") -> Registry:
        """Return a handle of its own."""
        ...


def packed(**files: bytes) -> dict[str, bytes]:
    """Return files with their manifest; an underscore in a name stands for the dot."""
    named = {name.replace("_", "."): data for name, data in files.items()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in named.items()}
    return {**named, "manifest.json": msgspec.json.encode({"files": hashes})}


def check_files_come_back_byte_for_byte_on_another_machine(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    files = packed(model_vw=b"\x00\x01weights", scale_json=b"{}")
    version = registry.register(loop, files, metrics={"value": 0.5, "bad": float("nan")}, params={"seed": 3})
    assert open_registry("two").files(loop, version) == files
    assert registry.files(loop, version) == files
    assert registry.metrics(loop, version) == {"value": 0.5}


def check_versions_are_counted_and_carry_their_tags(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    assert registry.versions(loop) == []
    assert registry.aliases(loop) == {}
    for number in range(1, 12):
        assert registry.register(loop, packed(a=b"1"), tags={"kind": "policy"}) == str(number)
    found = open_registry("two").versions(loop)
    assert [entry.version for entry in found] == [str(number) for number in range(1, 12)]
    assert {entry.tags["kind"] for entry in found} == {"policy"}


def check_a_key_registers_once(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    first = registry.register(loop, packed(a=b"1"), key="nightly:1")
    assert open_registry("two").register(loop, packed(a=b"2"), key="nightly:1") == first
    assert registry.register(loop, packed(a=b"2"), key="nightly:2") != first


def check_files_that_are_not_those_of_their_manifest_are_refused(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    with pytest.raises(FieldError, match="sha256"):
        registry.register(loop, {**packed(a=b"1"), "a": b"2"})
    assert registry.versions(loop) == []


def check_an_alias_moves_with_its_verdict(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    first, second = (registry.register(loop, packed(a=data)) for data in (b"1", b"2"))
    verdict = {"verdict": "promoted", "reasons": ["better"], "numbers": {"low": 0.1}, "by": "a test", "at": "now"}
    registry.set_alias(loop, "champion", first, verdict, expected=None)
    registry.set_alias(loop, "champion", second, verdict, expected=first)
    registry.refuse(loop, first, {"verdict": "refused", "reasons": ["worse"]})
    other = open_registry("two")
    assert other.aliases(loop) == {"champion": second}
    found = other.verdicts(loop)
    assert [(entry.number, entry.verdict, entry.alias, entry.from_version, entry.to_version) for entry in found] == [
        (1, "promoted", "champion", None, first),
        (2, "promoted", "champion", first, second),
        (3, "refused", "", None, None),
    ]
    assert (found[1].reasons, found[1].numbers, found[1].by, found[1].at) == (["better"], {"low": 0.1}, "a test", "now")


def check_an_alias_that_stands_elsewhere_than_expected_stays_there(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    first, second = (registry.register(loop, packed(a=data)) for data in (b"1", b"2"))
    registry.set_alias(loop, "champion", first, {})
    with pytest.raises(AliasMovedError, match="expected version None, found 1"):
        registry.set_alias(loop, "champion", second, {}, expected=None)
    assert registry.aliases(loop) == {"champion": first}
    assert len(registry.verdicts(loop)) == 1


def check_of_movers_that_race_on_one_machine_exactly_one_wins(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    versions = [registry.register(loop, packed(a=b"%d" % number)) for number in range(4)]

    def move(version: str) -> bool:
        try:
            open_registry().set_alias(loop, "champion", version, {}, expected=None)
        except AliasMovedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(move, versions)) == [False, False, False, True]
    assert len(registry.verdicts(loop)) == 1


def check_an_alias_taken_away_is_gone(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    version = registry.register(loop, packed(a=b"1"))
    registry.set_alias(loop, "champion", version, {})
    registry.set_alias(loop, "champion", None, {"verdict": "rolled_back"})
    assert registry.aliases(loop) == {}
    with pytest.raises(RegistryError, match="nowhere"):
        registry.set_alias(loop, "champion", None, {})


def check_moves_to_nothing_and_unknown_aliases_are_refused(open_registry: Open, loop: str) -> None:
    registry = open_registry()
    registry.register(loop, packed(a=b"1"))
    with pytest.raises(FieldError, match="alias"):
        registry.set_alias(loop, "king", "1", {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(RegistryError, match="not found"):
        registry.set_alias(loop, "champion", "9", {})
    with pytest.raises(RegistryError, match="not found"):
        registry.files(loop, "9")
    assert registry.verdicts(loop) == []


def check_a_version_that_goes_is_read_and_put_in_charge_no_more(open_registry: Open, loop: str) -> None:
    registry, other = open_registry(), open_registry("two")
    for number in range(1, 4):
        registry.register(loop, packed(a=b"%d" % number), metrics={"value": 0.5})
    registry.set_alias(loop, "champion", "3", {"verdict": "promoted"})
    marked = registry.let_go(loop, lambda *_: ["1", "3"])
    if not registry.is_stated:  # homes that share no State cannot agree on it
        assert marked == []
        assert other.files(loop, "1") == packed(a=b"1")
        return
    (going,) = marked  # an alias stands at the other
    assert registry.size(loop, going) > 0
    for ask in (lambda: other.files(loop, "1"), lambda: other.set_alias(loop, "champion", "1", {"verdict": "set"})):
        with pytest.raises(MissingError, match=r"version 1 of .* is gone"):
            ask()
    for _ in range(2):  # where the first call was cut short, another one goes on
        registry.remove(loop, going)
    assert registry.size(loop, going) == 0
    assert [version.kept for version in other.versions(loop)] == ["gone", "whole", "whole"]
    assert registry.let_go(loop, lambda *_: ["1"]) == []
    assert other.register(loop, packed(a=b"4")) == "4"
    assert other.files(loop, "2") == packed(a=b"2")


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
