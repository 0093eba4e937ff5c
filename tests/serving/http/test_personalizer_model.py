"""A version goes out through Personalizer's paths and comes back in, whole or not at all."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.artifact import Manifest, pack
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.oracles.vw import VwOracle
from decision.policy import OraclePolicy
from tests.serving.http.test_app import Caller, open_at
from tests.serving.http.test_personalizer import ASKED, refused
from tests.strategies import interactions_of
from tests.worlds.vw_models import PERSONALIZER, costs, learned, personalizer_line

PLACE = "/personalizer/v1.1-preview.3/model"
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def files_of(oracle: Any, name: str) -> dict[str, bytes]:
    oracle.fit(interactions_of(np.random.default_rng(11), 60))
    policy = OraclePolicy(oracle, Exploration(gamma=7.0))
    told = {"seed": 0, "code_version": "test", "created_at": CREATED.isoformat()}
    return pack(policy, Manifest(loop="news", oracle=name, exploration=policy.exploration, **told))


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Caller]:
    core = open_at(tmp_path)
    yield Caller(core)
    core.close()


def in_charge(call: Caller, files: dict[str, bytes]) -> str:
    version = call.core.registry.register("news", files)
    call.core.registry.set_alias("news", "champion", version, {"verdict": "promoted", "at": "2026-03-04T05:06:07Z"})
    call.core.loops.refresh()
    return version


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return packed.getvalue()


def champion(call: Caller) -> str | None:
    return call.core.registry.aliases("news").get("champion")


def test_an_exported_version_comes_back_after_a_reset_and_answers_as_before(call: Caller) -> None:
    version = in_charge(call, files_of(LinearOracle(), "linear"))
    times = call("GET", f"{PLACE}/properties").json()
    assert datetime.fromisoformat(times["lastModifiedTime"]) == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert call.core.snapshot("news").policy_version == version
    before = call("POST", "/personalizer/v1.0/rank", ASKED | {"eventId": "before"}).json()["ranking"]
    exported = call("GET", PLACE)
    assert exported.headers["content-type"] == "application/octet-stream"
    assert exported.content == call("GET", f"{PLACE}?signed=true").content

    assert call("DELETE", PLACE).status_code == 204
    call.core.loops.refresh()
    assert champion(call) is None
    assert call.core.snapshot("news").policy_version == "baseline:uniform"

    assert call("PUT", PLACE, exported.content).status_code == 204
    call.core.loops.refresh()
    back = champion(call)
    assert back is not None
    after = call("POST", "/personalizer/v1.0/rank", ASKED | {"eventId": "after"}).json()["ranking"]
    assert {each["id"]: each["probability"] for each in after} == {each["id"]: each["probability"] for each in before}
    assert call("PUT", PLACE, exported.content).status_code == 204
    assert champion(call) == back


def test_a_version_of_vw_goes_out_as_vws_own_file(call: Caller) -> None:
    files = files_of(VwOracle(), "vw")
    in_charge(call, files)
    assert call("GET", PLACE).content == files["model.vw"]
    with zipfile.ZipFile(io.BytesIO(call("GET", f"{PLACE}?signed=true").content)) as signed:
        assert {name: signed.read(name) for name in signed.namelist()} == files


def test_a_model_file_of_vw_takes_charge_answers_as_vw_does_and_comes_out_as_it_went_in(
    call: Caller, tmp_path: Path
) -> None:
    lines = [personalizer_line(random.Random(seed)) for seed in range(300)]
    model = learned(lines, PERSONALIZER, tmp_path)
    assert call("PUT", PLACE, model).status_code == 204
    call.core.loops.refresh()
    version = champion(call)
    assert call.core.snapshot("news").policy_version == version
    for number, (line, expected) in enumerate(zip(lines[:9], costs(model, lines[:9], tmp_path), strict=True)):
        actions = [{"id": entry["_tag"], "features": entry["j"]} for entry in line["c"]["_multi"]]
        question = {"contextFeatures": line["c"]["FromUrl"], "actions": actions, "eventId": f"vw-{number}"}
        ranking = call("POST", "/personalizer/v1.0/rank", question).json()["ranking"]
        probability = {each["id"]: each["probability"] for each in ranking}
        best = actions[int(np.argmin(expected))]["id"]
        assert probability[best] == pytest.approx(0.8 + 0.2 / 3)
    assert call("GET", PLACE).content == model
    assert call("PUT", PLACE, model).status_code == 204
    assert champion(call) == version


def test_a_model_file_of_another_learner_is_refused_by_its_option(call: Caller, tmp_path: Path) -> None:
    lines = [personalizer_line(random.Random(seed)) for seed in range(5)]
    answer = call("PUT", PLACE, learned(lines, "--cb_explore_adf --cover 4", tmp_path))
    assert refused(answer)[:2] == (400, "InvalidModelImportFormat")
    message = answer.json()["error"]["message"]
    assert "--cover" in message
    assert "decision import dsjson" in message
    assert champion(call) is None


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda files: b"VW model", "InvalidModelImportFormat"),
        (lambda files: b"", "InvalidModelImportFormat"),
        (lambda files: archive(files)[:-40], "InvalidModelImportFormat"),
        (lambda files: archive({"model.vw": b"9.11"}), "InvalidModelImportFormat"),
        (lambda files: archive({f"f{i}": b"" for i in range(101)}), "InvalidModelImportFormat"),
        (lambda files: archive(files | {"more.txt": b"x"}), "InvalidModelImportSignature"),
        (lambda files: archive({name: data + b" " for name, data in files.items()}), "InvalidModelImportSignature"),
        (lambda files: archive(files | {"manifest.json": b"[]"}), "InvalidModelImportSignature"),
    ],
)
def test_what_is_no_exported_version_changes_nothing(call: Caller, spoil: Any, code: str) -> None:
    files = files_of(LinearOracle(), "linear")
    answer = call("PUT", PLACE, spoil(files))
    assert refused(answer)[:2] == (400, code)
    assert champion(call) is None
    assert call.core.registry.versions("news") == []


def test_an_archive_that_unpacks_to_more_than_a_version_may_have_is_not_unpacked(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.http.personalizer import holdings

    monkeypatch.setattr(holdings, "MAX_BYTES", 100)
    files = files_of(LinearOracle(), "linear")
    assert refused(call("PUT", PLACE, archive(files)))[:2] == (400, "InvalidModelImportFormat")
