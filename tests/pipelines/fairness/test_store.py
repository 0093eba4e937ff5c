"""The audit log as its owner could falsify it: on SQLite and on PostgreSQL, past the triggers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from decision.errors import FieldError
from decision.fairness.audit_log import Anchor
from pipelines.fairness import tables as t
from pipelines.fairness.errors import StoreError
from pipelines.fairness.people import add_person, by_key, by_session, list_people, open_session, revoke
from pipelines.fairness.report import status
from pipelines.fairness.store import Governance, Writing
from pipelines.fairness.verify import verify
from pipelines.settings import load_settings
from pipelines.state import postgresql
from tests.postgres_server import new_database, own_server
from tests.worlds.panels import LOOP, NOW, Panel, pair


def falsify(store: Governance, *statements: str) -> None:
    """Run statements as the database's owner would: without the triggers."""
    with store._engine.begin() as connection:
        for table in t.APPEND_ONLY:
            if store.dialect == "sqlite":
                for verb in ("UPDATE", "DELETE"):
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
            else:
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def judged(panel: Panel) -> Panel:
    (task,) = panel.open(pair())
    panel.judge(task, "unfair", "unfair", "unfair", "fair", "cannot_tell")
    return panel


@pytest.mark.connected
def test_a_server_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Neither who is in the midst of a change then, nor who comes with a connection that is kept, or with a new one."""
    patience = [300]
    with own_server() as server, Governance(new_database(server.uri), tmp_path / "anchors.jsonl") as store:

        def patient(dialect: object, record: object, args: object, options: dict[str, Any]) -> None:
            options["connect_timeout"] = patience[0]

        def change(meanwhile: Callable[[Writing], object]) -> None:
            with store.write(NOW, "test") as writing:
                meanwhile(writing)
                writing.log("note", "subject", {})

        def hang(writing: Writing) -> None:
            server.freeze(on=True)
            writing.connection.connection.driver_connection.patience_s = 1  # pyright: ignore

        sa.event.listen(store._engine, "do_connect", patient, insert=True)
        change(lambda writing: None)
        before = store.head()
        try:
            with pytest.raises(StoreError, match="the panels' database: does not answer for 1 s"):
                change(hang)
            patience[0] = 1
            with pytest.raises(StoreError, match="the panels' database: connection timeout"):
                store.head()
            patience[0] = 300
            server.freeze(on=False)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(postgresql, "CONNECT_S", 1)  # how long the connection is asked that is kept now
                assert store.head() == before
            server.freeze(on=True)
            with pytest.raises(StoreError, match="the panels' database: does not answer for 1 s"):
                store.head()
        finally:
            server.freeze(on=False)
        change(lambda writing: None)
        assert verify(store).faults == ()


def test_untouched_store_verifies(judged: Panel) -> None:
    checked = verify(judged.store)
    assert checked.faults == ()
    assert checked.entries == 5 + 2 + 3 + 1 + 5 + 1  # people; key, heads; pair; panel; judged; verdict
    assert judged.store.head() == Anchor(checked.entries, checked.head)


@pytest.mark.parametrize("table", t.APPEND_ONLY)
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
def test_the_database_refuses_to_change_what_was_said(judged: Panel, table: str, verb: str) -> None:
    columns = {"audit_log": "actor", "judgements": "reason", "verdicts": "note"}
    statement = f"DELETE FROM {table}" if verb == "DELETE" else f"UPDATE {table} SET {columns[table]} = 'x'"
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), judged.store._engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statements", "where", "word"),
    [
        (["UPDATE audit_log SET actor = 'someone' WHERE seq = 7"], 7, "edited"),
        (["DELETE FROM audit_log WHERE seq = 7"], 7, "deleted"),
        (
            [
                "UPDATE audit_log SET seq = 1000 WHERE seq = 7",
                "UPDATE audit_log SET seq = 7 WHERE seq = 8",
                "UPDATE audit_log SET seq = 8 WHERE seq = 1000",
            ],
            7,
            "does not follow",
        ),
        (["DELETE FROM audit_log WHERE seq > 12"], 0, "truncated"),
        (["DELETE FROM audit_log"], 0, "truncated"),
    ],
    ids=["edited", "deleted", "reordered", "truncated", "emptied"],
)
def test_a_falsified_log_is_found_out(judged: Panel, statements: list[str], where: int, word: str) -> None:
    falsify(judged.store, *statements)
    faults = verify(judged.store).faults
    assert any(fault.seq == where and word in fault.what for fault in faults), faults


def test_a_judgement_changed_beside_the_log_is_found_out(judged: Panel) -> None:
    falsify(judged.store, "UPDATE judgements SET verdict = 'fair' WHERE verdict = 'unfair'")
    assert sum("was edited" in fault.what for fault in verify(judged.store).faults) == 3


def test_a_verdict_changed_beside_the_log_is_found_out(judged: Panel) -> None:
    falsify(judged.store, "UPDATE tasks SET status = 'dismissed'")
    (fault,) = verify(judged.store).faults
    assert "says dismissed, the log upheld" in fault.what


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE tasks SET gap = 0.01", "gap was edited"),
        ("UPDATE tasks SET payload = '{}'", "payload was edited"),
        ("UPDATE rules SET quorum = 0.9", "the rules of credit"),
        ("UPDATE people SET roles = 'administrator' WHERE name = 'Auditor 3'", "roles of"),
        ("UPDATE people SET revoked_at = 'x' WHERE name = 'Auditor 3'", "revoked or restored"),
        ("DELETE FROM judgements WHERE verdict = 'fair'", "no longer in its table"),
    ],
)
def test_any_other_table_changed_beside_the_log_is_found_out(judged: Panel, statement: str, words: str) -> None:
    falsify(judged.store, statement)
    faults = verify(judged.store).faults
    assert [fault for fault in faults if words in fault.what], faults


def test_a_head_noted_elsewhere_finds_a_log_and_anchors_cut_together(judged: Panel, tmp_path: Path) -> None:
    noted = judged.store.head()
    falsify(judged.store, f"DELETE FROM audit_log WHERE seq = {noted.entries}")
    anchors = (tmp_path / "anchors.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "anchors.jsonl").write_bytes(b"".join(anchors[:-1]))
    alone = Governance(judged.store._engine.url.render_as_string(hide_password=False), tmp_path / "anchors.jsonl")
    with alone:
        assert not any("truncated" in fault.what for fault in verify(alone).faults)
        assert any("truncated" in fault.what for fault in verify(alone, noted).faults)
    assert any("truncated" in fault.what for fault in verify(judged.store).faults)  # by State


def test_an_error_takes_the_change_and_its_entry_back(store: Governance) -> None:
    def fail() -> None:
        with store.write(NOW, "test") as writing:
            writing.log("something", "else", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.head().entries == 0
    assert store.noted_in_file() is None


def test_writers_at_the_same_time_make_one_chain(store: Governance) -> None:
    def work(number: int) -> None:
        for step in range(10):
            with store.write(NOW, f"writer {number}") as writing:
                writing.log("step", str(step), {})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checked = verify(store)
    assert (checked.entries, checked.faults) == (42, ())


def test_keys_open_until_revoked_and_are_stored_as_hashes_only(store: Governance) -> None:
    person, key = add_person(store, name="Ada", roles=["auditor", "adjudicator"], now=NOW, by="test")
    assert by_key(store, key) == person
    assert by_key(store, key + "x") is None
    with store.read() as connection:
        assert key not in str(connection.execute(sa.select(t.people)).all())
    assert not any("Ada" in str(entry) or key in str(entry) for entry in store.entries())
    token = open_session(store, person, now=NOW)
    assert by_session(store, token, now=NOW + timedelta(hours=11)) == person
    assert by_session(store, token, now=NOW + timedelta(hours=13)) is None
    assert not revoke(store, person.person_id, now=NOW, by="test").active
    assert by_key(store, key) is None
    assert by_session(store, token, now=NOW) is None
    assert [p.active for p in list_people(store)] == [False]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"roles": ["king"]}, "role"),
        ({"roles": []}, "role"),
        ({"roles": ["owner"]}, "owns"),
        ({"owns": ["credit"]}, "owns"),
        ({"roles": ["owner"], "owns": ["../credit"]}, "loop"),
    ],
)
def test_people_that_do_not_fit_are_refused_by_field(tmp_path: Path, values: dict[str, object], field: str) -> None:
    with Governance("sqlite://", tmp_path / "anchors.jsonl") as store:
        with pytest.raises(FieldError) as caught:
            add_person(store, **({"name": "Ada", "roles": ["auditor"], "now": NOW, "by": "test"} | values))  # type: ignore[arg-type]
        assert caught.value.field == field


def test_the_setting_puts_the_store_on_postgresql_and_keeps_anchors_at_home(postgres: str, tmp_path: Path) -> None:
    settings = load_settings({"DECISION_GOVERNANCE": postgres}, home=str(tmp_path))
    with Governance.at(settings) as store:
        assert store.dialect == "postgresql"
        add_person(store, name="Ada", roles=["auditor"], now=NOW, by="test")
        assert verify(store).faults == ()
    assert (tmp_path / "governance" / "anchors.jsonl").is_file()
    assert not (tmp_path / "governance" / "governance.db").exists()


def test_a_store_of_an_earlier_release_gets_the_indexes_of_the_counts(judged: Panel, tmp_path: Path) -> None:
    before = status(judged.store, LOOP, now=NOW)
    names = {"tasks": "ix_tasks_counted", "judgements": "ix_judgements_counted"}
    with judged.store._engine.begin() as connection:
        for name in names.values():
            connection.exec_driver_sql(f"DROP INDEX {name}")
    url = judged.store._engine.url.render_as_string(hide_password=False)
    for _ in range(2):  # the second finds them
        with Governance(url, tmp_path / "anchors.jsonl") as upgraded:
            for table, name in names.items():
                assert name in {one["name"] for one in sa.inspect(upgraded._engine).get_indexes(table)}
            assert status(upgraded, LOOP, now=NOW) == before
    assert verify(judged.store).faults == ()


def test_a_store_whose_tables_are_somebody_elses_opens_without_the_indexes(
    postgres_database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Governance(postgres_database, tmp_path / "anchors.jsonl") as store:
        Panel(store).open(pair())
    owner = sa.create_engine(store._engine.url)
    role = f"guest_{secrets.token_hex(4)}"
    with owner.begin() as connection:
        for statement in (
            "DROP INDEX ix_tasks_counted",
            f"CREATE ROLE {role} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        ):
            connection.exec_driver_sql(statement)
    guest = store._engine.url.set(username=role)
    try:
        with Governance(guest.render_as_string(hide_password=False), tmp_path / "anchors.jsonl") as opened:
            assert status(opened, LOOP, now=NOW).tasks == {"open": 1}
        assert "no index ix_tasks_counted" in caplog.text
    finally:
        with owner.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        owner.dispose()


def test_an_address_that_is_none_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="governance"):
        Governance("no address", tmp_path / "anchors.jsonl")
