"""What State keeps of subjects who stopped asking, of erasures that are over and of former rollouts goes with age."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec

from pipelines.access.keys import SUBJECTS, USED, count
from pipelines.guard.keys import all_folds_of, guard_key, moves_of
from pipelines.guard.state import GuardState
from pipelines.guard.store import MOVES, GuardStore, Move
from pipelines.retention.erasures import announce, is_announced
from pipelines.retention.tidy import Gone, tidy
from pipelines.state.state import State
from tests.pipelines.retention.test_messages import BEGIN, Shop

DAY = timedelta(days=1)


def tidied(shop: Shop, day: float, *, dry_run: bool = False) -> Gone:
    done = tidy(shop.settings, shop.log, shop.lake, now=BEGIN + day * DAY, dry_run=dry_run)
    return next(part for part in done.parts if part.part == "state")


def test_subjects_go_who_were_not_seen_for_long_and_keys_stay(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "[retention]\naccess_days = 30")
    with State(shop.settings.state_url) as state:
        for name, day in (("oidc-ann", 0), ("oidc-bob", 12), ("akeyofours", 0)):
            count(state, name, 7, BEGIN + day * DAY)
        assert tidied(shop, 31, dry_run=True).number == 1
        assert tidied(shop, 31).number == 1
        assert sorted(state.versions(USED)) == [f"{USED}akeyofours", f"{USED}{SUBJECTS}bob"]
        assert count(state, "oidc-ann", 3, BEGIN + 31 * DAY) == 3
    shop.loop("[retention]\naccess_days = 0", "news")
    assert tidied(shop, 500).number == 0


def test_counting_requests_leaves_one_row_a_subject(tmp_path: Path) -> None:
    with State(f"sqlite:///{tmp_path / 'state.db'}") as state:
        for number in range(20):
            assert count(state, "oidc-ann", 1, BEGIN) == number + 1
        assert [change.version for change in state.history(f"{USED}oidc-ann")] == [20]


def test_an_erasure_is_announced_as_long_as_a_log_has_messages_or_a_machine_may_be_away(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "[retention]\nlog_days = 2")
    with State(shop.settings.state_url) as state:
        announce(state, [b"e1"], BEGIN, by="ann")
        assert tidied(shop, 7.9).number == 0
        shop.loop("[retention]\nlog_days = 20", "news")
        assert tidied(shop, 19).number == 0
        assert is_announced(state, b"e1")
        shop.loop("[retention]\nlog_days = 0", "other")
        assert tidied(shop, 900).number == 0
        shop.loop("", "other")
        assert tidied(shop, 21).number == 1
        assert not is_announced(state, b"e1")


def test_folds_of_former_rollouts_and_all_but_the_latest_moves_go(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "")
    store = GuardStore(shop.settings, "shop")
    told = Move(
        at="",
        kind="raised",
        baseline_version="1",
        candidate_version="2",
        guard_version=1,
        from_weight=0,
        to_weight=0,
    )
    state = GuardState(loop="shop")
    for attempt in (1, 2, 3):
        state = store.commit(
            msgspec.structs.replace(state, attempt_number=attempt),
            moves=[told] * 400,
            begun=[msgspec.structs.replace(state, attempt_number=attempt)],
            folds=[(attempt, {0: attempt}), (attempt, {0: attempt + 1})],
        )
    assert tidied(shop, 1).number == 4 + 200
    with State(shop.settings.state_url) as rows:
        assert len(rows.versions(all_folds_of("shop"))) == 2
        assert len(rows.versions(moves_of("shop"))) == MOVES
        assert rows.get(guard_key("shop")) is not None
    assert store.attempt(3)[1] == [{0: 3}, {0: 4}]
    assert store.moves()[0].kind == "raised"
