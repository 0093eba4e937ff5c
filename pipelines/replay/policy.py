"""The policy under test, in a form that can be named on a command line and sent to another process."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from decision.batch import Batch, Floats
from decision.errors import FieldError
from decision.exploration.mix import check_pmf
from decision.policy import FirstPolicy, UniformPolicy, baseline_policy, features_version_of
from decision.protocols import Policy


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where a policy comes from.

    Attributes:
        kind: a reference policy, the files of a registered version, a Python callable, or an object at hand.
        name: the policy in words.
        files: of a version.
        path: ``module:name`` of a Python callable.
        held: the policy itself, of kind ``object``.
    """

    kind: Literal["uniform", "first", "version", "python", "object"]
    name: str
    files: dict[str, bytes] = {}
    path: str = ""
    held: Any = None

    def load(self) -> Policy:
        """Return the policy.

        Raises:
            FieldError: there is no such callable, or the files of a version do not fit their manifest.
        """
        if self.kind == "uniform" or self.kind == "first":
            return baseline_policy(self.kind)
        if self.kind == "version":
            from decision.artifact import unpack

            return unpack(self.files)[0]
        return python_policy(self.path) if self.kind == "python" else self.held


def spec_of(policy: Policy, name: str) -> PolicySpec:
    """Return the specification of a policy at hand."""
    return PolicySpec(kind="object", name=name, held=policy)


def reads_features(policy: Policy) -> bool:
    """Return whether a policy looks at features; the reference policies look at the number of actions alone."""
    return not isinstance(policy, UniformPolicy | FirstPolicy)


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


def python_policy(path: str) -> Policy:
    """Return the policy that ``module:name`` names: a function of a batch, a policy, or a class of policies.

    Modules are looked for where Python looks, and in the working directory first.

    Raises:
        FieldError: there is no such module or name, or it is no policy.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise FieldError("policy", wanted="module:name", got=path)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise FieldError("policy", wanted="the module and name of a Python callable", got=error) from error
    if isinstance(found, type):
        found = found()
    if callable(getattr(found, "pmf", None)):
        return CallablePolicy(found.pmf, path)  # pyright: ignore[reportAttributeAccessIssue]
    if callable(found):
        return CallablePolicy(found, path)
    raise FieldError("policy", wanted="a function of a batch, or an object with `pmf`", got=type(found).__name__)
