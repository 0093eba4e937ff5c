"""The TypeScript client: its types are the service's, and it keeps the rules that the Python client keeps."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from decision_client import Action, Client, DecideRequest, Fallback, KeyRefusedError, OutcomeRequest, RefusedError, Slot
from decision_client import Settings as ClientSettings
from decision_client.fallback import first_action
from infra.clients.typescript import schema
from pipelines.access.keys import add, new_key
from pipelines.operations.processes import free_port
from pipelines.settings import load_settings
from pipelines.state.state import State
from serving.http.app import App
from serving.start import open_core
from tests.browser.console_server import serving
from tests.worlds.node import SOURCE, compiled, ran, tools

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a loop with keys: one that may all, one that has ended, one that may read alone, and one of nobody's."""
    settings = load_settings({}, home=str(tmp_path_factory.mktemp("home")))
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text('[baseline]\nkind = "uniform"\n')
    kinds: dict[str, dict[str, Any]] = {
        "right": {"roles": ["decide", "report", "read", "explain"]},
        "expired": {"roles": ["decide", "report", "read"], "expires_at": NOW - timedelta(days=1)},
        "reader": {"roles": ["read"]},
    }
    tokens = {"wrong": "dk_abcdefghijkl_" + "y" * 43}
    with State(settings.state_url) as state:
        for kind, what in kinds.items():
            key, tokens[kind] = new_key(loops=[], now=LONG_AGO, by="a test", **what)
            add(state, key, by="a test")
    app = App(lambda: open_core(settings))
    with serving(app) as address:
        yield address, tokens
    app.close()


def test_it_asks_reports_and_explains_as_the_contract_of_clients_has_it(
    dist: Path, service: tuple[str, dict[str, str]]
) -> None:
    told = ran(dist, "contract", service[0], service[1]["right"])
    chances = {one["id"]: one["probability"] for one in told["answer"]["ranking"]}
    assert chances.keys() == {"tea", "coffee", "water"}
    assert told["answer"]["propensity"] == chances[told["answer"]["action_id"]]
    assert told["answer"]["event_id"][14] == "7"
    assert told["same"][0] == told["same"][1]
    assert (told["reused"]["name"], told["reused"]["status"]) == ("EventIdReusedError", 409)
    assert told["batch"][0] in chances
    assert told["batch"][1][0] == "EventIdReusedError"
    assert told["batch"][2][1].endswith("actions")
    drawn = {slot["id"]: slot["action_id"] for slot in told["slots"]["slots"]}
    assert len(set(drawn.values())) == 2
    assert told["reported"] == {"accepted": 2, "queued": 0}
    reports = {(one["name"], one["value"], one["action_id"]) for one in told["kept"]["slots"]["outcomes"]}
    assert reports == {("reward", 2.0, drawn["right"]), ("dwell", 1.0, told["slots"]["action_id"])}
    assert {one["name"] for one in told["kept"]["late"]["outcomes"]} == {"activation"}
    assert (told["loops"], told["described"]) == (["news"], "news")
    found = {name: (one["name"], one.get("field")) for name, one in told["errors"].items()}
    assert found == {
        "loop": ("UnknownError", "loop"),
        "event": ("UnknownError", "event_id"),
        "twice": ("RefusedError", "actions[1].id"),
        "nan": ("RefusedError", "decisions[1].context.user.ages[1]"),
        "infinite": ("RefusedError", "value"),
        "ts": ("RefusedError", "ts"),
        "address": ("RangeError", None),
        "setting": ("RangeError", None),
    }
    assert told["noSlot"]["name"] == "RangeError"
    assert told["many"] == [f"p-{n}" for n in range(40)]
    assert told["counts"]["fallbacks"] == told["counts"]["retried"] == 0
    assert told["closed"]["name"] == "UnavailableError"
    assert told["losses"] == []


REFUSED = {"wrong": 401, "expired": 401, "none": 401, "reader": 403}


def test_a_key_that_is_wrong_or_has_ended_is_an_error_of_its_kind_not_asked_again_and_never_the_fallbacks(
    dist: Path, service: tuple[str, dict[str, str]]
) -> None:
    address, tokens = service
    told = ran(dist, "keys", address, tokens)
    decided, batch, reported, counts, waiting = told.pop("right")
    assert "fallback" not in decided["done"]
    assert "action_id" in batch["done"][0]
    assert (reported["done"], waiting, counts["decided"]) == ({"accepted": 1, "queued": 0}, 0, 2)
    assert told.keys() == REFUSED.keys()
    for kind, (*errors, counts, waiting) in told.items():
        assert {(one["name"], one["status"]) for one in errors} == {("KeyRefusedError", REFUSED[kind])}
        assert (counts["retried"], counts["fallbacks"], counts["queued"], waiting) == (0, 0, 0, 0)

    asked = DecideRequest({}, [Action("a"), Action("b")])
    for kind, status in REFUSED.items():  # and so does the Python client
        losses: list[Any] = []
        settings = ClientSettings(timeout_s=120.0, deadline_s=120.0, on_loss=losses.append)
        with Client(address, key=tokens.get(kind), settings=settings) as client:
            for ask in (
                lambda: client.decide("news", asked),
                lambda: client.decide_batch("news", [asked]),
                lambda: client.outcome("news", OutcomeRequest("k-python", 1.0)),
            ):
                with pytest.raises(KeyRefusedError) as refusal:
                    ask()
                assert refusal.value.problem.status == status
            counts = client.counts()
            assert (counts.retried, counts.fallbacks, counts.queued, losses) == (0, 0, 0, [])
    with Client(address, key=tokens["right"], settings=ClientSettings(timeout_s=120.0, deadline_s=120.0)) as client:
        assert client.decide("news", asked).fallback is None


