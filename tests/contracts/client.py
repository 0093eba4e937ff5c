"""The contract of who decides without HTTP: asked, answered, on disk; errors are the core's own.

Each check gets a way to open a client on one installation, whose loop is called ``news``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from decision.errors import FieldError
from serving.client import Client
from serving.errors import EventIdReusedError, UnavailableError, UnknownLoopError
from serving.wire import Action, DecideRequest, OutcomeRequest

Open = Callable[[], Client]


def question(event_id: str | None = None, hour: int = 9) -> DecideRequest:
    """Return a question with three actions."""
    return DecideRequest({"hour": hour}, [Action("a"), Action("b"), Action("c")], event_id=event_id)


def check_an_answer_is_a_draw_from_the_ranking(open_client: Open) -> None:
    with open_client() as client:
        answer = client.decide("news", question())
    chances = {one.id: one.probability for one in answer.ranking}
    assert chances.keys() == {"a", "b", "c"}
    assert sum(chances.values()) == pytest.approx(1.0)
    assert answer.propensity == chances[answer.action_id]


def check_what_was_answered_and_reported_outlives_the_client(open_client: Open) -> None:
    with open_client() as client:
        answer = client.decide("news", question())
        assert client.outcome("news", OutcomeRequest(answer.event_id, 1.0), OutcomeRequest(answer.event_id, 0.5)) == 2
    with open_client() as client:
        kept = client.core.explain(answer.event_id)
    assert [record.action_id for record in kept.decisions] == [answer.action_id]
    assert [outcome.value for outcome in kept.outcomes] == [1.0, 0.5]


def check_the_same_question_has_the_same_answer_and_another_is_refused(open_client: Open) -> None:
    with open_client() as client:
        first = client.decide("news", question("e1"))
        assert client.decide("news", question("e1")) == first
        with pytest.raises(EventIdReusedError):
            client.decide("news", question("e1", hour=10))
    with open_client() as client:
        assert client.decide("news", question("e1")) == first


def check_errors_are_the_cores_and_name_the_field(open_client: Open) -> None:
    with open_client() as client:
        with pytest.raises(UnknownLoopError, match="nope"):
            client.decide("nope", question())
        with pytest.raises(UnknownLoopError, match="nope"):
            client.outcome("nope", OutcomeRequest("e", 1.0))
        with pytest.raises(FieldError) as caught:
            client.decide("news", DecideRequest({}, []))
        assert caught.value.field == "actions"
        with pytest.raises(FieldError) as caught:
            client.outcome("news", OutcomeRequest("e", float("nan")))
        assert caught.value.field == "value"
        client.decide("news", question())  # and it goes on


def check_threads_may_share_it(open_client: Open) -> None:
    with open_client() as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.decide("news", question(f"t{n}")), range(64)))
        again = list(pool.map(lambda n: client.decide("news", question(f"t{n}")), range(64)))
    assert [answer.event_id for answer in answers] == [f"t{n}" for n in range(64)]
    assert again == answers


def check_closing_leaves_no_question_without_an_answer(open_client: Open) -> None:
    client = open_client()
    asked = threading.Barrier(9)

    def ask(thread: int) -> int:
        answered = 0
        asked.wait()
        while True:
            try:
                client.decide("news", question(f"c{thread}-{answered}"))
            except UnavailableError:
                return answered
            answered += 1

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, thread) for thread in range(8)]
        asked.wait()
        client.close()
        answered = [future.result() for future in futures]
    with open_client() as again:
        kept = [again.core.stored(f"c{thread}-{n}") for thread in range(8) for n in range(answered[thread])]
    assert len(kept) == sum(answered)


def check_closed_it_takes_nothing_and_closing_again_does_no_harm(open_client: Open) -> None:
    client = open_client()
    client.close()
    client.close()
    for ask in (lambda: client.decide("news", question()), lambda: client.outcome("news", OutcomeRequest("e", 1.0))):
        with pytest.raises(UnavailableError, match="closed"):
            ask()


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
