"""Which estimator to trust on this log: a contest on pseudo-logs cut out of it (PAS-IF).

Udagawa, Kiyohara, Narita, Saito, Tateno 2022 (arXiv 2211.13904): every row goes to a pseudo-log of the evaluation
policy with probability rho(x, a), else to one of the logging policy, so that the ratio of the two pseudo-policies is
like the real weights. The first one's mean reward is what an estimator should find from the second. The paper learns
rho; here it has a closed form for a sampling share s: with ``rho = s w' / (1 - s + s w')`` the odds rho / (1 - rho)
are proportional to ``w' = min(w, cap)``, hence the pseudo-weights to the real ones, up to the normalisation that the
rows themselves give. Scores are squared errors averaged over splits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError

CAP = 100.0
LEAST = 30


@dataclass(frozen=True, slots=True)
class Contest:
    """The end of a contest.

    Attributes:
        scores: mean squared error by estimator, smallest is best.
        best: name of the winner.
        splits: pairs of pseudo-logs that it rests on.
    """

    scores: dict[str, float]
    best: str
    splits: int


Estimator = Callable[[Ints, Floats], float]
"""Takes the rows of a pseudo-log ([r] int64) and their weights ([r]); returns the estimate."""


def pas_if(
    weights: Floats,
    reward: Floats,
    estimators: Mapping[str, Estimator],
    rng: np.random.Generator,
    *,
    share: float = 0.5,
    splits: int = 20,
) -> Contest:
    """Let estimators compete.

    Args:
        weights: [n] of the real log for the evaluation policy.
        reward: [n].
        estimators: estimators by name.
        rng: source of the splits.
        share: s, in (0, 1): the larger, the larger the pseudo-log of the evaluation policy.
        splits: how many.

    Raises:
        FieldError: a setting is outside its range or there are no estimators.
        SupportError: the pseudo-logs have fewer than 30 rows each, on every split.
    """
    if not estimators:
        raise FieldError("estimators", wanted="one estimator or more", got=0)
    if not 0 < share < 1 or splits < 1:
        raise FieldError("share", wanted="a share in (0, 1) and 1 split or more", got=(share, splits))
    capped = np.minimum(weights, CAP)
    rho = share * capped / (1.0 - share + share * capped)
    errors: dict[str, list[float]] = {name: [] for name in estimators}
    for _ in range(splits):
        target = rng.random(len(weights)) < rho
        rows = np.flatnonzero(~target).astype(np.int64)
        if len(rows) < LEAST or int(target.sum()) < LEAST:
            continue
        # The odds, scaled so that their mean over the pseudo-log is 1.
        pseudo = capped[rows] * (share / (1.0 - share))
        pseudo = pseudo / pseudo.mean() if pseudo.sum() > 0 else pseudo
        truth = float(reward[target].mean())
        for name, estimator in estimators.items():
            errors[name].append((estimator(rows, pseudo) - truth) ** 2)
    done = len(next(iter(errors.values())))
    if not done:
        raise SupportError(f"every pseudo-log has fewer than {LEAST} rows")
    scores = {name: float(np.mean(found)) for name, found in errors.items()}
    return Contest(scores, min(scores, key=lambda name: scores[name]), done)
