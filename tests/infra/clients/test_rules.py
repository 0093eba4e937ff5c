"""What the client does when the service answers late, otherwise, or not at all; the service is a script here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decision_client import (
    Action,
    Client,
    DecideRequest,
    EventIdReusedError,
    Loss,
    OutcomeRequest,
    QueueFullError,
    RefusedError,
    Settings,
    Slot,
    UnavailableError,
)
from decision_client.effects import NoReply, Reply, Send

GONE = NoReply("ConnectError: refused", maybe_taken=False)
LATE = NoReply("ReadTimeout: nothing came", maybe_taken=True)
BUSY = Reply(503, b'{"type": "urn:decision:problem:unavailable", "detail": "the disk is full", "status": 503}')
BROKEN = Reply(500, b'{"type": "urn:decision:problem:internal-error", "detail": "failed", "status": 500}')
SLOW = Reply(408, b'{"type": "urn:decision:problem:timeout", "detail": "the body did not come in time", "status": 408}')
PROXY = Reply(502, b"<html>Bad Gateway</html>")
QUESTION = DecideRequest({"age": 33}, [Action("gold"), Action("silver"), Action("bronze")], event_id="d-1")
QUICK = Settings(deadline_s=0.2, first_wait_s=0.0, longest_wait_s=0.001, rest_s=0.0)
PATIENT = Settings(deadline_s=300.0, first_wait_s=0.0, longest_wait_s=0.001, rest_s=0.0)
"""For calls that end with an answer, however long the machine takes between two attempts."""
LATER = Reply(429, b'{"type": "urn:decision:problem:too-many-requests", "detail": "slow", "status": 429}', 60)
"""Ends a call whose deadline is sooner."""


class Service:
    """Answers as scripted, then as a service does; keeps what it was asked and what it took."""

    def __init__(self, *script: Reply | NoReply) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, Any]] = []
        self.waits: list[float] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.down: NoReply | Reply | None = None

    def send(self, send: Send) -> Reply | NoReply:
        body = json.loads(send.body or b"null")
        self.asked.append((send.path, body))
        self.waits.append(send.timeout_s)
        if self.script:
            return self.script.pop(0)
        if self.down is not None:
            return self.down
        if send.path.endswith("/decide"):
            return Reply(200, json.dumps(self.decided(body)).encode())
        if send.path.endswith("/batch"):
            return Reply(200, json.dumps({"decisions": [self.decided(each) for each in body["decisions"]]}).encode())
        reports = body if isinstance(body, list) else [body]
        for report in reports:
            if report["event_id"] in self.refuses:
                return Reply(422, b'{"type": "", "title": "", "status": 422, "detail": "value: too large"}')
        self.reports |= {report["idempotency_key"]: report for report in reports}
        return Reply(202, json.dumps({"accepted": len(reports)}).encode())

    @staticmethod
    def decided(asked: dict[str, Any]) -> dict[str, Any]:
        last = asked["actions"][-1]["id"]
        ranking = [{"id": last, "probability": 0.75}]
        said = {"event_id": asked["event_id"], "action_id": last, "propensity": 0.75, "ranking": ranking}
        return said | {"policy_version": "7", "mode": "online", "a_field_of_a_later_version": {}}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("fault", [GONE, LATE, BUSY, BROKEN, SLOW, PROXY], ids=lambda fault: str(fault)[:24])
def test_a_question_is_asked_again_under_the_same_id(fault: Reply | NoReply) -> None:
    service = Service(fault, fault)
    with Client(service, settings=PATIENT) as client:
        unnamed = DecideRequest(QUESTION.context, QUESTION.actions)
        answer = client.decide("cards", unnamed)
        assert client.counts().retried == 2
    assert answer.fallback is None
    assert (answer.action_id, answer.propensity) == ("bronze", 0.75)
    assert len(service.asked) == 3
    assert len({json.dumps(body) for _, body in service.asked}) == 1
    assert answer.event_id == service.asked[0][1]["event_id"]


@pytest.mark.parametrize(
    ("fault", "maybe"), [(GONE, False), (BUSY, False), (LATE, True), (BROKEN, True), (PROXY, True)], ids=range(5)
)
def test_where_no_answer_comes_the_first_action_is_taken_and_the_loss_told(fault: Any, maybe: bool) -> None:
    losses: list[Loss] = []
    service = Service()
    service.down = fault
    settings = Settings(deadline_s=0.05, first_wait_s=0.01, rest_s=0.0, on_loss=losses.append)
    with Client(service, settings=settings) as client:
        excluded = DecideRequest(QUESTION.context, QUESTION.actions, event_id="d-2", excluded_actions=["gold"])
        answer = client.decide("cards", excluded)
        counts = client.counts()
    assert answer.fallback is not None
    assert answer.fallback.maybe_logged is maybe
    assert (answer.action_id, answer.mode, answer.policy_version) == ("silver", "fallback", "fallback:first")
    assert [(one.id, one.probability) for one in answer.ranking] == [("silver", 1.0), ("bronze", 0.0)]
    assert (counts.fallbacks, counts.maybe_logged, counts.decided) == (1, int(maybe), 0)
    assert [(loss.kind, loss.loop, loss.event_id) for loss in losses] == [("decision", "cards", "d-2")]


def test_a_refusal_is_never_answered_by_the_fallback() -> None:
    service = Service(Reply(422, b'{"type": "", "title": "", "status": 422, "detail": "no", "field": "context.age"}'))
    with Client(service, settings=QUICK) as client, pytest.raises(RefusedError) as caught:
        client.decide("cards", QUESTION)
    assert caught.value.field == "context.age"
    assert len(service.asked) == 1


def test_without_a_fallback_the_error_says_whether_the_request_may_have_been_taken() -> None:
    service = Service()
    settings = Settings(deadline_s=0.05, first_wait_s=0.01, fallback="none")
    with Client(service, settings=settings) as client:
        for fault, maybe in ((GONE, False), (LATE, True)):
            service.down = fault
            with pytest.raises(UnavailableError) as caught:
                client.decide("cards", QUESTION)
            assert caught.value.maybe_taken is maybe


def test_an_id_that_the_fallback_answered_keeps_its_answer_even_in_a_later_process(tmp_path: Path) -> None:
    service = Service(LATE)
    settings = Settings(deadline_s=0.01, first_wait_s=0.02, rest_s=0.0, queue=tmp_path / "queue.db")
    with Client(service, settings=settings) as client:
        first = client.decide("cards", QUESTION)
        assert first.fallback is not None
        assert client.decide("cards", QUESTION) == first  # the service is back, and would say bronze
        assert client.decide_batch("cards", [QUESTION]) == [first]
    with Client(service, settings=settings) as client:
        assert client.decide("cards", QUESTION) == first
        with pytest.raises(EventIdReusedError):
            client.decide("cards", DecideRequest({"age": 34}, QUESTION.actions, event_id="d-1"))
        assert client.decide("loans", QUESTION).action_id == "bronze", "ids are unique per loop"
        client.outcome("cards", OutcomeRequest("d-1", 4.0), OutcomeRequest("d-9", 4.0))
    assert len([1 for path, _ in service.asked if path == "/v1/loops/cards/decide"]) == 1
    by_event = {report["event_id"]: report.get("action_id") for report in service.reports.values()}
    assert by_event == {"d-1": "gold", "d-9": None}, "what followed a fallback counts for its action alone"


def test_a_loop_that_did_not_answer_is_left_alone_and_others_are_not() -> None:
    service = Service()
    service.down = GONE
    settings = Settings(deadline_s=0.01, first_wait_s=0.02, rest_s=3600.0)
    with Client(service, settings=settings) as client:
        client.decide("cards", QUESTION)
        asked = len(service.asked)
        service.down = None
        assert client.decide("cards", DecideRequest({}, QUESTION.actions)).fallback is not None
        assert client.decide_batch("cards", [DecideRequest({}, QUESTION.actions)])[0].fallback is not None  # pyright: ignore
        assert client.outcome("cards", OutcomeRequest("d-1", 1.0)).queued == 1
        assert len(service.asked) == asked
        assert client.decide("loans", QUESTION).fallback is None
        assert client.flush(0.0) == 0, "who asks to send is not kept waiting"
    assert len(service.reports) == 1


def test_a_batch_asks_again_only_what_was_not_taken_and_the_rest_is_the_fallbacks() -> None:
    asked = [DecideRequest({"n": n}, QUESTION.actions, event_id=f"b-{n}") for n in range(4)]
    taken = [Service.decided({"event_id": f"b-{n}", "actions": [{"id": "bronze"}]}) for n in range(4)]
    unavailable = {"type": "urn:decision:problem:unavailable", "title": "", "status": 503, "detail": "full"}
    refused = {"type": "", "title": "", "status": 422, "detail": "context.n: too large", "field": "context.n"}
    first = Reply(200, json.dumps({"decisions": [taken[0], unavailable, refused, unavailable]}).encode())
    second = Reply(200, json.dumps({"decisions": [unavailable, taken[3]]}).encode())
    service = Service(first, second)
    service.down = LATER
    settings = Settings(deadline_s=20.0, batch_timeout_s=20.0, first_wait_s=0.01, longest_wait_s=0.02, rest_s=0.0)
    with Client(service, settings=settings) as client:
        answers: list[Any] = client.decide_batch("cards", asked)
    sent = [[each["event_id"] for each in body["decisions"]] for _, body in service.asked]
    assert sent == [["b-0", "b-1", "b-2", "b-3"], ["b-1", "b-3"], ["b-1"]]
    assert [answer.action_id for answer in (answers[0], answers[3])] == ["bronze", "bronze"]
    assert answers[1].fallback is not None
    assert answers[1].event_id == "b-1"
    assert answers[2].field == "context.n"


def test_outcomes_wait_on_disk_for_the_service_and_for_a_later_process(tmp_path: Path) -> None:
    service = Service()
    settings = Settings(rest_s=0.0, queue=tmp_path / "queue.db", deadline_s=0.05)
    service.down = LATE
    with Client(service, settings=settings) as client:
        for n in range(3):
            done = client.outcome("cards", OutcomeRequest(f"o-{n}", n, ts="2026-05-01T10:00:00Z" if n else None))
            assert (done.accepted, done.queued) == (0, 1)
    service.down = None
    with Client(service, settings=settings) as client:
        assert client.waiting() == 3
        assert client.outcome("cards", OutcomeRequest("o-3", 3.0)).accepted == 1
        assert client.waiting() == 0, "what waited goes with the first that is taken"
        assert client.counts().accepted == 4
    reports = sorted(service.reports.values(), key=lambda report: report["event_id"])
    assert [(report["event_id"], report["value"]) for report in reports] == [(f"o-{n}", n) for n in range(4)]
    assert reports[0]["ts"].endswith("+00:00"), "the moment of the report, not that of its arrival"
    assert reports[1]["ts"] == "2026-05-01T10:00:00Z"
    assert "ts" not in reports[3]
    sent = [report for _, body in service.asked for report in (body if isinstance(body, list) else [body])]
    assert len({report["idempotency_key"] for report in sent if report["event_id"] == "o-0"}) == 1


def test_one_queued_outcome_that_is_refused_holds_up_no_other(tmp_path: Path) -> None:
    losses: list[Loss] = []
    service = Service()
    service.down, service.refuses = GONE, {"o-3", "o-17"}
    settings = Settings(rest_s=0.0, queue=tmp_path / "queue.db", on_loss=losses.append)
    with Client(service, settings=settings) as client:
        for n in range(23):
            client.outcome("cards", OutcomeRequest(f"o-{n}", float(n)))
        service.down = None
        assert client.flush(30.0) == 0
        assert [one.outcome.event_id for one in client.refusals()] == ["o-3", "o-17"]
        assert client.refusals()[0].problem.detail == "value: too large"
        assert client.counts().refused == 2
    assert len(service.reports) == 21
    assert [(loss.kind, loss.event_id) for loss in losses] == [("outcome", "o-3"), ("outcome", "o-17")]
    with Client(service, settings=settings) as client:
        assert client.forget_refusals() == 2
        assert client.refusals() == []


def test_a_key_that_may_not_report_loses_nothing() -> None:
    service = Service(GONE, Reply(403, b'{"type": "", "title": "", "status": 403, "detail": "no role report"}'))
    with Client(service, settings=QUICK) as client:
        client.outcome("cards", OutcomeRequest("o-1", 1.0))
        assert client.flush(0.0) == 1
        assert client.refusals() == []
        assert client.flush(0.0) == 0


def test_a_full_queue_refuses_the_whole_call_and_says_so() -> None:
    service = Service()
    service.down = GONE
    settings = Settings(queue_limit=3, rest_s=0.0, deadline_s=0.01)
    with Client(service, settings=settings) as client:
        client.outcome("cards", OutcomeRequest("o-1", 1.0), OutcomeRequest("o-2", 1.0))
        with pytest.raises(QueueFullError, match="2 outcomes of at most 3"):
            client.outcome("cards", OutcomeRequest("o-3", 1.0), OutcomeRequest("o-4", 1.0))
        assert client.waiting() == 2


def test_closing_with_a_queue_in_memory_tells_what_is_lost() -> None:
    losses: list[Loss] = []
    service = Service()
    service.down = GONE
    client = Client(service, settings=Settings(rest_s=0.0, deadline_s=0.01, on_loss=losses.append))
    client.outcome("cards", OutcomeRequest("o-1", 1.0), OutcomeRequest("o-2", 1.0))
    client.close()
    assert [(loss.kind, loss.event_id) for loss in losses] == [("outcome", "o-1"), ("outcome", "o-2")]
    assert client.counts().lost == 2


def test_without_a_queue_an_outcome_is_tried_until_the_deadline_and_then_raises() -> None:
    service = Service(GONE, LATE)
    with Client(service, settings=Settings(queue=None, first_wait_s=0.0, deadline_s=300.0)) as client:
        assert client.outcome("cards", OutcomeRequest("o-1", 1.0)).accepted == 1
    service = Service()
    service.down = GONE
    with (
        Client(service, settings=Settings(queue=None, first_wait_s=0.01, deadline_s=0.02)) as client,
        pytest.raises(UnavailableError),
    ):
        client.outcome("cards", OutcomeRequest("o-1", 1.0))


def test_a_wait_that_the_service_asks_for_beyond_the_deadline_is_not_waited_for() -> None:
    service = Service()
    service.down = LATER
    with Client(service, settings=Settings(deadline_s=1.0)) as client:
        answer = client.decide("cards", QUESTION)
    assert answer.fallback is not None
    assert answer.fallback.maybe_logged is False
    assert len(service.asked) == 1


def test_no_attempt_waits_longer_than_the_call_has_left() -> None:
    service = Service(*[LATE] * 5)
    with Client(service, settings=Settings(timeout_s=5.0, deadline_s=1.0, first_wait_s=0.01)) as client:
        client.decide("cards", QUESTION)
    assert all(wait <= 1.0 for wait in service.waits[1:])


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"event_id": 3}'])
def test_an_answer_that_is_none_of_the_services_is_no_answer(body: bytes) -> None:
    with Client(Service(Reply(200, body)), settings=QUICK) as client:
        answer = client.decide("cards", QUESTION)
    assert answer.fallback is not None
    assert answer.fallback.maybe_logged


def slate(*slots: Slot, excluded: list[str] | None = None) -> DecideRequest:
    return DecideRequest({}, [Action(name) for name in "abcd"], excluded_actions=excluded or [], slots=list(slots))


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (slate(Slot("1"), Slot("2")), ["a", "b"]),
        (slate(Slot("1"), Slot("2"), excluded=["a", "c"]), ["b", "d"]),
        (slate(Slot("1", baseline_action="c"), Slot("2", baseline_action="c")), ["c", "a"]),
        (slate(Slot("1"), Slot("2", excluded_actions=["b", "c", "d"])), ["b", "a"]),
        (slate(Slot("1"), Slot("2", excluded_actions=["a"]), Slot("3", excluded_actions=["c", "d"])), None),
    ],
    ids=["order", "excluded", "own choice", "room for later slots", "three slots"],
)
def test_the_fallback_fills_slots_in_the_applications_order(asked: DecideRequest, taken: list[str] | None) -> None:
    service = Service()
    service.down = GONE
    with Client(service, settings=Settings(deadline_s=0.01, first_wait_s=0.02)) as client:
        answer = client.decide("cards", asked)
    assert answer.slots is not None
    chosen = [slot.action_id for slot in answer.slots]
    assert len(set(chosen)) == len(chosen)
    assert all(action not in slot.excluded_actions for action, slot in zip(chosen, asked.slots or [], strict=True))
    if taken is not None:
        assert chosen == taken


def test_a_slate_that_cannot_be_filled_is_refused_by_the_fallback_too() -> None:
    service = Service()
    service.down = GONE
    narrow = [Slot(name, excluded_actions=["b", "c", "d"]) for name in ("left", "right")]
    for asked, field in ((slate(*narrow), "slots"), (slate(excluded=list("abcd")), "actions")):
        with Client(service, settings=Settings(deadline_s=0.01, rest_s=0.0)) as client:
            with pytest.raises(RefusedError) as caught:
                client.decide("cards", asked)
            assert caught.value.field == field


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Settings(timeout_s=0), "timeout_s"),
        (lambda: Settings(deadline_s=float("inf")), "deadline_s"),
        (lambda: Settings(rest_s=-1), "rest_s"),
        (lambda: Settings(fallback="last"), "fallback"),  # pyright: ignore[reportArgumentType]
        (lambda: Settings(queue_limit=0), "queue_limit"),
        (lambda: Client("localhost:8080"), "address"),
        (lambda: Client("ftp://example.org"), "address"),
    ],
    ids=range(7),
)
def test_a_setting_that_does_not_fit_is_named(make: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()
