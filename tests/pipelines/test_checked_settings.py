"""Every settings struct in the tree refuses what its annotations refuse, built in Python, replaced or read."""

from __future__ import annotations

import importlib
import math
import pkgutil
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import pytest

import decision
import pipelines
import serving
import simulators
from decision.errors import FieldError
from decision.options import SHIPPED, DataRules
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import Exploration
from decision.validation import Checked, convert
from pipelines.settings import LoopSettings, TrainingSettings
from pipelines.training.train import exploration_of

PACKAGES = (decision, simulators, pipelines, serving)
GIVEN: dict[str, dict[str, Any]] = {
    "LoopSettings": {"name": "x"},
    "SessionSettings": {"actions": ["a"], "levels": [0.5]},
    "AuxiliaryOutcome": {"outcome": "click"},
}
"""What a struct without a default for everything is made with."""


def _structs() -> list[type[Any]]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(("serving.service", "simulators.sim2rec", "pipelines.engines.ray")):
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:  # an extra that is not installed
                    if (error.name or "").partition(".")[0] in {package.__name__ for package in PACKAGES}:
                        raise

    def below(kind: type[Any]) -> list[type[Any]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    found = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in below(msgspec.Struct)}
    return [kind for name, kind in sorted(found.items()) if name.partition(".")[0] in {p.__name__ for p in PACKAGES}]


STRUCTS = _structs()
CHECKED = [kind for kind in STRUCTS if issubclass(kind, Checked) and kind is not Checked]


def _outside(annotation: Any) -> list[Any]:
    """Return values just outside what an annotation admits, and of other types."""
    kind, meta = annotation, msgspec.Meta()
    if get_origin(annotation) is Annotated:
        kind, meta = get_args(annotation)[0], get_args(annotation)[1]
    if kind is int:
        values: list[Any] = ["3", 1.5]
        values += [] if meta.ge is None else [meta.ge - 1]
        return values + ([] if meta.le is None else [meta.le + 1])
    if kind is float:
        values = ["3", True, math.nan, math.inf, -math.inf]
        for limit, way in ((meta.ge, -math.inf), (meta.le, math.inf)):
            values += [] if limit is None else [math.nextafter(float(limit), way)]
        return values + [float(limit) for limit in (meta.gt, meta.lt) if limit is not None]
    if kind is str:
        return [3] + ([] if meta.max_length is None else ["x" * (meta.max_length + 1)])
    if kind is bool:
        return [1, "true"]
    if get_origin(kind) is Literal:
        return ["no such choice", 3]
    return [object()]


CASES = [
    pytest.param(kind, field.name, value, id=f"{kind.__name__}.{field.name}={value!r:.12}")
    for kind in CHECKED
    for field in msgspec.structs.fields(kind)
    for value in _outside(field.type)
]


@pytest.mark.parametrize(("kind", "field", "value"), CASES)
def test_a_value_outside_its_annotation_is_refused_by_name(kind: type[Any], field: str, value: Any) -> None:
    given = GIVEN.get(kind.__name__, {})
    with pytest.raises(FieldError) as built:
        kind(**(given | {field: value}))
    with pytest.raises(FieldError) as replaced:
        msgspec.structs.replace(kind(**given), **{field: value})
    with pytest.raises(FieldError) as read:
        convert(given | {field: value}, kind)
    assert {caught.value.field for caught in (built, replaced, read)} == {field}


def test_every_settings_struct_is_among_them() -> None:
    named = {kind.__name__ for kind in STRUCTS if kind.__name__.endswith(("Settings", "Rules", "Options"))}
    assert named <= {kind.__name__ for kind in CHECKED}
    assert {"Exploration", "LoopSettings", "TrainingSettings", "Variant", "VwSettings", "GuardRules"} <= {
        kind.__name__ for kind in CHECKED
    }


def test_a_subclass_keeps_the_bounds_and_the_relations_of_its_parent() -> None:
    for kind in (DataRules, TrainingSettings):
        with pytest.raises(FieldError, match=r"decay: must be a number above 0 and at most 1, is 5\.0"):
            kind(decay=5.0)
        with pytest.raises(FieldError, match="warm_start"):
            kind(warm_start=True, average=2)


def test_the_rule_and_the_oracle_that_ship_are_the_defaults_everywhere() -> None:
    loop = LoopSettings(name="x")
    assert loop.policy == SHIPPED
    assert exploration_of(loop, 0.0) == Exploration()
    assert (Exploration().kind, OracleSettings().kind) == ("falcon", "logistic")
    shared = ("interactions", "ridge", "learning_rate", "bits", "bag")
    for name in shared:
        assert getattr(OracleSettings(), name) == getattr(SHIPPED, name)
    assert OracleSettings().passes == loop.training.passes
    for kind in ("logistic", "linear", "vw"):
        made: Any = new_oracle(OracleSettings(kind=kind))  # type: ignore[arg-type]
        assert made.settings == type(made.settings)()
