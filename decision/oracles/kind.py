"""What a kind of oracle is: how one is made from settings, and how one is read from its files.

Each oracle's file ends with its `Kind`; `decision.options.ORACLES` names the files. Nothing else knows the kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from decision.options import PASSES, SHIPPED, Bag, Bits, OracleKind, Passes, Positive, Range, Seed
from decision.protocols import Oracle


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


class Kind(NamedTuple):
    """One kind of oracle.

    Attributes:
        new: makes a cold one.
        load: reads one from its files by name.
    """

    new: Callable[[OracleSettings], Oracle]
    load: Callable[[dict[str, bytes]], Oracle]
