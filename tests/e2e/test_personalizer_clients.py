"""Personalizer's own clients, as they come from the registries, against the service: every operation that they have."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.artifact import Manifest, pack
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy
from pipelines.settings import load_loop
from serving.http.app import App
from serving.start import open_core
from tests.browser.console_server import serving
from tests.parts import require
from tests.strategies import interactions_of
from tests.worlds.synthetic import new_loop, new_settings, open_parts, play, settle

KEY = "key-of-the-clients"
ACTIONS = [{"id": "pasta", "features": [{"taste": "salty"}]}, {"id": "ice", "features": [{"taste": "sweet"}]}]
RANK = {"contextFeatures": [{"time": "morning"}], "actions": ACTIONS}
SLOTS = [{"id": "main", "baselineAction": "pasta"}, {"id": "side", "baselineAction": "ice"}]
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
EVALUATION = {
    "name": "all",
    "startTime": "2020-01-01T00:00:00Z",
    "endTime": "2100-01-01T00:00:00Z",
    "policies": [{"name": "bold", "arguments": "--oracle linear --exploration epsilon_greedy --epsilon 0.1"}],
}
VW = {"name": "ours", "arguments": "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"}
NODE_PACKAGES = ("@azure/cognitiveservices-personalizer@2.0.1", "@azure-rest/ai-personalizer@1.0.0-beta.1")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, App]]:
    """Serve two loops; the one that the host leads to has decisions and a version in charge."""
    settings = new_settings(tmp_path_factory.mktemp("home"))
    loop = new_loop(settings, "news", 'hosts = ["127.0.0.1"]\n[reward]\nminimum = 0.0\nmaximum = 1.0\n')
    new_loop(settings, "other", "")
    log, lake = open_parts(settings)
    play(log, "news", 1_000)
    settle(log, lake, loop)
    log.close()
    core = open_core(settings)
    oracle = LinearOracle()
    oracle.fit(interactions_of(np.random.default_rng(3), 60))
    policy = OraclePolicy(oracle, Exploration())
    told = {"seed": 0, "code_version": "test", "created_at": "2026-01-01T00:00:00+00:00"}
    files = pack(policy, Manifest(loop="news", oracle="linear", exploration=policy.exploration, **told))
    core.registry.set_alias("news", "champion", core.registry.register("news", files), {"verdict": "promoted"})
    app = App(lambda: core)
    with serving(app) as address:
        yield address, app
    app.close()


def evaluated() -> None:
    """Wait for the evaluations that are under way."""
    for thread in threading.enumerate():
        if thread.name == "evaluation":
            thread.join(300)


def test_the_client_of_v1_ranks_rewards_and_activates_and_reads_our_errors(service: tuple[str, App]) -> None:
    from azure.cognitiveservices.personalizer import PersonalizerClient
    from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
    from msrest.authentication import CognitiveServicesCredentials
    from msrest.exceptions import HttpOperationError

    client = PersonalizerClient(service[0], CognitiveServicesCredentials(KEY))
    actions = [RankableAction(**each) for each in ACTIONS]
    request = RankRequest(
        actions=actions,
        context_features=[{"time": "noon"}],
        excluded_actions=["ice"],
        event_id="v1",
        defer_activation=True,
    )
    ranked = client.rank(rank_request=request)
    assert (ranked.reward_action_id, ranked.event_id) == ("pasta", "v1")
    assert {each.id: each.probability for each in ranked.ranking} == {"pasta": 1.0, "ice": 0.0}
    client.events.activate(event_id="v1")
    client.events.reward(event_id="v1", value=0.5)
    with pytest.raises(ErrorResponseException) as refusal:
        client.rank(rank_request=RankRequest(actions=[]))
    assert refusal.value.error.error.code == "InvalidRankRequest"
    with pytest.raises(HttpOperationError) as status:
        client.events.reward(event_id="v1", value=2.0)
    assert status.value.response.status_code == 400


def operations_of_2022(address: str) -> dict[str, Callable[[], Any]]:
    """Return every operation of the client of 2022-09-01-preview, in an order in which each finds what it needs."""
    from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient
    from azure.core.credentials import AzureKeyCredential

    client = PersonalizerClient(address, AzureKeyCredential(KEY))
    admin = PersonalizerAdministrationClient(address, AzureKeyCredential(KEY))
    exported: list[bytes] = []

    def read() -> Any:
        evaluated()
        return admin.get_evaluation("e1", start_time=START, end_time=END)

    importance = {"name": "f", "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-02-01T00:00:00Z"}
    return {
        "rank": lambda: client.rank({**RANK, "eventId": "one"}),
        "activate": lambda: client.activate("one"),
        "reward": lambda: client.reward("one", {"value": 1.0}),
        "rank_multi_slot": lambda: client.rank_multi_slot({**RANK, "slots": SLOTS, "eventId": "many"}),
        "activate_multi_slot": lambda: client.activate_multi_slot("many"),
        "reward_multi_slot": lambda: client.reward_multi_slot("many", {"reward": [{"slotId": "side", "value": 1.0}]}),
        "get_service_configuration": admin.get_service_configuration,
        "update_service_configuration": lambda: admin.update_service_configuration(
            {**admin.get_service_configuration(), "explorationPercentage": 0.3, "modelExportFrequency": "PT5M"}
        ),
        "create_evaluation": lambda: admin.create_evaluation("e1", EVALUATION),
        "get_evaluation": read,
        "list_evaluations": lambda: list(admin.list_evaluations()),
        "apply_from_evaluation": lambda: admin.apply_from_evaluation({"evaluationId": "e1", "policyName": "bold"}),
        "delete_evaluation": lambda: admin.delete_evaluation("e1"),
        "get_policy": admin.get_policy,
        "update_policy": lambda: admin.update_policy(VW),
        "reset_policy": admin.reset_policy,
        "export_model": lambda: exported.append(b"".join(admin.export_model(signed=True))),
        "get_model_properties": admin.get_model_properties,
        "reset_model": admin.reset_model,
        "import_model": lambda: admin.import_model(io.BytesIO(exported[0])),
        "get_log_properties": admin.get_log_properties,
        "delete_logs": admin.delete_logs,
        "create_feature_importance": lambda: admin.create_feature_importance("f1", importance),
        "get_feature_importance": lambda: admin.get_feature_importance("f1"),
        "list_feature_importances": lambda: list(admin.list_feature_importances()),
        "delete_feature_importance": lambda: admin.delete_feature_importance("f1"),
    }


NOT_DONE = {
    *("delete_logs", "create_feature_importance", "get_feature_importance"),
    *("list_feature_importances", "delete_feature_importance"),
}


def test_every_operation_of_the_client_of_2022_is_done_or_says_what_does_it(service: tuple[str, App]) -> None:
    from azure.core.exceptions import HttpResponseError

    (address, app), path = service, "/loops/news"
    registry, settings = app.core.registry, app.core.settings
    answers: dict[str, Any] = {}
    refused: dict[str, Any] = {}
    before = registry.aliases("news")["champion"]
    for name, ask in operations_of_2022(address + path).items():
        try:
            answers[name] = ask()
        except HttpResponseError as error:
            refused[name] = (error.status_code, json.loads(error.response.text())["error"])
        if name == "update_service_configuration":
            assert load_loop(settings, "news", {}).baseline.explore == 0.3
        elif name == "apply_from_evaluation":
            assert load_loop(settings, "news", {}).policy.epsilon == 0.1
        elif name == "update_policy":
            assert load_loop(settings, "news", {}).policy.oracle == "vw"
        elif name == "reset_model":
            assert "champion" not in registry.aliases("news")
    assert refused.keys() == NOT_DONE
    assert len(answers) == 21
    for status, error in refused.values():
        assert (status, error["code"]) == (400, "OperationNotAllowed")
        assert "`decision " in error["message"]
    assert answers["rank"]["eventId"] == "one"
    assert {slot["id"] for slot in answers["rank_multi_slot"]["slots"]} == {"main", "side"}
    evaluation = answers["get_evaluation"]
    assert evaluation["status"] == "Succeeded", evaluation["description"]
    by_source = {one["policySource"]: one["summary"] for one in evaluation["content"]["value"]}
    assert by_source.keys() == {"Online", "Baseline", "Random", "Custom"}
    low, high = by_source["Random"]["confidenceInterval"]
    assert low < by_source["Random"]["expectedReward"] < high
    assert by_source["Custom"]["confidenceInterval"][0] > by_source["Random"]["expectedReward"]
    assert [one["id"] for one in answers["list_evaluations"]] == ["e1"]
    assert registry.files("news", registry.aliases("news")["champion"]) == registry.files("news", before)
    assert answers["get_log_properties"]["dateRange"]["from"].startswith("2026-01-01T00:00:00")


PROGRAM = r"""
const old = require("@azure/cognitiveservices-personalizer");
const rest = require("@azure-rest/ai-personalizer").default;
const [root, key] = process.argv.slice(2);
const address = root + "/loops/news";  // the older client forgets what follows the host
const RANK = JSON.parse(process.argv[4]), SLOTS = JSON.parse(process.argv[5]);
const EVALUATION = JSON.parse(process.argv[6]), VW = JSON.parse(process.argv[7]);
class Credentials {
  async signRequest(request) { request.headers.set("Ocp-Apim-Subscription-Key", key); return request; }
}
(async () => {
  const told = {};
  const first = new old.PersonalizerClient(new Credentials(), root, { noRetryPolicy: true });
  const ranked = await first.rank({ ...RANK, eventId: "js-old" });
  await first.events.activate("js-old");
  await first.events.reward("js-old", { value: 1 });
  told["old"] = ranked.rewardActionId;
  const client = rest(address, { key }, { allowInsecureConnection: true });
  const ask = async (name, request) => {
    const answer = await request;
    told[name] = [Number(answer.status), answer.body];
    return answer;
  };
  const at = (...path) => client.path(...path);
  await ask("rank", at("/rank").post({ body: { ...RANK, eventId: "js" } }));
  await ask("activate", at("/events/{eventId}/activate", "js").post());
  await ask("reward", at("/events/{eventId}/reward", "js").post({ body: { value: -1 } }));
  await ask("rankSlots", at("/multislot/rank").post({ body: { ...RANK, slots: SLOTS, eventId: "js-many" } }));
  await ask("activateSlots", at("/multislot/events/{eventId}/activate", "js-many").post());
  const rewards = { reward: [{ slotId: "main", value: 1 }] };
  await ask("rewardSlots", at("/multislot/events/{eventId}/reward", "js-many").post({ body: rewards }));
  const service = await ask("service", at("/configurations/service").get());
  const changed = { ...service.body, explorationPercentage: 0.25 };
  await ask("updateService", at("/configurations/service").put({ body: changed }));
  await ask("policy", at("/configurations/policy").get());
  await ask("updatePolicy", at("/configurations/policy").put({ body: VW }));
  await ask("resetPolicy", at("/configurations/policy").delete());
  const made = await ask("createEvaluation", at("/evaluations").post({ body: EVALUATION }));
  let read = made;
  while (read.body.status === "pending") {
    await new Promise((resolve) => setTimeout(resolve, 200));
    read = await ask("evaluation", at("/evaluations/{evaluationId}", made.body.id).get());
  }
  await ask("evaluations", at("/evaluations").get());
  const reference = { evaluationId: made.body.id, policyName: "bold" };
  await ask("apply", at("/configurations/applyFromEvaluation").post({ body: reference }));
  await ask("deleteEvaluation", at("/evaluations/{evaluationId}", made.body.id).delete());
  await ask("modelProperties", at("/model/properties").get());
  const model = await at("/model").get({ queryParameters: { signed: true } }).asNodeStream();
  const parts = [];
  for await (const part of model.body) parts.push(part);
  told["model"] = [Number(model.status), Buffer.concat(parts).length];
  const octets = { contentType: "application/octet-stream" };
  await ask("resetModel", at("/model").delete());
  await ask("importModel", at("/model").put({ ...octets, body: new Uint8Array(Buffer.concat(parts)) }));
  await ask("logs", at("/logs/properties").get());
  await ask("deleteLogs", at("/logs").delete());
  await ask("interactions", at("/logs/interactions").post({ ...octets, body: new Uint8Array([1, 2]) }));
  await ask("observations", at("/logs/observations").post({ ...octets, body: new Uint8Array([1, 2]) }));
  console.log(JSON.stringify(told));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def node_packages() -> Path:
    """Return a folder with the clients, fetched once into a cache folder."""
    require(shutil.which("npm"), "npm is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decision-service" / "personalizer"
    if not all((cache / "node_modules" / name.rpartition("@")[0]).is_dir() for name in NODE_PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(cache), *NODE_PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"npm cannot fetch {', '.join(NODE_PACKAGES)}: {done.stderr[-300:]}")
    return cache


def test_every_operation_of_the_javascript_clients_is_done_or_says_what_does_it(service: tuple[str, App]) -> None:
    cache = node_packages()
    program = cache / f"program-{os.getpid()}.cjs"
    program.write_text(PROGRAM)
    arguments = [service[0], KEY, *map(json.dumps, (RANK, SLOTS, EVALUATION, VW))]
    try:
        ran = subprocess.run(
            ["node", str(program), *arguments], capture_output=True, text=True, check=False, timeout=600
        )
    finally:
        program.unlink()
    assert ran.returncode == 0, ran.stderr[-2_000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told.pop("old") in ("pasta", "ice")
    assert len(told) == 24
    refused = {name: body["error"]["code"] for name, (status, body) in told.items() if status >= 400}
    assert refused == dict.fromkeys(("deleteLogs", "interactions", "observations"), "OperationNotAllowed")
    assert told["service"][1]["explorationPercentage"] != told["updateService"][1]["explorationPercentage"] == 0.25
    evaluation = told["evaluation"][1]
    assert evaluation["status"] == "completed", evaluation["description"]
    assert {one["policySource"] for one in evaluation["policyResults"]} == {"Online", "Baseline", "Random", "Custom"}
    assert told["model"][1] > 100
