"""What `decision watch` shows."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from pipelines.commands.steps import show_watched
from pipelines.promotion.watch import OddUser, Watched

FOUND = Watched(
    loop="feed",
    reason="the responses are as some simulator expects",
    users=300,
    surprise=1.1,
    limit=1.4,
    odd_limit=2.0,
    odd=2,
    oddest=[OddUser(user="[red]ann", surprise=7.25), OddUser(user="bob", surprise=2.5)],
)


def shown(users: bool) -> str:
    out = Console(width=120, file=StringIO())
    show_watched("feed", FOUND, users, out)
    return out.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_users_who_surprise_are_named_in_a_line_and_on_request_listed_with_their_surprise() -> None:
    assert "2 users surprise above 2.00 (3 would by chance): [red]ann, bob" in shown(users=False)
    listed = shown(users=True)
    assert "by chance)\n" in listed
    assert [line.split() for line in listed.splitlines() if "ann" in line or "bob" in line] == [
        ["│", "[red]ann", "│", "7.25", "│"],
        ["│", "bob", "│", "2.50", "│"],
    ]
