"""Labelled data as a decision point: features are the context, classes the actions, 1 the reward of the right one.

Every label is known, so the value of any policy and of the best one are exact, while the policy itself only ever sees
the reward of the action it drew (Beygelzimer and Langford 2009, "The offset tree", section 1). The data sets are those
that scikit-learn ships.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decision.batch import Batch, Features, Floats, Ints
from decision.errors import FieldError

DATASETS = ("digits", "wine", "breast_cancer")


@dataclass(frozen=True, slots=True)
class ClassificationWorld:
    """A labelled data set as a decision point.

    Attributes:
        name: the data set.
        feature_names: [d] names of the context features.
        contexts: [n, d] context features, scaled to [0, 1] over the data set.
        labels: [n] int64 index of the right action, in [0, K).
        action_ids: [K] one per class.
        train: int64 rows that traffic is drawn from.
        heldout: int64 rows that no traffic shows, for exact values.
    """

    name: str
    feature_names: tuple[str, ...]
    contexts: Floats
    labels: Ints
    action_ids: tuple[str, ...]
    train: Ints
    heldout: Ints

    @property
    def optimum(self) -> float:
        """Value of always choosing the right action."""
        return 1.0

    @property
    def uniform_value(self) -> float:
        """Value of choosing uniformly at random."""
        return 1.0 / len(self.action_ids)

    def context(self, row: int) -> Features:
        """Return the context features of `row`; those that are 0 are left out, as an absent feature reads as 0."""
        values: list[float] = self.contexts[row].tolist()
        return {name: value for name, value in zip(self.feature_names, values, strict=True) if value}

    def action_features(self) -> list[dict[str, str]]:
        """Return [K] the features of each action as JSON objects: its class, a category."""
        return [{"class": action_id} for action_id in self.action_ids]

    def reward(self, row: int, action_id: str) -> float:
        """Return 1 when `action_id` is the class of `row`, else 0."""
        return float(self.action_ids[int(self.labels[row])] == action_id)

    def batch(self, rows: Ints) -> Batch:
        """Return the decisions at `rows` ([r]), every class offered in each."""
        k = len(self.action_ids)
        actions: list[Features] = [{f"class={action_id}": 1.0} for action_id in self.action_ids]
        return Batch(
            contexts=[self.context(int(row)) for row in rows],
            actions=actions * len(rows),
            action_ids=list(self.action_ids) * len(rows),
            offsets=np.arange(len(rows) + 1, dtype=np.int64) * k,
        )

    def value(self, pmf: Floats, rows: Ints) -> float:
        """Return the exact mean reward of drawing from `pmf` ([r * K], flat) at `rows` ([r])."""
        return float(np.mean(self._of_right(pmf, rows)))

    def greedy_accuracy(self, scores: Floats, rows: Ints) -> float:
        """Return the share of `rows` ([r]) whose best score ([r * K], flat; ties share) is the right action's."""
        table = scores.reshape(len(rows), -1)
        best = table >= table.max(axis=1, keepdims=True)
        return float(np.mean(self._of_right((best / best.sum(axis=1, keepdims=True)).ravel(), rows)))

    def _of_right(self, flat: Floats, rows: Ints) -> Floats:
        right: Floats = flat.reshape(len(rows), -1)[np.arange(len(rows)), self.labels[rows]]
        return right


def classification_world(name: str, *, seed: int, heldout: float = 0.3) -> ClassificationWorld:
    """Return a data set of scikit-learn's as a decision point.

    Args:
        name: one of `DATASETS`.
        seed: seed of the split into training and held-out rows.
        heldout: share of each class that is held out, in (0, 1).

    Raises:
        FieldError: there is no such data set, or `heldout` is no share.
    """
    if name not in DATASETS:
        raise FieldError.choice("world", list(DATASETS), name)
    if not 0 < heldout < 1:
        raise FieldError("heldout", wanted="a share in (0, 1)", got=heldout)
    x, labels, names, classes = _load(name)
    low, high = x.min(axis=0), x.max(axis=0)
    contexts = (x - low) / np.where(high > low, high - low, 1.0)
    rng = np.random.default_rng(seed)
    held: list[Ints] = []
    for label in range(len(classes)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: max(1, round(heldout * len(rows)))])
    out = np.sort(np.concatenate(held))
    return ClassificationWorld(
        name=name,
        feature_names=names,
        contexts=contexts,
        labels=labels,
        action_ids=classes,
        train=np.setdiff1d(np.arange(len(labels)), out),
        heldout=out,
    )


def _load(name: str) -> tuple[Floats, Ints, tuple[str, ...], tuple[str, ...]]:
    if name == "digits":
        return _digits()
    # Imported here: the packages above this one start without scikit-learn.
    from sklearn import datasets

    loaders: dict[str, Callable[[], Any]] = {"wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}
    data = loaders[name]()
    return (
        np.asarray(data.data, dtype=np.float64),
        np.asarray(data.target, dtype=np.int64),
        tuple(_named(data.feature_names)),
        tuple(_named(data.target_names)),
    )


def _digits() -> tuple[Floats, Ints, tuple[str, ...], tuple[str, ...]]:
    """Return what `sklearn.datasets.load_digits` returns, read from its file: the demonstration waits for no import."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed; it ships the digits", name="sklearn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    names = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return rows[:, :-1].copy(), rows[:, -1].astype(np.int64), names, tuple(str(digit) for digit in range(10))


def _named(names: Sequence[Any]) -> list[str]:
    return [str(name).replace(" ", "_") for name in names]
