"""What every estimator starts from: a log, an evaluation policy and a reward model, as a few numbers per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Interactions, Ints
from decision.errors import FieldError
from decision.ope.weights import weights_of
from decision.ragged import group_sum


@dataclass(frozen=True, slots=True)
class Rows:
    """n logged decisions under an evaluation policy; flat arrays of m offered actions, cut by `offsets`.

    Attributes:
        offsets: [n + 1] int64.
        chosen: [n] int64 flat row of the drawn action.
        propensity: [n] logged probability of the drawn action.
        reward: [n].
        target: [m] evaluation policy.
        logging: [m] logging policy; None where the log does not hold it whole.
        expected: [m] reward model; None without one.
        weight: [n] evaluation over logged probability of the drawn action.
        direct: [n] the reward model's value of the evaluation policy; 0 without a model.
        fitted: [n] the reward model at the drawn action; 0 without a model.
        counts: [n] how many decisions each row stands for; None where every decision was kept.
        robust: [m] a second reward model, fitted for MRDR; None without one.
        code: [m] int64 group of every offered action; None where actions come in no groups.
    """

    offsets: Ints
    chosen: Ints
    propensity: Floats
    reward: Floats
    target: Floats
    logging: Floats | None
    expected: Floats | None
    weight: Floats
    direct: Floats
    fitted: Floats
    counts: Floats | None = None
    robust: Floats | None = None
    code: Ints | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @staticmethod
    def of(
        interactions: Interactions,
        pmf: Floats,
        expected: Floats | None = None,
        counts: Floats | None = None,
        *,
        robust: Floats | None = None,
        code: Ints | None = None,
    ) -> Rows:
        """Return the rows of a log.

        Args:
            interactions: the log; NaN in its `pmf` where the distribution is not known.
            pmf: [m] evaluation policy, flat.
            expected: [m] reward model, flat, fitted on other rows than these.
            counts: [n] decisions each row stands for, above 0.
            robust: [m] a second reward model, fitted for MRDR.
            code: [m] int64 group of every offered action.

        Raises:
            FieldError: shapes differ, a propensity is not in (0, 1], or a count is not above 0.
        """
        weight = weights_of(interactions, pmf)
        offsets, n = interactions.batch.offsets, len(interactions)
        for name, column in (("expected", expected), ("robust", robust), ("code", code)):
            if column is not None and column.shape != pmf.shape:
                raise FieldError(name, wanted=f"[{len(pmf)}] numbers", got=column.shape)
        if counts is not None and (counts.shape != (n,) or (n and not float(counts.min()) > 0)):
            raise FieldError("counts", wanted=f"[{n}] numbers above 0", got=counts)
        direct = fitted = np.zeros(n)
        if expected is not None and n:
            direct, fitted = group_sum(pmf * expected, offsets), expected[interactions.chosen]
        logging = None if np.isnan(interactions.pmf).any() else interactions.pmf
        return Rows(
            offsets,
            interactions.chosen,
            interactions.propensity,
            interactions.reward,
            pmf,
            logging,
            expected,
            weight,
            direct,
            fitted,
            counts,
            robust,
            code,
        )

    @property
    def residual(self) -> Floats:
        """[n] reward minus the reward model."""
        return self.reward - self.fitted

    def whole_logging(self) -> Floats:
        """Return [m] the logging policy.

        Raises:
            FieldError: the log does not hold it whole.
        """
        if self.logging is None:
            raise FieldError("pmf", wanted="the whole logging distribution of every decision", got=None)
        return self.logging

    def model(self) -> Floats:
        """Return [m] the reward model.

        Raises:
            FieldError: there is none.
        """
        if self.expected is None:
            raise FieldError("expected", wanted="a reward model", got=None)
        return self.expected

    def robust_model(self) -> Floats:
        """Return [m] the reward model that was fitted for MRDR.

        Raises:
            FieldError: there is none.
        """
        if self.robust is None:
            raise FieldError("robust", wanted="a reward model for MRDR", got=None)
        return self.robust

    def groups(self) -> Ints:
        """Return [m] the group of every offered action.

        Raises:
            FieldError: actions come in no groups.
        """
        if self.code is None:
            raise FieldError("code", wanted="a group of every action", got=None)
        return self.code


def above_zero(value: float, field: str) -> float:
    """Return `value`.

    Raises:
        FieldError: naming `field`, it is not above 0.
    """
    if not value > 0:
        raise FieldError(field, wanted="a number above 0", got=value)
    return value
