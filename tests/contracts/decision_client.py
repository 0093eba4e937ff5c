"""The contract of the client: whichever engine stands behind it, answers, errors and books are the same.

Each check gets a way to open a client on one installation, whose loop is called ``news``. Checks may share it: their
event ids are their own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from decision_client import (
    Action,
    Client,
    DecideRequest,
    DecideResponse,
    EventIdReusedError,
    OutcomeRequest,
    RefusedError,
    Slot,
    UnavailableError,
    UnknownError,
)

Open = Callable[[], Client]


def question(event_id: str | None = None, hour: int = 14) -> DecideRequest:
    offered = [Action("tea", {"price": 2.5}), Action("coffee", {"price": 3}), Action("water")]
    return DecideRequest({"hour": hour, "user": {"country": "nl"}}, offered, event_id=event_id)


def told(client: Client, event_id: str) -> tuple[list[str], list[tuple[str, float, str | None]]]:
    """What the service holds under an event id: actions drawn; outcomes as name, value, action."""
    kept = client.explain(event_id, loop="news")
    reports = [(one["name"], one["value"], one.get("action_id")) for one in kept["outcomes"]]
    return [record["action_id"] for record in kept["decisions"]], reports


def check_an_answer_is_a_draw_from_the_ranking_and_no_fallback(open_client: Open) -> None:
    with open_client() as client:
        answer = client.decide("news", question())
        assert answer.fallback is None
        assert answer.event_id
        chances = {one.id: one.probability for one in answer.ranking}
        assert chances.keys() == {"tea", "coffee", "water"}
        assert sum(chances.values()) == pytest.approx(1.0)
        assert answer.propensity == chances[answer.action_id]
        assert client.counts().decided == 1


def check_what_was_answered_and_reported_outlives_the_client(open_client: Open) -> None:
    with open_client() as client:
        answer = client.decide("news", question("kept-1"))
        done = client.outcome("news", answer.outcome(0.25), answer.outcome(2.0, name="reward"))
        assert (done.accepted, done.queued) == (2, 0)
    with open_client() as client:
        drawn, reports = told(client, "kept-1")
    assert drawn == [answer.action_id]
    assert reports == [("reward", 0.25, answer.action_id), ("reward", 2.0, answer.action_id)]


def check_the_same_question_has_the_same_answer_and_another_is_refused(open_client: Open) -> None:
    with open_client() as client:
        first = client.decide("news", question("same-1"))
        with pytest.raises(EventIdReusedError):
            client.decide("news", question("same-1", hour=15))
    with open_client() as client:
        assert client.decide("news", question("same-1")) == first
        assert client.decide_batch("news", [question("same-1")]) == [first]


def check_a_batch_answers_or_refuses_each_on_its_own(open_client: Open) -> None:
    with open_client() as client:
        client.decide("news", question("batch-1"))
        asked = [question("batch-0"), question("batch-1", hour=3), DecideRequest({}, []), question("batch-3")]
        answers = client.decide_batch("news", asked)
        assert isinstance(answers[1], EventIdReusedError)
        assert isinstance(answers[2], RefusedError)
        assert answers[2].field is not None
        assert answers[2].field.endswith("actions")
        for at in (0, 3):
            answer = answers[at]
            assert isinstance(answer, DecideResponse)
            assert told(client, f"batch-{at}")[0] == [answer.action_id]
        for few_or_many in ([], [question()] * 1001):
            with pytest.raises(RefusedError) as caught:
                client.decide_batch("news", few_or_many)
            assert caught.value.field == "decisions"


def check_slots_are_filled_without_repeating_an_action_and_outcomes_name_their_action(open_client: Open) -> None:
    with open_client() as client:
        slots = [Slot("left"), Slot("right", excluded_actions=["water"], baseline_action="coffee")]
        first = question("slots-1")
        answer = client.decide(
            "news", DecideRequest(first.context, first.actions, event_id="slots-1", slots=slots, subject_id="s-9")
        )
        assert answer.slots is not None
        drawn = {slot.id: slot.action_id for slot in answer.slots}
        assert len(set(drawn.values())) == 2
        assert drawn["right"] != "water"
        report = answer.outcome(1.0, slot="right")
        assert report.action_id == drawn["right"]
        assert client.outcome("news", report).accepted == 1
        with pytest.raises(ValueError, match="middle"):
            answer.outcome(1.0, slot="middle")


def check_an_activation_is_on_the_books_once(open_client: Open) -> None:
    with open_client() as client:
        asked = question("late-1")
        client.decide("news", DecideRequest(asked.context, asked.actions, event_id="late-1", deferred=True))
        for _ in range(2):
            assert client.activate("news", "late-1").accepted == 1
        assert {report[0] for report in told(client, "late-1")[1]} == {"activation"}


def check_errors_name_the_field_and_the_client_goes_on(open_client: Open) -> None:
    with open_client() as client:
        for ask in (
            lambda: client.decide("no such/loop", question()),
            lambda: client.outcome("no such/loop", OutcomeRequest("e", 1.0)),
            lambda: client.describe("no such/loop"),
            lambda: client.explain("never asked"),
        ):
            with pytest.raises(UnknownError):
                ask()
        with pytest.raises(RefusedError) as caught:
            client.decide("news", DecideRequest({}, [Action("a"), Action("a")]))
        assert caught.value.field == "actions[1].id"
        nan = DecideRequest({"user": {"ages": [30, float("nan")]}, "city": None}, [Action("a")])
        with pytest.raises(RefusedError, match="finite") as caught:
            client.decide("news", nan)
        assert caught.value.field == "context.user.ages[1]"
        with pytest.raises(RefusedError) as caught:
            client.decide_batch("news", [question(), nan])
        assert caught.value.field == "decisions[1].context.user.ages[1]"
        with pytest.raises(RefusedError) as caught:
            client.outcome("news", OutcomeRequest("e", 1.0), OutcomeRequest("e", float("-inf")))
        assert caught.value.field == "[1].value"
        with pytest.raises(RefusedError) as caught:
            client.outcome("news", OutcomeRequest("e", 1.0, ts="yesterday"))
        assert caught.value.field == "ts"
        assert client.decide("news", question()).fallback is None
        assert client.waiting() == 0


def check_loops_are_listed_and_described(open_client: Open) -> None:
    with open_client() as client:
        assert client.loops() == ["news"]
        described = client.describe("news")
        assert described["loop"] == "news"
        assert described["policy_version"]


def check_threads_may_share_it(open_client: Open) -> None:
    with open_client() as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: client.decide("news", question(f"shared-{n}")), range(48)))
        again = list(pool.map(lambda n: client.decide("news", question(f"shared-{n}")), range(48)))
    assert [answer.event_id for answer in answers] == [f"shared-{n}" for n in range(48)]
    assert again == answers


def check_closed_it_takes_nothing_and_closing_again_does_no_harm(open_client: Open) -> None:
    client = open_client()
    client.close()
    client.close()
    for ask in (
        lambda: client.decide("news", question()),
        lambda: client.decide_batch("news", [question()]),
        lambda: client.outcome("news", OutcomeRequest("e", 1.0)),
        lambda: client.loops(),
        lambda: client.flush(),
    ):
        with pytest.raises(UnavailableError, match="closed"):
            ask()


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
