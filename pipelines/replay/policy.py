"""The policy under test, in a form that can be named on a command line and sent to another process."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Batch, Floats, Interactions
from decision.errors import FieldError, Words
from decision.exploration.mix import check_pmf, with_floor
from decision.policy import FirstPolicy, RankingPolicy, UniformPolicy, baseline_policy, features_version_of
from decision.protocols import Policy
from pipelines.interactions.arrays import asked_of
from pipelines.replay.policies.functions import OneByOne, OverColumns, ReadsRows
from pipelines.replay.policies.rules import Rules

Tested = Policy | ReadsRows
"""A policy under test: asked with features as models read them, or with rows as they were logged."""


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where a policy comes from.

    Attributes:
        kind: a reference policy, the files of a version, a Python callable, a file of rules, or an object at hand.
        name: the policy in words.
        files: of a version, or the one of rules.
        path: ``module:name`` of a Python callable.
        steepness: of ``ranking``, see `decision.exploration.tilt`.
        explore: share of uniform draws that ``uniform``, ``first`` or ``ranking`` is mixed with, in [0, 1].
        held: the policy itself, of kind ``object``.
    """

    kind: Literal["uniform", "first", "ranking", "version", "python", "rules", "object"]
    name: str
    files: dict[str, bytes] = {}
    path: str = ""
    steepness: float = 1.0
    explore: float = 0.0
    held: Any = None

    def load(self) -> Tested:
        """Return the policy.

        Raises:
            FieldError: there is no such callable, the files of a version do not fit their manifest, or rules cannot be
                read.
        """
        if self.kind == "uniform" or self.kind == "first" or self.kind == "ranking":
            plain = baseline_policy(self.kind, steepness=self.steepness)
            return Explored(plain, self.explore) if self.explore else plain
        if self.kind == "version":
            from decision.artifact import unpack

            return unpack(self.files)[0]
        if self.kind == "rules":
            return Rules(next(iter(self.files.values())))
        return python_policy(self.path) if self.kind == "python" else self.held


def spec_of(policy: Policy, name: str) -> PolicySpec:
    """Return the specification of a policy at hand."""
    return PolicySpec(kind="object", name=name, held=policy)


def reads_features(policy: Tested) -> bool:
    """Return whether a policy looks at features; the reference policies look at the number of actions alone."""
    return not isinstance(policy, UniformPolicy | FirstPolicy | RankingPolicy | Explored)


def pmf_of(policy: Tested, table: pa.Table, log: Interactions) -> Floats:
    """Return the policy's [m] probabilities.

    Args:
        policy: who is asked.
        table: [n] rows, their texts among them where the policy reads rows.
        log: [n] the same as arrays.
    """
    if isinstance(policy, ReadsRows):
        return policy.pmf_of_rows(table)
    return policy.pmf(asked_of(policy, table, log).batch)


class Explored:
    """A reference policy as it answers while nothing was learned yet: mixed with uniform draws.

    Args:
        policy: the policy.
        share: of uniform draws, in [0, 1].
    """

    def __init__(self, policy: Policy, share: float) -> None:
        self._policy, self._share = policy, share

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities."""
        return with_floor(self._policy.pmf(batch), batch.offsets, self._share)


class CallablePolicy:
    """A function from a batch to [m] probabilities, checked to be distributions.

    Args:
        function: the function.
        name: how it is named in errors.
    """

    def __init__(self, function: Callable[[Batch], Any], name: str) -> None:
        self._function = function
        self._name = name

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities.

        Raises:
            FieldError: the function's result is no distribution over every decision's actions.
        """
        out = np.asarray(self._function(batch), dtype=np.float64)
        if out.shape != (len(batch.actions),):
            wanted = f"[{len(batch.actions)}] probabilities of {self._name}, one for every action offered"
            raise FieldError("policy", wanted=wanted, got=out.shape)
        check_pmf(out, batch.offsets)
        return out


class OneAtATime:
    """A policy that several threads may ask: it may be anybody's, and answers one of them at a time.

    Args:
        policy: the policy.
    """

    _lock = threading.Lock()

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.features_version = features_version_of(policy)

    def pmf(self, batch: Batch) -> Floats:
        """Return the policy's [m] probabilities."""
        with self._lock:
            return self._policy.pmf(batch)


def python_policy(path: str) -> Tested:
    """Return the policy that ``module:name``, or ``file.py:name``, names.

    It is a function of two arguments, the context and the actions of one decision (`OneByOne`); of one that is called
    ``columns`` (`OverColumns`); of one of any other name, a batch; a policy, or a class of policies. Modules are looked
    for where Python looks, and in the working directory first.

    Raises:
        FieldError: there is no such module or name, or it is no policy.
    """
    module, _, name = path.rpartition(":")
    if not module or not name:
        raise FieldError("policy", wanted="module:name or file.py:name", got=path)
    try:
        found = _imported(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module may raise anything while it is run
        wanted = "the module, or the file, and the name of a Python callable"
        raise FieldError("policy", wanted=wanted, got=Words(f"{type(error).__name__}: {error}")) from error
    if isinstance(found, type):
        found = found()
    if callable(getattr(found, "pmf", None)):
        return CallablePolicy(found.pmf, path)  # pyright: ignore[reportAttributeAccessIssue]
    if callable(found):
        names = _arguments(found)
        if len(names) == 2:
            return OneByOne(found, path)
        return OverColumns(found, path) if names == ["columns"] else CallablePolicy(found, path)
    raise FieldError(
        "policy",
        wanted="a function of (context, actions), (columns) or (batch), or an object with `pmf`",
        got=type(found).__name__,
    )


def _imported(module: str) -> Any:
    """Return a module by its name, or by its file: what that imports is looked for beside it first.

    What its functions import later is looked for there last: a file with a library's name shall not stand in for it in
    whatever else this process imports.
    """
    file = Path(module) if module.endswith(".py") else None
    beside = str(Path.cwd() if file is None else file.resolve().parent)
    known = beside in sys.path
    if not known:
        sys.path.insert(0, beside)
    try:
        if file is None:
            return importlib.import_module(module)
        spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot read {file}")
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made
    finally:
        if not known:
            sys.path.remove(beside)
            sys.path.append(beside)


def _arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a call must give."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in found if one.kind in places and one.default is inspect.Parameter.empty]
