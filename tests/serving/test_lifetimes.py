"""What is opened is closed: threads and descriptors end with their core, whoever closes it and how often."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.settings import Settings, load_settings
from pipelines.state.failures import StateError
from serving.client import Client
from serving.errors import UnavailableError, UnknownLoopError
from serving.http.app import App
from serving.start import open_core
from serving.wire import Action, DecideRequest, OutcomeRequest


def settings_at(home: Path, text: str = "", **more: object) -> Settings:
    path = home / "loops" / "news" / "loop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_settings({}, home=str(home), **more)


def question() -> DecideRequest:
    return DecideRequest({"hour": 9}, [Action("a"), Action("b")], subject_id="s")


def held(home: Path) -> Counter[str]:
    """Count what this process holds: its threads by name, its descriptors by file.

    A thread that another test left may open files of that one's folder meanwhile; they are not counted.
    """
    others = home.parents[1]  # the folders of all tests of this run
    gc.collect()
    found = Counter(thread.name for thread in threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # of the listing itself
            continue
        if home in Path(name).parents or others not in Path(name).parents:
            found[name] += 1
    return found


@pytest.mark.parametrize("text", ["", "[features]\nenabled = true\n"], ids=["plain", "features"])
def test_clients_leave_threads_and_descriptors_as_they_were(tmp_path: Path, text: str) -> None:
    settings = settings_at(tmp_path, text)

    def use() -> None:
        with Client(settings) as client:
            answer = client.decide("news", question())
            client.outcome("news", OutcomeRequest(answer.event_id, 1.0))
            client.core.explain(answer.event_id)

    use()  # what libraries keep for good they open now
    before = held(tmp_path)
    for _ in range(50 if not text else 10):
        use()
    assert held(tmp_path) - before == Counter()


def test_closing_twice_does_no_harm_and_a_closed_core_is_unavailable(tmp_path: Path) -> None:
    client = Client(settings_at(tmp_path))
    client.close()
    client.close()
    with pytest.raises(UnavailableError, match="closed"):
        asyncio.run(client.core.decide("news", question()))
    with pytest.raises(UnavailableError, match="closed"):
        asyncio.run(client.core.report("news", [OutcomeRequest("e", 1.0)]))


def test_what_was_asked_before_the_end_is_on_disk_after_it(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    with Client(settings) as client:
        ids = [client.decide("news", question()).event_id for _ in range(20)]
    core = open_core(settings)
    try:
        assert [core.stored(event_id)[0].event_id for event_id in ids] == ids
    finally:
        core.close()


def test_an_installation_that_cannot_be_opened_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(tmp_path)
    open_core(settings).close()
    before = held(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("serving.start.Sessions", lambda *_, **__: (_ for _ in ()).throw(OSError("no memory left")))
        for _ in range(5):
            with pytest.raises(OSError, match="no memory left"):
                open_core(settings)
    assert held(tmp_path) - before == Counter()
    with pytest.raises(FieldError, match="api_keys"):
        open_core(load_settings({}, home=str(tmp_path), host="0.0.0.0"))


def test_the_client_raises_the_cores_own_errors(tmp_path: Path) -> None:
    with Client(settings_at(tmp_path)) as client:
        with pytest.raises(UnknownLoopError, match="nope"):
            client.decide("nope", question())
        with pytest.raises(FieldError, match="actions"):
            client.decide("news", DecideRequest({}, []))


def test_lifespan_events_open_and_close_the_core(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    open_core(settings).close()
    before = held(tmp_path)
    app, sent = App(lambda: open_core(settings)), list[str]()

    async def serve() -> None:
        events = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            return {"type": next(events)}

        async def send(message: dict) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)

    asyncio.run(serve())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert held(tmp_path) - before == Counter()


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    sent: list[dict] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: dict) -> None:
        sent.append(message)

    refused = load_settings({}, home=str(tmp_path), host="0.0.0.0")
    asyncio.run(App(lambda: open_core(refused))({"type": "lifespan"}, receive, send))
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "api_keys" in sent[0]["message"]


def test_a_service_that_has_not_heard_of_any_loop_yet_does_not_say_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    core = open_core(settings_at(tmp_path / "home", state=shared, reload_s=3600.0))
    try:
        with pytest.raises(UnknownLoopError):  # State answers: none was applied
            core.snapshot("news")

        def away(_: str) -> dict[str, int]:
            raise StateError("away")

        with monkeypatch.context() as patch:
            patch.setattr(core.loops._state, "versions", away)
            with pytest.raises(StateError):
                core.loops.refresh()
            with pytest.raises(UnavailableError, match="away"):
                core.snapshot("news")
        core.loops.refresh()
        with pytest.raises(UnknownLoopError):
            core.snapshot("news")
    finally:
        core.close()
