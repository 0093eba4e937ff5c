"""What a rule takes from the rows that its oracle learned from: how many, how noisy, and what floor they leave to do.

The floor buys evaluation: a policy that is uniform, or any that the log did not prefer, can be judged only on draws
that did not ask what is best. The log needs `wanted` of them, or, while it is short, the share U of its rows that the
rule's own floor would give it. With H held among n rows, the floor is

    u = (min(wanted, U n) - H) / n,      between the smallest share and U

H counts a row by the part of its distribution that is uniform, K min_a p(a): its chance of such a draw, by whatever
rule. So a log that began uniformly has the smallest floor from its first night on, a long one pays for `wanted` draws
and no more, and the floor stays small while exploration itself does the work, and comes back when that stops.
"""

from __future__ import annotations

from msgspec.structs import replace

from decision.errors import FieldError
from decision.exploration.rule import Exploration


def scheduled(
    rule: Exploration, *, rows: float, uniform_rows: float, sigma: float, least: float, wanted: float
) -> Exploration:
    """Return `rule` for an oracle that learned from these rows; it is fixed from then on.

    Args:
        rule: kind and numbers; its floor is the largest that there may be.
        rows: effective rows, 0 or more.
        uniform_rows: uniform draws among them, see `decision.generations.Tally`.
        sigma: deviation of rewards from what the oracle predicts, see `decision.exploration.sigma`.
        least: smallest share of uniform draws, in [0, 1]; the rule's floor where that is smaller.
        wanted: uniform draws that the log should hold, 0 or more.

    Raises:
        FieldError: a number is outside its range.
    """
    floor = floor_share(uniform_rows, rows, least=least, wanted=wanted, most=rule.floor)
    return replace(rule, rows=rows, sigma=sigma, floor=floor)


def floor_share(held: float, rows: float, *, least: float, wanted: float, most: float) -> float:
    """Return the share of uniform draws.

    Args:
        held: uniform draws among the rows, 0 or more.
        rows: effective rows, 0 or more.
        least: smallest share, in [0, 1].
        wanted: uniform draws that there should be once the log is long, 0 or more.
        most: largest share, in [0, 1]; it goes before `least`.

    Raises:
        FieldError: a number is outside its range.
    """
    for field, share in (("floor_minimum", least), ("floor", most)):
        if not 0.0 <= share <= 1.0:
            raise FieldError(field, wanted="a number in [0, 1]", got=share)
    for field, count in (("floor_rows", wanted), ("uniform_rows", held), ("rows", rows)):
        if not count >= 0.0:
            raise FieldError(field, wanted="0 or more", got=count)
    lacking = min(wanted, most * rows) - held
    return min(most, max(least, lacking / rows if rows else float(wanted > held)))