def test_outcomes_and_fallbacks_outlive_a_process_that_was_killed(
    dist: Path, service: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, tokens = service
    path = tmp_path / "outcomes.log"
    nowhere = f"http://127.0.0.1:{free_port()}"
    fallen, counts, waiting = ran(dist, "queued", nowhere, tokens["right"], str(path), ends=-9)
    assert (fallen, counts["queued"], counts["maybeLogged"], waiting) == (True, 3, 0, 3)
    with path.open("a") as file:
        file.write('{"put":[{"id":3,"lo')  # a line on which the process was killed
    told = ran(dist, "restarted", address, tokens["right"], str(path))
    assert told["before"] == 3
    assert told["again"]["fallback"]["reason"]
    assert told["again"]["action_id"] == "first"
    assert told["other"]["name"] == "EventIdReusedError"
    assert (told["left"], told["counts"]["accepted"]) == (0, 3)
    third = ran(dist, "restarted", address, tokens["right"], str(path))
    assert (third["before"], third["counts"]["accepted"]) == (0, 0)


def test_attempts_the_fallback_and_the_queue_are_those_of_the_python_client(dist: Path) -> None:
    told = ran(dist, "faults")
    assert told["again"] == ["b", 1, 5]
    assert (told["fallen"]["action_id"], told["fallen"]["mode"]) == ("a", "fallback")
    assert told["fallen"]["fallback"] == {"reason": "scripted", "maybeLogged": False}
    assert told["maybe"] is True
    assert told["none"]["name"] == "UnavailableError"
    assert told["named"] == "a"
    assert (told["counts"]["fallbacks"], told["counts"]["maybeLogged"]) == (2, 1)
    assert (told["waiting"], told["left"]) == (23, 0)
    assert told["refusals"] == [["o-3", "value: too large"], ["o-17", "value: too large"]]
    assert told["lines"] < 1_000, "a journal is written anew before it grows without end"
    assert told["still"] == 0
    assert told["after"] == [0, 1, 1, "untouched"]
    assert told["full"]["name"] == "QueueFullError"
    assert told["lost"] == 1
    wanted = [["decision", "f"], ["decision", "m"], ["outcome", "o-3"], ["outcome", "o-17"]]
    wanted += [["outcome", "waits"], ["outcome", "q-0"]]
    assert told["losses"] == wanted


def test_its_fallback_takes_what_that_of_the_python_client_takes(dist: Path) -> None:
    rng, names = random.Random(12), [f"a{n}" for n in range(6)]
    asked: list[dict[str, Any]] = []
    wanted: list[Any] = []
    for _ in range(300):
        offered = rng.sample(names, rng.randint(1, 5))
        slots = [
            {
                "id": f"s{n}",
                "excluded_actions": rng.sample(names, rng.randint(0, 3)),
                "baseline_action": rng.choice(offered),
            }
            for n in range(rng.randint(0, 3))
        ]
        excluded = rng.sample(names, rng.randint(0, 2))
        question = {"context": {}, "actions": [{"id": name} for name in offered], "excluded_actions": excluded}
        asked.append({**question, "slots": slots} if slots else question)
        ours = [Slot(slot["id"], {}, slot["excluded_actions"], slot["baseline_action"]) for slot in slots] or None
        request = DecideRequest({}, [Action(name) for name in offered], excluded_actions=excluded, slots=ours)
        try:
            found = first_action(request, Fallback("absent", maybe_logged=False))
            wanted.append([found.action_id, [slot.action_id for slot in found.slots or ()]])
        except RefusedError:
            wanted.append("RefusedError")
    assert "RefusedError" in wanted
    assert ran(dist, "fallbacks", asked) == wanted


def test_its_types_are_those_that_the_service_describes(tmp_path: Path) -> None:
    cli = tools() / "openapi-typescript/bin/cli.js"
    assert schema.SCHEMA.read_text("utf-8") == schema.drawn(cli, tmp_path), "run `make client-schema`"
    package = json.loads((SOURCE / "package.json").read_text())
    assert "dependencies" not in package
