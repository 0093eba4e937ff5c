"""The fallback takes what the service's baseline `first` takes: the application's own order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision_client import Action, Client, DecideRequest, Fallback, InProcess, RefusedError, Settings, Slot
from decision_client.fallback import first_action
from tests.worlds.running import new_installation

ABSENT = Fallback("there is no service", maybe_logged=False)
NAMES = [f"a{n}" for n in range(6)]


@st.composite
def questions(draw: st.DrawFn) -> DecideRequest:
    offered = draw(st.permutations(NAMES).map(lambda names: names[: len(names) // 2 + 1]))
    some = st.lists(st.sampled_from(NAMES), unique=True, max_size=3)
    slots = None
    if draw(st.booleans()):
        wanted = st.none() | st.sampled_from(offered)
        slots = [Slot(f"s{n}", {}, draw(some), draw(wanted)) for n in range(draw(st.integers(1, 3)))]
    return DecideRequest({}, [Action(name) for name in offered], excluded_actions=draw(some), slots=slots)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    new_installation(home, '[baseline]\nkind = "first"\nexplore = 0.0\n')
    with Client(InProcess(home=str(home)), settings=Settings(fallback="none", deadline_s=60.0)) as client:
        yield client


@given(asked=questions())
def test_it_takes_what_the_baseline_first_takes_and_refuses_what_the_service_refuses(
    client: Client, asked: DecideRequest
) -> None:
    try:
        served = client.decide("news", asked)
    except RefusedError:
        with pytest.raises(RefusedError):
            first_action(asked, ABSENT)
        return
    ours = first_action(asked, ABSENT)
    assert (ours.action_id, ours.propensity) == (served.action_id, served.propensity)
    assert [(slot.id, slot.action_id) for slot in ours.slots or ()] == [
        (slot.id, slot.action_id) for slot in served.slots or ()
    ]
    assert {one.id for one in ours.ranking} >= {ours.action_id}
