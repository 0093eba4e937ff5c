"""Settings check themselves however they are made, and complaints name the field, what fits and what was meant."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from decision.errors import FieldError
from decision.options import Range
from decision.validation import Checked, convert, field_error, in_words


class Oven(Checked, frozen=True, kw_only=True):
    heat: Annotated[float, msgspec.Meta(gt=0, le=300)] = 200.0
    least: float = 50.0

    def _relations(self) -> None:
        if self.least > self.heat:
            raise FieldError("least", wanted=f"at most heat = {self.heat}", got=self.least)


class Grill(Oven, frozen=True, kw_only=True):
    """Has a relation of its own, which takes nothing away from its parent's."""

    side: Literal["above", "below"] = "above"
    rods: int = 2

    def _relations(self) -> None:
        if self.rods == 3:
            raise FieldError("rods", wanted="an even number", got=3)


class Kitchen(Checked, frozen=True, kw_only=True):
    grill: Grill = Grill()
    spare: tuple[Oven, ...] = ()
    name: Annotated[str, msgspec.Meta(max_length=5)] = ""


WRONG = [
    ({"heat": 301.0}, "heat", "must be a number above 0 and at most 300, is 301.0"),
    ({"heat": 0.0}, "heat", "above 0"),
    ({"heat": math.nan}, "heat", "finite"),
    ({"least": -math.inf}, "least", "finite"),
    ({"heat": "hot"}, "heat", "must be a number above 0 and at most 300, is 'hot'"),
    ({"heat": True}, "heat", "is true"),
    ({"least": 250.0}, "least", "must be at most heat = 200.0, is 250.0"),
    ({"side": "belwo"}, "side", "must be 'above' or 'below', is 'belwo'; did you mean 'below'?"),
    ({"rods": 3}, "rods", "even"),
    ({"rods": 2.5}, "rods", "must be a whole number, is 2.5"),
]
MAKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "built": lambda values: Grill(**values),
    "replaced": lambda values: msgspec.structs.replace(Grill(), **values),
    "converted": lambda values: convert(values, Grill),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(("values", "field", "said"), WRONG, ids=str)
def test_a_subclass_checks_what_its_parent_does_however_it_is_made(
    make: Callable[[dict[str, Any]], Any], values: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(FieldError) as caught:
        make(values)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_json_is_checked_too() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"grill": {"least": 250.0}}', type=Kitchen)
    assert str(field_error(caught.value)) == "grill.least: must be at most heat = 200.0, is 250.0"


def test_the_check_of_all_cannot_be_replaced() -> None:
    """A subclass that has its own `__post_init__` is an error of the type checker; no class of the tree has one."""

    def below(kind: type[Any]) -> list[type[Any]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    assert all("__post_init__" not in vars(kind) for kind in below(Checked) if kind is not Checked)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"gril": {}}, "gril: unknown field; did you mean 'grill'? known: grill, spare, name"),
        ({"zzz": {}}, "zzz: unknown field; known: grill, spare, name"),
        ({"": {}}, "'': unknown field; known: grill, spare, name"),
        ({"grill": {"": 1}}, "grill.'': unknown field; known: heat, least, side, rods"),
        ({"grill": 3}, "grill: must be a table, is 3"),
        (
            {"grill": {"heta": 3}},
            "grill.heta: unknown field; did you mean 'grill.heat'? known: heat, least, side, rods",
        ),
        ({"spare": [{}, {"heat": -1}]}, "spare[1].heat: must be a number above 0 and at most 300, is -1"),
        ({"spare": [{}, {"heat": 20}]}, "spare[1].least: must be at most heat = 20.0, is 50.0"),
        ({"spare": 3}, "spare: must be a list of tables, is 3"),
        ({"name": "kitchen"}, "name: must be text of at most 5 characters, is 'kitchen'"),
        ({"name": None}, "name: must be text of at most 5 characters, is null"),
    ],
)
def test_a_complaint_names_the_path_what_fits_and_what_was_meant(value: Any, said: str) -> None:
    with pytest.raises(FieldError) as caught:
        convert(value, Kitchen)
    assert str(caught.value) == said


class Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    shown_name: str
    items: list[dict[str, int]] = []
    at: int | None = None
    share: float = 0.0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "shownName: required"),
        (b'{"shownNam": 1}', "shownNam: unknown field; did you mean 'shownName'? known: shownName, items, at, share"),
        (b'{"shownName": 1}', "shownName: must be text, is of type int"),
        (b'{"shownName": "", "items": [{"a": "x"}]}', "items[0][...]: must be a whole number, is of type str"),
        (b'{"shownName": "", "at": "x"}', "at: must be a whole number, is of type str"),
        (b"[1]", "body: must be an object, is of type array"),
        (b"{", "body: must be valid JSON: Input data was truncated"),
        (
            b'{"shownName": "", "at": %s}' % (b"9" * 4_301),
            "at: must be a number of at most 4,300 digits, is a longer one",
        ),
        (b'{"shownName": "", "share": %s}' % (b"9" * 400), "share: must be a number below 1.8e308, is a longer one"),
        (b'{"a - at `$.b` c": 1}', "a - at `$.b` c: unknown field; known: shownName, items, at, share"),
    ],
)
def test_a_body_that_does_not_fit_is_told_in_the_names_of_the_wire(body: bytes, said: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(body, type=Body)
    assert str(field_error(caught.value, Body)) == said


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Annotated[int, msgspec.Meta(ge=1, le=65_535)], "a whole number between 1 and 65,535"),
        (Annotated[float, msgspec.Meta(gt=0, lt=0.5)], "a number above 0 and below 0.5"),
        (Annotated[float, msgspec.Meta(ge=0)], "a number at least 0"),
        (float | None, "a number"),
        (Literal["a", "b", "c"], "'a', 'b' or 'c'"),
        (bool, "true or false"),
        (tuple[str, ...], "a list of texts"),
        (Range, "a table"),
        (dict[str, int], "an object"),
    ],
)
def test_an_annotation_reads_as_the_end_of_a_sentence(annotation: Any, said: str) -> None:
    assert in_words(annotation) == said


_RACE = """
import json, msgspec, sys, threading, types
from decision.validation import prepared

sys.setswitchinterval(1e-6)
inner = "".join(f"class N{j}(msgspec.Struct):\\n    x: list[float]\\n" for j in range(20))
outer = "class S(msgspec.Struct):\\n" + "".join(f"    g{j}: N{j}\\n" for j in range(20))
data = json.dumps({f"g{j}": {"x": [1.0]} for j in range(20)})
for number in range(60):
    module = sys.modules[f"m{number}"] = types.ModuleType(f"m{number}")
    module.msgspec = msgspec
    exec("from __future__ import annotations\\n" + inner + outer, module.__dict__)
    ready, read = threading.Barrier(4), []

    def decode():
        ready.wait()
        read.append(msgspec.json.decode(data, type=prepared(module.S)))

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 4
"""


def test_threads_that_decode_a_new_type_at_once_all_read_it() -> None:
    """Without `prepared` this ends with a segmentation fault, every time of three tries."""
    done = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
