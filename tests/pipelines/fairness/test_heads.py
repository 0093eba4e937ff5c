"""Who writes the log, its tables or its heads beside the code is found out; a crash is not taken for that for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.audit_log import Anchor, canonical, digest, hash_of
from pipelines.access.keys import PREFIX, Key, new_key
from pipelines.access.keys import add as keep
from pipelines.fairness import tables as t
from pipelines.fairness.heads import HEADS, Head, Signer
from pipelines.fairness.people import add_key, close_session, open_session, revoke_key
from pipelines.fairness.store import Governance
from pipelines.fairness.verdicts import appeal
from pipelines.fairness.verify import verify
from pipelines.state.state import State
from tests.pipelines.fairness.test_store import falsify
from tests.worlds.panels import LOOP, NOW, Panel, pair

LATER = NOW + timedelta(hours=2)


@pytest.fixture
def judged(panel: Panel) -> Panel:
    (task,) = panel.open(pair())
    panel.judge(task, "unfair", "unfair", "unfair", "fair", "cannot_tell")
    appeal(panel.store, LOOP, reason="my neighbour got it", event_id="e1", now=LATER, by="test")
    open_session(panel.store, panel.people[0], now=LATER)
    assert verify(panel.store).faults == ()
    return panel


def whats(store: Governance) -> list[str]:
    return [fault.what for fault in verify(store).faults]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"UPDATE people SET key_hash = '{digest('mine')}' WHERE name = 'Auditor 2'", "was replaced beside the log"),
        ("UPDATE people SET added_at = '2020' WHERE name = 'Auditor 2'", "was added was edited"),
        ("UPDATE verdicts SET unfair = 2", "a verdict on task"),
        ("UPDATE verdicts SET note = 'x'", "a verdict on task"),
        ("UPDATE verdicts SET decided_at = '2020'", "a verdict on task"),
        ("DELETE FROM verdicts", "has 0 verdicts, in the log 1"),
        ("DELETE FROM assignments WHERE person_id = (SELECT MIN(person_id) FROM people)", "the panel of task"),
        ("UPDATE assignments SET assigned_at = '2020'", "the panel of task"),
        ("UPDATE judgements SET judged_at = '2020' WHERE verdict = 'fair'", "was edited"),
        ("UPDATE tasks SET due_at = '2099'", "due_at was edited"),
        ("UPDATE tasks SET favoured_first = NOT favoured_first", "favoured_first was edited"),
        ("UPDATE rules SET set_at = '2020'", "the rules of"),
        ("UPDATE appeals SET reason = 'x'", "reason edited"),
        ("UPDATE appeals SET status = 'reviewed'", "status edited"),
        ("DELETE FROM appeals", "no longer in its table"),
        ("UPDATE sessions SET expires_at = '2099'", "is not in the log"),
        (f"UPDATE sessions SET token_hash = '{digest('mine')}'", "is not in the log"),
    ],
)
def test_a_row_of_any_table_that_the_log_does_not_tell_of_is_found(judged: Panel, statement: str, words: str) -> None:
    falsify(judged.store, statement)
    assert any(words in what for what in whats(judged.store)), whats(judged.store)


def test_a_session_that_was_closed_is_not_opened_again_by_a_row(judged: Panel) -> None:
    person = judged.people[1]
    token = open_session(judged.store, person, now=LATER)
    row = dict(judged.store.rows(sa.select(t.sessions).where(t.sessions.c.person_id == person.person_id))[0])
    close_session(judged.store, token, now=LATER, by=person.person_id)
    assert whats(judged.store) == []
    with judged.store._engine.begin() as connection:
        connection.execute(sa.insert(t.sessions).values(**row))
    assert whats(judged.store) == [f"a session of {person.person_id} is open that the log says was closed"]


def rewritten(store: Governance, since: int) -> Anchor:
    """Write the chain anew from an entry on, as the database's owner can, and return its head."""
    entries = list(store.entries())
    falsify(store, f"DELETE FROM audit_log WHERE seq >= {since}")
    head = entries[since - 2].hash
    with store._engine.begin() as connection:
        for entry in entries[since - 1 :]:
            changed = entry._replace(actor="someone", previous=head, hash="")
            changed = changed._replace(hash=hash_of(changed))
            connection.execute(sa.insert(t.audit_log).values(**changed._asdict()))
            head = changed.hash
    return Anchor(len(entries), head)


