"""One statement reads what Feast itself would read, and nothing that was kept outlives a commit or its age."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.features import lookup as lookup_module
from pipelines.features.lookup import Lookup
from pipelines.features.store import Features
from pipelines.features.views import SUBJECT, Views
from pipelines.settings import load_settings
from tests.worlds.lake import loop_of

LOOP = loop_of("[features]\nenabled = true\n")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def features(tmp_path: Path) -> Features:
    return Features(load_settings({}, home=str(tmp_path)), LOOP)


def upload(features: Features, tmp_path: Path, rows: str) -> None:
    path = tmp_path / "upload.csv"
    path.write_text(rows)
    features.load_subjects(path, now=NOW)


def test_it_reads_what_feast_reads(features: Features, tmp_path: Path) -> None:
    upload(features, tmp_path, "subject_id,age,town\nann,3.5,Köln\nbob,,\ncy ü,1e300,\n")
    views = Views(load_settings({}, home=str(tmp_path)), LOOP)
    store = views.open()
    columns = ["age", "town"]
    ours = Lookup(views, stream=True, cache_s=0.0)
    for subject in ("ann", "bob", "cy ü", "nobody"):
        theirs: dict[str, Any] = store.get_online_features(
            features=[f"{views.subject_view}:{name}" for name in columns], entity_rows=[{SUBJECT: subject}]
        ).to_dict()
        stored = ours.stored([subject])[0]
        assert [stored.get(name) for name in columns] == [theirs[name][0] for name in columns]
    ours.close()


def test_what_another_writer_commits_is_seen_at_once(features: Features, tmp_path: Path) -> None:
    views = Views(load_settings({}, home=str(tmp_path)), LOOP)
    ours = Lookup(views, stream=True, cache_s=1e9)
    assert ours.stored(["ann"])[0] == {}
    upload(features, tmp_path, "subject_id,age\nann,1\n")
    assert ours.stored(["ann"])[0]["age"] == 1.0
    for age in range(2, 6):
        upload(features, tmp_path, f"subject_id,age\nann,{age}\n")
        assert ours.stored(["ann"])[0]["age"] == ours.stored(["ann"])[0]["age"] == float(age)
    features.erase("ann")
    assert ours.stored(["ann"])[0] == {}
    ours.close()


def test_what_is_kept_has_an_age_and_a_number(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(features, tmp_path, "subject_id,age\nann,1\n")
    views, clock = Views(load_settings({}, home=str(tmp_path)), LOOP), Clock()
    ours = Lookup(views, stream=True, cache_s=10.0, clock=clock)
    reads: list[str] = []
    read = ours._read
    monkeypatch.setattr(ours, "_read", lambda subject_id: reads.append(subject_id) or read(subject_id))
    monkeypatch.setattr(lookup_module, "_MOST_KEPT", 3)
    for now, expected in ((0.0, 1), (5.0, 1), (10.0, 1), (10.5, 2), (20.5, 2), (21.0, 3)):
        clock.now = now
        assert ours.stored(["ann"])[0]["age"] == 1.0
        assert len(reads) == expected
    for number in range(50):
        assert ours.stored([f"s{number}"])[0] == {}
        assert len(ours._kept) <= 3
    ours.close()
