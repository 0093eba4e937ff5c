"""What a loop's owner may choose: names of oracles and rules, and the rules of a training's data. No arrays here."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from decision.errors import FieldError

OracleKind = Literal["logistic", "linear", "vw", "lightgbm", "neural"]
RuleKind = Literal["squarecb", "falcon", "fastcb", "epsilon_greedy", "softmax", "regcb", "thompson", "uniform"]
Importance = Literal["none", "clipped", "sqrt"]


class DataRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of a training's data. A generation is what was logged between two trainings; the newest has age 0.

    Attributes:
        generation_rows: decisions that make a generation at least; trainings closer together count as one.
        generations: generations that count in full strength, but for `decay`; 0 for all.
        decay: factor by which a row counts less with every generation, in (0, 1]; 1 for none.
        reservoir: further generations of which the uniformly drawn part is kept; 0 for none.
        importance: weight of a row against the policy that drew it: none, ``clipped`` 1 / (p K), or its root.
        clip: largest such weight, >= 1.
        average: newest models whose mean is served; 1 for the new one alone.
        warm_start: resume the last generation's model on the newest generation's rows alone.
    """

    generation_rows: Annotated[int, msgspec.Meta(ge=1)] = 5_000
    generations: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    reservoir: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    importance: Importance = "none"
    clip: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    average: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    warm_start: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.decay <= 1.0:
            raise FieldError("decay", wanted="a number in (0, 1]", got=self.decay)
        if self.warm_start and self.average > 1:
            raise FieldError("warm_start", wanted="no average beside it", got=self.average)