@pytest.mark.parametrize("by", ["nobody", "another"])
@pytest.mark.parametrize("where", ["file", "state", "nowhere"])
def test_a_tail_written_anew_is_found_whatever_heads_are_noted_of_it(
    judged: Panel, tmp_path: Path, where: str, by: str
) -> None:
    """Who has the databases adds heads of his own to those that are there; he has no key that the log names."""
    forged = rewritten(judged.store, 9)
    other = tmp_path / "other.key"
    line = msgspec.json.encode(forged if by == "nobody" else Signer(other).sign(forged, "2026-03-01T15:00:00.000000Z"))
    if where == "file":
        with (tmp_path / "anchors.jsonl").open("ab") as file:
            file.write(line + b"\n")
    state = judged.store._state
    if where == "state" and state is not None:
        entry = state.get(f"{HEADS}1")
        assert entry is not None
        state.put({f"{HEADS}1": (entry.version, line)}, by="someone")
    assert any("not what was anchored" in what for what in whats(judged.store))


@pytest.mark.parametrize("by", ["nobody", "another", "edited"])
def test_heads_count_by_their_signature(judged: Panel, tmp_path: Path, by: str) -> None:
    head = judged.store.head()
    made = Signer(tmp_path / "other.key").sign(head, "2026-03-01T15:00:00.000000Z")
    if by == "edited":
        made = msgspec.structs.replace(judged.store.sign_head(LATER), at="2020-01-01T00:00:00.000000Z")
    with (tmp_path / "anchors.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(head if by == "nobody" else made) + b"\n")
    words = {"nobody": "are not signed", "another": "a key that the log does not name", "edited": "not what was signed"}
    assert [what for what in whats(judged.store) if words[by] in what]


def test_a_head_that_somebody_keeps_holds_the_log_to_it(judged: Panel, tmp_path: Path) -> None:
    kept = judged.store.sign_head(LATER)
    assert verify(judged.store, heads=[kept]).faults == ()
    rewritten(judged.store, kept.entries)
    (tmp_path / "anchors.jsonl").unlink()
    with Governance(
        judged.store._engine.url.render_as_string(hide_password=False), tmp_path / "anchors.jsonl"
    ) as bare:  # who wrote the log anew took all heads away
        assert any("not what was anchored" in fault.what for fault in verify(bare, heads=[kept]).faults)


@pytest.mark.parametrize("done", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["deleted", "emptied"])
def test_anchors_that_are_gone_are_a_finding_where_the_log_is_in_the_home(
    judged: Panel, tmp_path: Path, done: Callable[[Path], object]
) -> None:
    done(tmp_path / "anchors.jsonl")
    found = whats(judged.store)
    if judged.store.dialect == "sqlite":
        assert len(found) == 1
        assert "anchors.jsonl is" in found[0]
    else:  # another machine's home has none before it writes; State has them
        assert found == []


@pytest.mark.parametrize("torn", [b'{"entries":12,"hea', b"\x00" * 40, b'{"entries":1}\n'])
def test_a_torn_line_is_a_finding_that_stops_nothing_and_is_repaired_with_a_record(
    judged: Panel, tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "anchors.jsonl"
    with path.open("ab") as file:
        file.write(torn)
    with judged.store.write(LATER, "test") as writing:  # goes on, on a line of its own
        writing.log("step", "one", {})
    (what,) = whats(judged.store)
    assert "torn by a crash, or edited" in what
    (done,) = judged.store.repair(LATER, "ann")
    assert "1 lines of anchors.jsonl" in done
    assert whats(judged.store) == []
    (entry,) = judged.store.entries(kind="anchors_repaired")
    assert (entry.actor, msgspec.json.decode(entry.body)["lines"]) == ("ann", 1)
    assert judged.store.repair(LATER, "ann") == []


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["DELETE FROM state WHERE key = 'audit/head/1'"], "noted in State are gone"),
        (
            ["DELETE FROM state WHERE key = 'audit/head/1'", "DELETE FROM state_changes WHERE key = 'audit/head/1'"],
            "heads that were noted in State are gone",
        ),
        (["DELETE FROM state_changes WHERE key = 'audit/head/1' AND version IN (3, 4)"], "heads 3 to 4 in State"),
        (["DELETE FROM state_changes WHERE key = 'audit/head/1' AND version < 3"], "heads 1 to 2 in State"),
    ],
)
def test_heads_that_are_gone_from_state_are_a_finding_until_they_are_begun_anew(
    judged: Panel, tmp_path: Path, statements: list[str], words: str
) -> None:
    address = judged.store._engine.url
    if judged.store.dialect == "sqlite":
        address = sa.make_url(f"sqlite:///{tmp_path / 'state.db'}")
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
    for _ in range(2):
        assert any(words in what for what in whats(judged.store)), whats(judged.store)
        with judged.store.write(LATER, "test") as writing:  # a change does not hide it
            writing.log("step", "one", {})
    assert judged.store.repair(LATER, "ann") == ["the heads in State are begun anew"]
    assert whats(judged.store) == []
    with judged.store.write(LATER, "test") as writing:
        writing.log("step", "two", {})
    assert whats(judged.store) == []


