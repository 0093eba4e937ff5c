"""Compose and Kubernetes: valid by their schemas, with settings that exist, without secrets, contained."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipelines.operations.doctor import ADDRESSES
from pipelines.settings import Settings, load_settings
from serving.http import operations
from tests.promtool import promtool
from tests.worlds.s3 import S3

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra/compose/compose.yaml"
KUBERNETES = ROOT / "infra/kubernetes"
FORMS = sorted(file.parent.name for file in KUBERNETES.glob("*/kustomization.yaml") if file.parent.name != "base")
KNOWN = {f"DECISION_{name.upper()}" for name in Settings.__struct_fields__}
MANIFESTS = sorted(file for file in KUBERNETES.glob("*/*.yaml") if file.name != "kustomization.yaml")
PODS = {
    file: resource["spec"].get("jobTemplate", resource)["spec"]["template"]["spec"]
    for file in MANIFESTS
    if (resource := yaml.safe_load(file.read_text()))["kind"] in ("CronJob", "Deployment", "StatefulSet")
}


def documents(text: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all(text)


def schema_of_compose(file: Path) -> int:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", file]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_compose_fits_its_schema(tmp_path: Path) -> None:
    assert schema_of_compose(COMPOSE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("depends_on: [s3]", "depend_on: [s3]"))
    assert schema_of_compose(wrong) == 1


def test_compose_names_settings_that_exist_files_that_are_there_and_no_secret() -> None:
    text = COMPOSE.read_text()
    assert set(re.findall(r"\bDECISION_[A-Z_]+", text)) <= KNOWN
    secrets = yaml.safe_load(text)["secrets"].values()
    wanted = {*re.findall(r"\$\{(\w+):\?", text), *(secret["environment"] for secret in secrets)}
    assert wanted == set(re.findall(r"^(\w+)=$", (COMPOSE.parent / "example.env").read_text(), re.MULTILINE))
    for secret in re.findall(r"(?:PASSWORD|SECRET\w*|API_KEYS): (.*)", text):
        assert re.fullmatch(r"\$\{\w+:\?in .env\}", secret), secret
    assert all(re.match(r"\$\{\w+:\?", password) for password in re.findall(r"://\w+:(\$\{[^}]*\}|[^@/\s]+)@", text))
    services = yaml.safe_load(text)["services"]
    mounted = [volume.split(":")[0] for each in services.values() for volume in each.get("volumes", [])]
    assert [path for path in mounted if path.startswith(".") and not (COMPOSE.parent / path).exists()] == []
    assert all(":" in each["image"] or each["image"] == "decision" for each in services.values())
    broker = re.search(r"<version>([\d.]{5,})</version>", (ROOT / "infra/kafka/pom.xml").read_text())
    assert broker is not None
    assert services["kafka"]["image"] == f"apache/kafka:{broker[1]}"


def test_the_service_takes_the_settings_that_compose_gives() -> None:
    given = yaml.safe_load(COMPOSE.read_text())["services"]["service"]["environment"]
    values = {name: re.sub(r"\$\{\w+:\?in .env\}", "chosen", value) for name, value in given.items()}
    settings = load_settings(values)
    assert settings.state_url == "postgresql://decision:chosen@postgres:5432/decision"
    addresses = {finding for finding in ADDRESSES if finding != "home"}
    assert all(ADDRESSES[name].shared(settings) for name in addresses)


def test_the_bucket_of_compose_is_made_once_and_found_again() -> None:
    with S3() as s3:
        variables = {**os.environ, **s3.environment, "DECISION_FILES": "s3://decision/installation"}
        for asked in ("PUT /decision", ""):
            s3.asked()
            subprocess.run([sys.executable, COMPOSE.parent / "bucket.py"], env=variables, check=True)
            assert [line for line in s3.asked() if line.startswith("PUT")] == ([asked] if asked else [])


def test_prometheus_reads_its_configuration() -> None:
    done = promtool("check", "config", "--syntax-only", ROOT / "infra/compose/prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_manifest_fits_the_schema_of_kubernetes_and_a_misspelt_key_does_not(file: Path) -> None:
    for resource in documents(file.read_text()):
        kubernetes_validate.validate(resource, "1.35", strict=True)
        wrong = copy.deepcopy(resource)
        wrong["metadata"]["lables"] = {}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.35", strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_kustomize_puts_a_form_together(form: str) -> None:
    for folder in (KUBERNETES / form, KUBERNETES / "base"):
        named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(named) - {"../base"} == files
    kubectl = shutil.which("kubectl")
    if kubectl is None:  # an additional check: schemas and names are held without it
        pytest.skip("kubectl is not installed")
    built = subprocess.run([kubectl, "kustomize", KUBERNETES / form], capture_output=True, text=True, check=True)
    kinds = [resource["kind"] for resource in documents(built.stdout)]
    assert kinds.count("ConfigMap") == 1
    assert {"StatefulSet" if form == "disk" else "Deployment", "CronJob", "HorizontalPodAutoscaler"} <= set(kinds)
    for resource in documents(built.stdout):
        kubernetes_validate.validate(resource, "1.35", strict=True)


@pytest.mark.parametrize("file", PODS, ids=lambda file: file.stem)
def test_a_pod_is_contained_and_writes_to_its_folders_only(file: Path) -> None:
    pod = PODS[file]
    assert pod["automountServiceAccountToken"] is False
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (10001, True)
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert mounts <= {"/var/lib/decision", "/tmp"}
    assert all({"cpu", "memory"} <= set(container["resources"]["requests"]) for container in pod["containers"])


def test_probes_ask_what_the_service_answers_and_it_has_time_to_end() -> None:
    settings = load_settings(yaml.safe_load((KUBERNETES / "base/settings.yaml").read_text())["data"])
    assert settings.drain_s > 0
    paths = {route.path for route in operations.routes(lambda: b"", lambda: None)}
    for pod in (pod for file, pod in PODS.items() if file.parent.name in FORMS):
        (container,) = pod["containers"]
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
        assert {probe["path"] for probe in probes.values()} <= paths
        assert probes["readiness"]["path"] == "/readyz"
        forwards = (
            settings.grace_s if {"name": "DECISION_ACK", "value": "kafka"} not in container.get("env", []) else 0.0
        )
        assert pod["terminationGracePeriodSeconds"] > settings.drain_s + 20 + forwards


def test_manifests_name_settings_that_exist_and_no_secret() -> None:
    texts = [file.read_text() for file in (*MANIFESTS, KUBERNETES / "secret.example.env")]
    assert set[str]().union(*(re.findall(r"\bDECISION_[A-Z_]+", text) for text in texts)) <= KNOWN
    secrets = (KUBERNETES / "secret.example.env").read_text()
    assert set(re.findall(r"://\w*:(\w+)@", secrets)) == {"PASSWORD"}
    assert re.findall(r"^\w*(?:KEYS?|KEY_ID|SECRET\w*)=(.+)$", secrets, re.MULTILINE) == []
    assert [text for text in texts if "kind: Secret\n" in text] == []
