"""Nothing loads a pickle: not the code, whatever calls it, and no artifact of any oracle is one."""

from __future__ import annotations

import ast
import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import Manifest, pack
from decision.exploration.rule import Exploration
from decision.options import ORACLES
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.oracles.session import SessionOracle, SessionSettings
from decision.policy import OraclePolicy
from decision.protocols import Oracle
from tests.strategies import interactions_of

ROOT = Path(__file__).resolve().parents[1]
CODE = ("decision", "simulators", "pipelines", "serving", "infra")
UNPICKLERS = frozenset(
    ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle")
)
LOADERS = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
"""Functions that load a pickle unless a keyword forbids it; the keyword, and what it has to be."""
ALWAYS = frozenset(
    ("pandas.read_pickle", "numpy.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load")
)
"""Functions that run what they load, whatever they are told; `mlflow` has them in its `pyfunc` and flavours."""


def faults(text: str) -> Iterator[str]:
    """Yield what in a file's code could load a pickle."""
    tree, names = ast.parse(text), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or alias.name.partition(".")[0]: alias.name
                if alias.asname
                else alias.name.partition(".")[0]
                for alias in node.names
            }
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (f"line {node.lineno}: imports {name}" for name in found if name.partition(".")[0] in UNPICKLERS)
        yield from (f"line {node.lineno}: imports {name}" for name in found if name.startswith("mlflow.pyfunc"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func, names)
            given = {word.arg: word.value for word in node.keywords}
            if called in LOADERS:
                keyword, wanted = LOADERS[called]
                value = given.get(keyword)
                if not isinstance(value, ast.Constant) or value.value is not wanted:
                    yield f"line {node.lineno}: {called} without {keyword}={wanted}"
            elif called in ALWAYS or (called.startswith("mlflow") and called.endswith(".load_model")):
                yield f"line {node.lineno}: {called}"
            allows = given.get("allow_pickle")
            if allows is not None and not (isinstance(allows, ast.Constant) and allows.value is False):
                yield f"line {node.lineno}: allow_pickle={ast.unparse(allows)}"
            if called in ("importlib.import_module", "__import__") and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and str(name.value).partition(".")[0] in UNPICKLERS:
                    yield f"line {node.lineno}: imports {name.value}"


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full name of what is called, as far as the imports say it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def test_no_code_can_load_a_pickle() -> None:
    files = [file for folder in CODE for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 200
    assert [f"{file.relative_to(ROOT)}: {fault}" for file in files for fault in faults(file.read_text())] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import joblib as j",
        "from pickle import loads",
        "def f():\n    from cloudpickle import loads",
        "import dill.source",
        "import torch\ntorch.load(f)",
        "import torch as t\nt.load(f, weights_only=False)",
        "from torch import load\nload(f, weights_only=weights)",
        "import numpy as np\nnp.load(f)",
        "import numpy\nnumpy.load(f, allow_pickle=True)",
        "from numpy import load as read\nread(f)",
        "import numpy as np\nnp.savez(f, allow_pickle=True, a=a)",
        "import pandas as pd\npd.read_pickle(f)",
        "import yaml\nyaml.load(f)",
        "import importlib\nimportlib.import_module('pickle')",
        "from importlib import import_module\nimport_module('joblib')",
        "import mlflow\nmlflow.sklearn.load_model(uri)",
        "import mlflow.pyfunc",
    ],
)
def test_code_that_could_is_found(text: str) -> None:
    assert list(faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import json\njson.load(f)",
    ],
)
def test_code_that_could_not_is_left_alone(text: str) -> None:
    assert list(faults(text)) == []


def is_pickle(data: bytes) -> bool:
    """Return whether the bytes are a pickle from their first to their last."""
    try:
        operations = list(pickletools.genops(data))
    except Exception:
        return False
    return operations[-1][0].name == "STOP"


def json_text(data: bytes) -> bool:
    return data[:1] == b"{" and isinstance(msgspec.json.decode(data), dict)


def plain_archive(data: bytes) -> bool:
    """Return whether it is an archive of arrays of numbers."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return all(
            archive.read(name).startswith(b"\x93NUMPY") and b"|O" not in archive.read(name)[:128]
            for name in archive.namelist()
        )


FORMATS: dict[str, Callable[[bytes], bool]] = {
    "json": json_text,
    "npz": plain_archive,
    "vw": lambda data: data[4:].startswith(b"9.") and b" --" in data[:200],
    "txt": lambda data: data.startswith(b"tree\nversion="),
    "f64": lambda data: len(data) % 8 == 0 and bool(np.isfinite(np.frombuffer(data, "<f8")).all()),
    "f32": lambda data: len(data) % 4 == 0 and bool(np.isfinite(np.frombuffer(data, "<f4")).all()),
}
"""What a file has to look like, by its ending; there are no others."""


def trained(kind: str) -> Oracle:
    if kind == "session":
        shapes = {
            "extractor.weight_ih_l0": (6, 3), "extractor.weight_hh_l0": (6, 2), "extractor.bias_ih_l0": (6,),
            "extractor.bias_hh_l0": (6,), "head.0.weight": (4, 5), "head.0.bias": (4,), "head.2.weight": (2, 4),
            "head.2.bias": (2,),
        }  # fmt: skip
        rng = np.random.default_rng(1)
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        return SessionOracle(SessionSettings(actions=["a", "b"], levels=(0.0, 1.0)), arrays)
    name, _, bag = kind.partition(" x ")
    oracle = new_oracle(OracleSettings(kind=name, bag=int(bag or 1)))
    oracle.fit(interactions_of(np.random.default_rng(0), 60))
    return oracle


@pytest.mark.parametrize("kind", [*ORACLES, "linear x 3", "session"])
def test_every_artifact_is_of_a_known_format_and_none_is_a_pickle(kind: str) -> None:
    named = kind.partition(" x ")[0]
    manifest = Manifest(
        loop="news",
        oracle="ensemble" if " x " in kind else named,
        exploration=Exploration(),
        seed=1,
        code_version="test",
        created_at="2026-01-01T00:00:00Z",
    )
    files = pack(OraclePolicy(trained(kind), manifest.exploration), manifest)
    assert len(files) > 1
    for name, data in files.items():
        assert FORMATS[name.rpartition(".")[2]](data), name
        assert not is_pickle(data), name


def test_a_pickle_is_known_as_one() -> None:
    assert is_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.")
    assert is_pickle(b"cos\nsystem\n(S'true'\ntR.")
    assert not is_pickle(b"{}")
