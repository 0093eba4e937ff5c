"""The two contracts a policy is made of, as protocols; `tests/contracts` holds their executable suites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from decision.batch import Batch, Features, Floats, Interactions
from decision.parts import Parts


class Oracle(Protocol):
    """Expected reward per action, learned by regression on chosen actions."""

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, resume from the present state."""
        ...

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, one per offered action, flat in the order offered."""
        ...

    def save(self) -> dict[str, bytes]:
        """Return the native files of the model by name; never a pickle."""
        ...


@runtime_checkable
class FitsChunks(Protocol):
    """An oracle that learns from more rows than memory holds."""

    def fit_chunks(
        self,
        chunks: Iterable[Interactions],
        *,
        place: Callable[[], Parts] = ...,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Learn from `chunks`, which are gone through once, as `fit` from all of them at once, bit for bit.

        `place` makes where rows are kept meanwhile, memory by default. `watch` is told how often they have been gone
        over since, after each time.
        """
        ...


@runtime_checkable
class FitsWhole(Protocol):
    """An oracle that learns from the drawn action among those offered, and reads their ids by itself.

    Attributes:
        fits_whole: True.
    """

    fits_whole: bool


@runtime_checkable
class Prepares(Protocol):
    """An oracle that gets ready for actions that are offered again and again."""

    def prepare(self, actions: Sequence[Features]) -> Callable[[Sequence[Features]], Floats]:
        """Return what gives [n, k] expected rewards of `actions` ([k]) in each of n contexts.

        A context's are, bit for bit, those that `predict` gives for it alone, whatever others it comes with. It holds
        for the model as it is now; a fit makes another one necessary.
        """
        ...


@runtime_checkable
class ManyModels(Protocol):
    """An oracle that knows how sure it is: several models that the data do not tell apart."""

    def members(self, batch: Batch) -> Floats:
        """Return [S, m] expected rewards under each, the same when asked again."""
        ...


class Policy(Protocol):
    """A distribution over the offered actions; sampling and scoring derive from it."""

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities, flat; each decision's own sum to 1."""
        ...
