"""How often a version would have done what the application did: what people wait for before a loop goes online.

The night of a loop in apprentice mode writes it into State; `decision top` and ``GET /v1/loops/{loop}`` show it.
"""

from __future__ import annotations

from statistics import NormalDist

import msgspec
import numpy as np

from decision.batch import Floats, Interactions
from decision.errors import FieldError
from decision.exploration.greedy import greedy
from decision.validation import prepared
from pipelines.settings import Settings, check_loop_name
from pipelines.state.change import change
from pipelines.state.state import State


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """A version's agreement with what was drawn.

    Attributes:
        version: the version.
        decisions: how many were looked at; it did not learn from them.
        share: of them whose action is the best to the version; of k that are equally good each counts 1 / k.
        low: lower end of the 95% interval.
        high: upper end.
    """

    version: str
    decisions: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it in a sentence."""
        interval = f"[{self.low:.1%}, {self.high:.1%}]"
        return f"version {self.version} would have done the same in {self.share:.1%} {interval} of {self.decisions}"


def agreement(version: str, interactions: Interactions, scores: Floats) -> Agreement:
    """Return how often the action with the best score was drawn, with Wilson's interval (1927).

    Args:
        version: whose scores they are.
        interactions: n >= 1 decisions.
        scores: [m] expected rewards of the actions offered, flat.
    """
    n = len(interactions)
    share = float(np.mean(greedy(scores, interactions.batch.offsets)[interactions.chosen]))
    z2 = NormalDist().inv_cdf(0.975) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # At 0 and at 1 an end is the share itself, which rounding may leave on the wrong side.
    return Agreement(version=version, decisions=n, share=share, low=min(low, share), high=max(high, share))


def keep_agreement(settings: Settings, loop: str, found: Agreement) -> None:
    """Keep what a night found."""
    with State(settings.state_url) as state:
        change(state, agreement_key(loop), lambda before: msgspec.json.encode(found))


def last_agreement(settings: Settings, loop: str) -> Agreement | None:
    """Return what the last night found; None before it.

    Raises:
        FieldError: what is kept cannot be read.
        StateError: State cannot be reached.
    """
    with State(settings.state_url) as state:
        entry = state.get(agreement_key(loop))
    return agreement_in(settings, loop, None if entry is None else entry.value)


def agreement_in(settings: Settings, loop: str, value: bytes | None) -> Agreement | None:
    """Return the agreement that stands in `value`, from under `agreement_key`; None for nothing there.

    Raises:
        FieldError: it cannot be read.
    """
    try:
        if value is not None:
            return msgspec.json.decode(value, type=prepared(Agreement))
        former = settings.root / "agreement" / f"{loop}.json"  # of an earlier release
        return msgspec.json.decode(former.read_bytes(), type=prepared(Agreement))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise FieldError(f"agreement of {loop}", wanted="the agreement that a night found", got=error) from error


def agreement_key(loop: str) -> str:
    """Return the key of a loop's agreement in State."""
    return f"loop/{check_loop_name(loop)}/agreement"
