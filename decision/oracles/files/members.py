"""Files of an oracle that is made of others: each member's own, with the member's number before their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from decision.protocols import Oracle

LoadMember = Callable[[str, dict[str, bytes]], Oracle]
"""Kind and files of a member -> the member."""


def member_files(members: Iterable[Oracle], prefix: str) -> dict[str, bytes]:
    """Return the files of all members, named ``PREFIX-NUMBER-NAME``."""
    return {
        f"{prefix}-{number}-{name}": data
        for number, member in enumerate(members)
        for name, data in member.save().items()
    }


def load_members(
    files: dict[str, bytes], kinds: Sequence[str], prefix: str, load_member: LoadMember
) -> list[tuple[str, Oracle]]:
    """Return the members that `member_files` wrote, each with its kind.

    Args:
        files: by name; others may be among them.
        kinds: of the members, in order.
        prefix: as there.
        load_member: makes one.

    Raises:
        FieldError: a member's files are missing or do not fit.
    """
    members: list[tuple[str, Oracle]] = []
    for number, kind in enumerate(kinds):
        begin = f"{prefix}-{number}-"
        own = {name.removeprefix(begin): data for name, data in files.items() if name.startswith(begin)}
        members.append((kind, load_member(kind, own)))
    return members
