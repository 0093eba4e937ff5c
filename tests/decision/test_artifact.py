from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from decision.artifact import MANIFEST_FILE, Manifest, Trusted, model_of, pack, unpack
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.oracles.factory import load_oracle
from decision.oracles.linear import LinearOracle
from decision.oracles.vw import VwOracle, VwSettings
from decision.policy import CappedPolicy, OraclePolicy, blinded
from tests.strategies import interactions_of

DATA = interactions_of(np.random.default_rng(0), 200)
MAKE = {"vw": lambda: VwOracle(VwSettings(bits=12)), "linear": LinearOracle}

MANIFEST_V1 = b"""{"schema_version":1,"loop":"news","oracle":"linear","exploration":{"kind":"squarecb","gamma":1000.0,
"epsilon":0.1,"floor":0.05},"reward":{"minimum":0.0},"training":{"passes":3},"data":{"rows":200},"seed":7,
"code_version":"0.1.0","libraries":{"numpy":"2.4.0"},"created_at":"2026-11-01T00:00:00+00:00","parent":"3",
"files":{"linear.json":"00"}}"""


def packed(kind: str, *, fit: bool = True) -> tuple[OraclePolicy, dict[str, bytes]]:
    oracle = MAKE[kind]()
    if fit:
        oracle.fit(DATA)
    policy = OraclePolicy(oracle, Exploration(gamma=50.0, floor=0.1))
    manifest = Manifest(
        loop="news", oracle=kind, exploration=policy.exploration, seed=7, code_version="0", created_at="2026-11-01"
    )
    return policy, pack(policy, manifest)


@pytest.mark.parametrize("fit", [True, False], ids=["trained", "cold"])
@pytest.mark.parametrize("kind", MAKE)
def test_unpacked_policy_decides_as_the_packed_one(kind: str, fit: bool) -> None:
    policy, files = packed(kind, fit=fit)
    again, manifest = unpack(files)
    assert np.array_equal(again.pmf(DATA.batch), policy.pmf(DATA.batch))
    assert (manifest.loop, manifest.seed, manifest.exploration) == ("news", 7, policy.exploration)
    assert set(manifest.files) == set(files) - {MANIFEST_FILE}


def with_a_cap() -> tuple[CappedPolicy, Manifest]:
    parts = []
    for supplied in ((), ("c0",)):
        oracle = LinearOracle()
        oracle.fit(replace(DATA, batch=blinded(DATA.batch, supplied)))
        parts.append(OraclePolicy(oracle, Exploration(kind="squarecb", gamma=5e3 + len(supplied), floor=0.1)))
    policy = CappedPolicy(*parts, supplied=("c0",), cap=1.0)
    near = Trusted(supplied=("c0",), cap=1.0, oracle="linear", exploration=policy.trusted.exploration)
    numbers = {"loop": "news", "oracle": "linear", "seed": 7, "code_version": "0", "created_at": "2026-11-01"}
    return policy, Manifest(**numbers, exploration=policy.exploration, trusted=near)


def test_a_policy_with_a_cap_is_loaded_with_both_its_models() -> None:
    policy, manifest = with_a_cap()
    files = pack(policy, manifest)
    again, found = unpack(files)
    assert isinstance(again, CappedPolicy)
    assert found.trusted == manifest.trusted
    assert np.array_equal(again.pmf(DATA.batch), policy.pmf(DATA.batch))
    assert not np.array_equal(again.pmf(DATA.batch), policy.full.pmf(DATA.batch))
    assert model_of(files) == policy.full.oracle.save()
    assert model_of(files, trusted=True) == policy.trusted.oracle.save()


def test_a_cap_that_the_manifest_does_not_name_is_not_packed() -> None:
    policy, manifest = with_a_cap()
    for one, told in ((policy, None), (policy.full, manifest.trusted)):
        with pytest.raises(FieldError, match="trusted"):
            pack(one, msgspec.structs.replace(manifest, trusted=told))


def test_a_cap_outside_its_range_is_refused() -> None:
    policy, manifest = with_a_cap()
    files = pack(policy, manifest)
    stored = json.loads(files[MANIFEST_FILE])
    stored["trusted"]["cap"] = -1
    with pytest.raises(FieldError, match="manifest"):
        unpack(files | {MANIFEST_FILE: json.dumps(stored).encode()})


@pytest.mark.parametrize("kind", MAKE)
def test_packed_files_are_the_same_every_time(kind: str) -> None:
    assert packed(kind)[1] == packed(kind)[1]


@pytest.mark.parametrize("kind", MAKE)
def test_every_changed_bit_is_found(kind: str) -> None:
    _, files = packed(kind)
    for name in set(files) - {MANIFEST_FILE}:
        for place in (0, len(files[name]) // 2, -1):
            changed = bytearray(files[name])
            changed[place] ^= 1
            with pytest.raises(FieldError) as caught:
                unpack(files | {name: bytes(changed)})
            assert caught.value.field == f"files.{name}"


def test_missing_and_unexpected_files_are_refused() -> None:
    _, files = packed("linear")
    for wrong in ({**files, "extra.bin": b"x"}, {k: v for k, v in files.items() if k != "linear.f64"}):
        with pytest.raises(FieldError) as caught:
            unpack(wrong)
        assert caught.value.field == "files"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"oracle": "pickle"}, "oracle"),
        ({"surprise": 1}, MANIFEST_FILE),
        ({"seed": "seven"}, MANIFEST_FILE),
        ({"exploration": {"kind": "squarecb", "floor": 1.5}}, MANIFEST_FILE),
        ({"exploration": {"kind": "anneal"}}, MANIFEST_FILE),
    ],
)
def test_manifest_that_does_not_fit_is_refused(change: dict, field: str) -> None:
    _, files = packed("linear")
    manifest = json.loads(files[MANIFEST_FILE]) | change
    with pytest.raises(FieldError) as caught:
        unpack(files | {MANIFEST_FILE: json.dumps(manifest).encode()})
    assert caught.value.field == field


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"loop":"\xff"}', b'{"data":' + b'{"a":' * 99_999])
def test_manifest_that_is_none_is_refused(data: bytes) -> None:
    _, files = packed("linear")
    with pytest.raises(FieldError) as caught:
        unpack(files | {MANIFEST_FILE: data})
    assert caught.value.field == MANIFEST_FILE


def test_without_a_manifest_there_is_no_policy() -> None:
    with pytest.raises(FieldError, match="manifest"):
        unpack({})


def test_a_version_says_nothing_of_what_earlier_releases_do_not_know_unless_it_has_it() -> None:
    plain = json.loads(packed("linear")[1][MANIFEST_FILE])
    assert plain.keys() == json.loads(MANIFEST_V1).keys() | {"action_ids", "features_version"}
    assert "steepness" not in plain["exploration"]
    policy, manifest = with_a_cap()
    assert json.loads(pack(policy, manifest)[MANIFEST_FILE])["trusted"]["cap"] == 1.0


def test_manifest_of_version_1_is_read_for_ever() -> None:
    files = {MANIFEST_FILE: MANIFEST_V1, "linear.json": b"{}"}
    with pytest.raises(FieldError) as caught:  # read as far as the hash of its file, which is not that of "{}"
        unpack(files)
    assert caught.value.field == "files.linear.json"


def test_oracle_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(FieldError, match=r"must be .*logistic"):
        load_oracle("forest", {})