def test_a_log_of_an_earlier_release_is_whole_and_goes_on(judged: Panel, tmp_path: Path) -> None:
    """Its heads are not signed, and its entries hold no hash of a key or a token."""
    store = judged.store
    entries, head = list(store.entries()), "0" * 64
    falsify(store, "DELETE FROM audit_log")
    former: list[Anchor] = []
    with store._engine.begin() as connection:
        for entry in entries:
            if entry.kind in ("signer_added", "heads_begun"):
                continue
            body = msgspec.json.decode(entry.body)
            for name in ("key", "token", "expires_at", "reason") if entry.kind != "judged" else ():
                body.pop(name, None)
            made = entry._replace(seq=len(former) + 1, previous=head, body=canonical(body), hash="")
            made = made._replace(hash=hash_of(made))
            connection.execute(sa.insert(t.audit_log).values(**made._asdict()))
            former.append(Anchor(made.seq, made.hash))
            head = made.hash
    (tmp_path / "anchors.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in former))
    fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
    url = store._engine.url.render_as_string(hide_password=False)
    with Governance(url, tmp_path / "anchors.jsonl", State(fresh)) as upgraded:
        assert whats(upgraded) == []
        assert any("the keys of 5 people" in what for what in verify(upgraded).unknown)
        with upgraded.write(LATER, "test") as writing:
            writing.log("step", "one", {})
        assert whats(upgraded) == []
        assert [entry.kind for entry in upgraded.entries()][-3:] == ["step", "signer_added", "heads_begun"]


def test_two_homes_share_one_log_and_each_signs_its_own(postgres_database: str, tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("a", "b")]
    stores = [Governance(postgres_database, home / "anchors.jsonl", State(postgres_database)) for home in homes]
    for number in range(4):
        with stores[number % 2].write(NOW, "test") as writing:
            writing.log("step", str(number), {})
    assert [whats(store) for store in stores] == [[], []]
    assert len(list(stores[0].entries(kind="signer_added"))) == 2
    (homes[0] / "anchors.jsonl").unlink()
    assert [whats(store) for store in stores] == [[], []]
    for store in stores:
        store.close()


def test_the_signing_key_is_for_its_owner_and_a_wrong_one_is_named(judged: Panel, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    made = judged.store.sign_head(LATER)
    assert made.fits
    assert msgspec.json.decode(msgspec.json.encode(made), type=Head) == made
    path.write_text("nothing")
    with pytest.raises(Exception, match=r"signing\.key"):
        judged.store.sign_head(LATER)


def test_a_home_whose_signing_key_a_crash_left_empty_gets_another_and_the_log_stays_whole(
    judged: Panel, tmp_path: Path
) -> None:
    path = tmp_path / "signing.key"
    before = judged.store.sign_head(LATER)
    path.write_bytes(b"")
    appeal(judged.store, LOOP, reason="the same again", event_id="e2", now=LATER, by="test")
    after = judged.store.sign_head(LATER)
    assert after.fits
    assert (after.key != before.key, path.stat().st_mode & 0o777) == (True, 0o600)
    assert whats(judged.store) == []


def test_api_keys_are_those_that_the_log_tells_of(judged: Panel) -> None:
    store, state = judged.store, judged.store._state
    assert state is not None
    rights: dict[str, Any] = {"loops": [LOOP], "now": NOW, "by": "ann"}
    early, _ = new_key(roles=["read"], **rights)
    keep(state, early, by="ann")  # of an earlier release
    assert verify(store).faults == ()
    assert any("the 1 API keys" in what for what in verify(store).unknown)
    keys = [new_key(roles=["decide", "report"], per_day=9, **rights)[0] for _ in range(3)]
    for key in keys:
        add_key(store, state, key, now=NOW, by="ann")
    revoke_key(store, state, keys[0].id, now=LATER, by="ann")
    assert whats(store) == []
    with pytest.raises(FieldError, match="id"):
        revoke_key(store, state, "nobody", now=LATER, by="ann")
    assert whats(store) == []  # and the log tells of nothing that was not done
    keep(state, new_key(roles=["admin"], **rights)[0], by="someone")
    for key, change in ((keys[0], {"revoked_at": None}), (keys[1], {"roles": ["admin"]}), (early, {"digest": b"mine"})):
        entry = state.get(PREFIX + key.id)
        assert entry is not None
        changed = msgspec.structs.replace(msgspec.json.decode(entry.value, type=Key), **change)
        state.put({PREFIX + key.id: (entry.version, msgspec.json.encode(changed))}, by="someone")
    found = whats(store)
    assert len(found) == 4
    for words in ("is not in the log", "revoked or restored", "roles edited", "key edited"):
        assert any(words in what for what in found), found
