"""A decision is explained by any replica: the lake has what another one's log held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from pipelines.ingestion.ingest import ingest
from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.apply import apply
from pipelines.operations.erase import erase
from pipelines.retention.erasures import announce
from pipelines.settings import Settings, load_settings
from pipelines.state.state import State
from serving.core import Core
from serving.errors import ErasedDecisionError, UnknownDecisionError
from serving.start import open_core
from serving.wire import Action, DecideRequest, OutcomeRequest, Slot

ACTIONS = [Action("a", {"price": 1}), Action("it's", {"price": 2}), Action("c", {})]


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[tuple[Core, Core]]:
    """Two replicas with a home each, and a lake and State that they share."""
    opened = list[Core]()
    (tmp_path / "lake").mkdir()
    for name in ("one", "other"):
        settings = load_settings({}, home=str(tmp_path / name), state=f"sqlite:///{tmp_path / 'state.db'}")
        settings.root.mkdir()
        (settings.root / "lake").symlink_to(tmp_path / "lake")
        apply(settings, "", "news", by="ann", environ={})
        opened.append(open_core(settings))
    yield opened[0], opened[1]
    for core in opened:
        core.close()


def decided(core: Core) -> None:
    single = DecideRequest({"age": 3, "name": "O'Neil"}, ACTIONS, event_id="it's one", subject_id="ann")
    slots = DecideRequest({"age": 4}, ACTIONS, event_id="two", slots=[Slot("top", {"w": 1}), Slot("low")])
    for request in (single, slots):
        asyncio.run(core.decide("news", request))
    asyncio.run(core.report("news", [OutcomeRequest("it's one", 0.5), OutcomeRequest("two", 1.0, slot="low")]))
    ingested(core.settings)


def ingested(settings: Settings) -> None:
    log = LocalLog(settings.spool_path)
    ingest(log, Lake(settings.lake_url))
    log.close()


@pytest.mark.parametrize("event_id", ["it's one", "two"])
def test_a_decision_of_another_replica_is_explained_as_by_its_own(replicas: tuple[Core, Core], event_id: str) -> None:
    one, other = replicas
    with pytest.raises(UnknownDecisionError):
        other.explain(event_id)
    decided(one)
    want, found = one.explain(event_id), other.explain(event_id)
    assert msgspec.json.encode(found.decisions) == msgspec.json.encode(want.decisions)
    assert all(decision.draw_matches for decision in found.decisions)
    assert other.explain(event_id, "news").loop == "news"
    with pytest.raises(UnknownDecisionError):
        other.explain(event_id, "another")


def test_what_another_machine_erased_is_said_to_be_erased(replicas: tuple[Core, Core]) -> None:
    one, other = replicas
    decided(one)
    with State(one.settings.state_url) as state:
        announce(state, [b"it's one"], datetime.now(UTC), by="ann")
    erase(Lake(one.settings.lake_url), "ann")
    asked: list[Callable[[], object]] = [lambda: other.explain("it's one"), lambda: other.explain("never")]
    for ask, error in zip(asked, (ErasedDecisionError, UnknownDecisionError), strict=True):
        with pytest.raises(error):
            ask()
