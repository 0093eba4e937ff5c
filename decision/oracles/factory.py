"""Oracles by name: one place that makes them and one that loads them; a library is imported when it is needed."""

from __future__ import annotations

from importlib import import_module

import msgspec

from decision.errors import DecisionError, FieldError
from decision.options import ORACLES
from decision.oracles.kind import Kind, OracleSettings
from decision.protocols import Oracle

LOADABLE = {**ORACLES, "session": "decision.oracles.session"}
"""Kinds that a registered version may be of, besides ``ensemble`` and ``kept``, which are made of others."""
KEPT = "kept"
"""Kind of a model that keeps what the champion does where that is as good, see `decision.oracles.kept`."""


def new_oracle(settings: OracleSettings) -> Oracle:
    """Return a cold oracle.

    Raises:
        FieldError: a setting is outside its range.
        ImportError: the library of this kind is not installed.
    """
    if settings.bag > 1:
        from decision.oracles.ensemble import EnsembleOracle

        seeds = range(settings.seed * 1_000, settings.seed * 1_000 + settings.bag)
        alone = [msgspec.structs.replace(settings, bag=1, seed=seed) for seed in seeds]
        return EnsembleOracle([(settings.kind, new_oracle(one)) for one in alone], bootstrap=True, seed=settings.seed)
    return _kind(settings.kind).new(settings)


def load_oracle(kind: str, files: dict[str, bytes]) -> Oracle:
    """Return the oracle of `kind` in `files`.

    Raises:
        FieldError: the kind is unknown or a file does not fit.
        ImportError: the library of this kind is not installed.
    """
    try:
        if kind == "ensemble":
            from decision.oracles.ensemble import EnsembleOracle

            return EnsembleOracle.load(files, load_oracle)
        if kind == KEPT:
            from decision.oracles.kept import KeptOracle

            return KeptOracle.load(files, load_oracle)
        return _kind(kind).load(files)
    except DecisionError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise FieldError("files", wanted=f"a model of kind {kind!r}", got=error) from error


def _kind(name: str) -> Kind:
    if name not in LOADABLE:
        raise FieldError.choice("oracle", [*LOADABLE, "ensemble", KEPT], name)
    return import_module(LOADABLE[name]).ORACLE
