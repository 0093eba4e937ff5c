"""Oracles by name: one place that makes them and one that loads them; a library is imported when it is needed."""

from __future__ import annotations

from typing import get_args

import msgspec

from decision.errors import FieldError
from decision.options import PASSES, SHIPPED, Bag, Bits, OracleKind, Passes, Positive, Range, Seed
from decision.protocols import Oracle

KINDS: tuple[str, ...] = get_args(OracleKind)


class OracleSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind of oracle is made from; each reads the settings that concern it.

    Attributes:
        kind: the reward model.
        interactions: learn products of context and action features (all but ``lightgbm``, whose trees find them).
        ridge: prior precision of ``logistic`` and ``linear``.
        learning_rate: step size of ``vw``.
        bits: size of the weight table of ``vw``, as a power of two.
        passes: times ``vw`` goes through the data.
        bag: members fitted on bootstrapped rows; 1 for none.
        seed: of every random choice.
    """

    kind: OracleKind = SHIPPED.oracle
    interactions: bool = SHIPPED.interactions
    ridge: Positive = SHIPPED.ridge
    learning_rate: Positive = SHIPPED.learning_rate
    bits: Bits = SHIPPED.bits
    passes: Passes = PASSES
    bag: Bag = SHIPPED.bag
    seed: Seed = 0


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
    s = settings
    if s.kind == "logistic":
        from decision.oracles.logistic import LogisticOracle, LogisticSettings

        return LogisticOracle(
            LogisticSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high, seed=s.seed)
        )
    if s.kind == "linear":
        from decision.oracles.linear import LinearOracle, LinearSettings

        return LinearOracle(LinearSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high))
    if s.kind == "lightgbm":
        from decision.oracles.gradient_boosting import GradientBoostingOracle, GradientBoostingSettings

        return GradientBoostingOracle(GradientBoostingSettings(seed=s.seed % 2**31, low=s.low, high=s.high))
    if s.kind == "neural":
        from decision.oracles.neural import NeuralOracle, NeuralSettings

        return NeuralOracle(NeuralSettings(interactions=s.interactions, seed=s.seed, low=s.low, high=s.high))
    from decision.oracles.vw import VwOracle, VwSettings

    return VwOracle(
        VwSettings(
            interactions=s.interactions,
            learning_rate=s.learning_rate,
            bits=s.bits,
            passes=s.passes,
            seed=s.seed,
            low=s.low,
            high=s.high,
        )
    )


def load_oracle(kind: str, files: dict[str, bytes]) -> Oracle:
    """Return the oracle of `kind` in `files`.

    Raises:
        FieldError: the kind is unknown or a file does not fit.
        ImportError: the library of this kind is not installed.
    """
    if kind == "ensemble":
        from decision.oracles.ensemble import EnsembleOracle

        return EnsembleOracle.load(files, load_oracle)
    if kind == "logistic":
        from decision.oracles.logistic import LogisticOracle

        return LogisticOracle.load(files)
    if kind == "linear":
        from decision.oracles.linear import LinearOracle

        return LinearOracle.load(files)
    if kind == "lightgbm":
        from decision.oracles.gradient_boosting import GradientBoostingOracle

        return GradientBoostingOracle.load(files)
    if kind == "neural":
        from decision.oracles.neural import NeuralOracle

        return NeuralOracle.load(files)
    if kind == "vw":
        from decision.oracles.vw import VwOracle

        return VwOracle.load(files)
    if kind == "session":
        from decision.oracles.session import SessionOracle

        return SessionOracle.load(files)
    raise FieldError("oracle", wanted=f"one of {[*KINDS, 'ensemble', 'session']}", got=kind)
