"""Which version was last proven to be better, read from the verdicts that made champions.

What is given up to later versions counts from there (`decision.gate`). A version that the gate calls proven is one, and
so is what a guard promoted in the place of a proven one: it was better in live traffic. Verdicts from before the gate
told are proofs where their lower bound lay above 0. Versions set by hand are none, and a rollback takes back what came
after.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.registry.charge import WrittenVerdict, moves


class Looks(NamedTuple):
    """Verdicts of the gate against one reference.

    Those on the same version and as many rows count once, those that had too few effective rows not at all.

    Attributes:
        verdicts: how many.
        likely: how many of these were likely to promote; all, where the verdict does not say.
    """

    verdicts: int
    likely: int


class Proven(NamedTuple):
    """Where the margin counts from.

    Attributes:
        version: the last proven version on the way to the champion; None for the baseline.
        looks: verdicts since.
        champion: verdicts since the champion is in charge.
    """

    version: str | None
    looks: Looks
    champion: Looks


def last_proven(verdicts: list[WrittenVerdict], champion: str | None) -> Proven:
    """Return the last proven version that the `champion` goes back to.

    Args:
        verdicts: the loop's history, oldest first.
        champion: the version in charge; None for the baseline.
    """
    held: list[tuple[WrittenVerdict, bool]] = []  # the champions that a rollback can go back through, as a stack
    for move in moves(verdicts, "champion", champion) if champion is not None else []:
        before = [entry.to_version for entry, _ in held]
        if move.to_version is None:
            held = []
        elif move.verdict == "rolled_back" and move.to_version in before:
            held = held[: before.index(move.to_version) + 1]
        else:
            held.append((move, _proves(move, not held or held[-1][1])))
    proven = next((entry for entry, proves in reversed(held) if proves), None)
    since, in_charge = (0 if entry is None else entry.number for entry in (proven, held[-1][0] if held else None))
    return Proven(
        None if proven is None else proven.to_version,
        _looks(verdicts, since, "likely" if since == in_charge else "proven_likely"),
        _looks(verdicts, in_charge, "likely"),
    )


def _looks(verdicts: list[WrittenVerdict], since: int, likely: str) -> Looks:
    judged = {
        (entry.version, entry.numbers.get("rows")): entry.numbers.get(likely, entry.numbers.get("likely")) != 0.0
        for entry in verdicts
        if entry.number > since and _looked(entry)
    }
    return Looks(len(judged), sum(judged.values()))


def _proves(move: WrittenVerdict, after_proven: bool) -> bool:
    if move.verdict != "promoted":
        return False
    if "proven" in move.numbers:
        return move.numbers["proven"] == 1.0
    if "promotion" in move.numbers:  # a guard's
        return after_proven
    return (move.numbers.get("lower_bound") or 0.0) > 0.0


def _looked(entry: WrittenVerdict) -> bool:
    of_the_gate = entry.verdict in ("promoted", "refused", "candidate") and "rows" in entry.numbers
    return of_the_gate and entry.numbers.get("judged") != 0.0
