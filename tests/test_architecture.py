"""The picture of the architecture says what contracts, tree and code say."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from infra.docs import architecture

ROOT = Path(__file__).parents[1]
PACKAGES = ("serving", "pipelines", "simulators", "decision")


def contracts() -> list[tuple[str, list[list[str]]]]:
    """Every layered package of pyproject.toml, with its rooms by layer; those in brackets only if they exist."""
    found = []
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]:
        for container in contract.get("containers", []) if contract["type"] == "layers" else []:
            if container not in architecture.DRAWN:  # drawn as one room
                continue
            at = ROOT.joinpath(*container.split("."))
            layers = [[room for room in re.findall(r"\w+", layer) if exists(at / room)] for layer in contract["layers"]]
            found.append((container, [layer for layer in layers if layer]))
    return found


def exists(room: Path) -> bool:
    return (room / "__init__.py").is_file() or room.with_suffix(".py").is_file()


@pytest.fixture(scope="module")
def drawn() -> dict[str, float]:
    """The rooms in the picture that is committed, with the height at which each begins (0 for one inside another)."""
    rooms = {}
    for element in ET.parse(architecture.PICTURE).iter():
        name = element.get("data-room")
        if name:
            box = element.find("{http://www.w3.org/2000/svg}rect")
            assert name not in rooms, f"{name} is drawn twice"
            rooms[name] = 0.0 if box is None else float(box.get("y", "nan"))
    return rooms


def test_every_room_of_the_tree_is_in_the_picture_and_nothing_else(drawn: dict[str, float]) -> None:
    tree = {
        ".".join(folder.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for folder in (ROOT / package).rglob("__init__.py")
    }
    assert tree - drawn.keys() - set(PACKAGES) == set(), "rooms without a place in the picture"
    gone = [name for name in drawn if not exists(ROOT.joinpath(*name.split(".")))]
    assert gone == [], "drawn, but not in the tree"


@pytest.mark.parametrize(("package", "layers"), contracts())
def test_layers_are_drawn_in_the_order_of_their_contract(
    drawn: dict[str, float], package: str, layers: list[list[str]]
) -> None:
    heights = [{drawn[f"{package}.{room}"] for room in layer} for layer in layers]
    assert all(len(heights_of_one) == 1 for heights_of_one in heights), "rooms of one layer stand side by side"
    assert all(min(lower) > max(upper) for upper, lower in pairwise(heights))


def test_packages_stand_in_the_order_of_their_contract() -> None:
    first = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    assert tuple(first["layers"]) == PACKAGES == architecture.PACKAGES


def test_every_folder_has_a_caption_and_every_caption_its_place(drawn: dict[str, float]) -> None:
    folders = {
        f"{package}.{room.parent.name}" for package in PACKAGES for room in (ROOT / package).glob("*/__init__.py")
    }
    assert folders == architecture.CAPTIONS.keys()
    assert architecture.MODULES.keys() - drawn.keys() == set()


def test_arrows_that_others_imply_are_left_out_and_no_other() -> None:
    imports = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set[str]()}
    assert architecture.reduced(imports) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    diamond = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set[str]()}
    assert architecture.reduced(diamond) == diamond


def test_the_picture_is_the_one_that_the_code_draws() -> None:
    assert architecture.PICTURE.read_text("utf-8") == architecture.draw(), "run `make picture`"
