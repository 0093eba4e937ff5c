"""Worlds whose form is known: how users respond is written down, but for a few numbers of a group and of each user.

A form is code, of ours or of a user, that a setting names: ``lts``, ``driver-programme``, or ``module:name`` for an
object of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

import numpy as np

from decision.batch import Floats
from decision.errors import FieldError

FORMS = {
    "lts": "simulators.environments.lts.form:FORM",
    "driver-programme": "simulators.environments.driver_form:FORM",
}
"""Forms that come with this package."""


class Form(Protocol):
    """Users of one group after another, all in one array: n of them, p numbers of a group, k of a user.

    Attributes:
        parameters: the group's numbers by name, with the least and greatest value of each.
        scales: all of them are in units of the reward; their bounds then are in usual rewards, the log's mean size.
    """

    parameters: Mapping[str, tuple[float, float]]
    scales: bool

    def traits(self, rng: np.random.Generator, users: int) -> Floats:
        """Return [n, k] the numbers of fresh users."""
        ...

    def start(self, group: Floats, traits: Floats) -> Floats:
        """Return [n, s] the state of users of `traits` [n, k] in groups [n, p]."""
        ...

    def mean(self, group: Floats, traits: Floats, state: Floats, shown: Floats) -> Floats:
        """Return [n] the rewards expected of actions of features [n, d], as the application sends them."""
        ...

    def after(self, group: Floats, traits: Floats, state: Floats, shown: Floats, reward: Floats) -> Floats:
        """Return [n, s] the state after actions of features [n, d] brought `reward` [n]."""
        ...


def form_of(name: str) -> Form:
    """Return the form called `name`.

    Raises:
        FieldError: there is none, or the object named has not what a form has.
    """
    place = FORMS.get(name, name)
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise FieldError("session.form", wanted=f"one of {', '.join(FORMS)}, or module:name", got=name)
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise FieldError("session.form", wanted="a module and a name in it that can be imported", got=name) from error
    missing = [
        each for each in ("parameters", "scales", "traits", "start", "mean", "after") if not hasattr(found, each)
    ]
    if missing:
        raise FieldError("session.form", wanted=f"an object with {', '.join(missing)}", got=name)
    return found
