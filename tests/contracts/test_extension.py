"""CONTRIBUTING's recipes, followed: a new rule or estimator is the files that they list, and no others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from decision.options import ORACLES, RULES

ROOT = Path(__file__).resolve().parents[2]

RULE = '''"""A rule for this test alone: one half to the best action, one half to all alike."""

from __future__ import annotations

from decision.batch import Floats, Ints
from decision.exploration.epsilon_greedy import epsilon_greedy
from decision.exploration.rule import Exploration, Rule


def toy(scores: Floats, offsets: Ints) -> Floats:
    """Return [m] probabilities ``1 / 2K``, plus one half for the best."""
    return epsilon_greedy(scores, offsets, epsilon=0.5)


def _pmf(scores: Floats, offsets: Ints, given: Exploration) -> Floats:
    return toy(scores, offsets)


RULE = Rule(_pmf)
'''
TEST = """import numpy as np

from decision.exploration.toy import toy


def test_toy_by_hand() -> None:
    assert toy(np.array([0.0, 1.0]), np.array([0, 2])).tolist() == [0.25, 0.75]
"""
USE = """
import numpy as np
from decision.artifact import Manifest, pack, unpack
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from decision.policy import OraclePolicy
from pipelines.settings import parse_loop
from pipelines.training.train import exploration_of
from tests.strategies import interactions_of

loop = parse_loop('[policy]\\nexploration = "toy"\\n', "news", {})
oracle = new_oracle(OracleSettings(kind=loop.policy.oracle))
data = interactions_of(np.random.default_rng(0))
oracle.fit(data)
policy = OraclePolicy(oracle, exploration_of(loop, len(data)))
manifest = Manifest(loop="news", oracle="logistic", exploration=policy.exploration, seed=0, code_version="test",
                    created_at="2026-01-01T00:00:00+00:00")
again, _ = unpack(pack(policy, manifest))
pmf = again.pmf(data.batch)
best = np.maximum.reduceat(pmf, data.batch.offsets[:-1])
assert np.array_equal(pmf, policy.pmf(data.batch)) and (best > 0.5).all()
print("toy served")
"""


COPIED = ("decision", "simulators", "pipelines", "serving", "tests", "infra", "pyproject.toml")

ESTIMATOR = '''"""An estimator for this test alone: DR whose weights count up to 5."""

from __future__ import annotations

import numpy as np

from decision.batch import Floats
from decision.ope.estimators.registry import Mean
from decision.ope.rows import Rows


def toy_terms(rows: Rows, weights: Floats) -> Floats:
    """Return [n] terms ``sum_a pi(a) q(a) + min(w, 5) (r - q)``."""
    return rows.direct + np.minimum(weights, 5.0) * rows.residual


ESTIMATOR = Mean(toy_terms, needs=("model",))
'''
ESTIMATOR_TEST = """from decision.ope.estimators.toy import toy_terms
from tests.decision.ope.evaluation.test_family import ROWS


def test_toy_by_hand() -> None:
    assert toy_terms(ROWS, ROWS.weight).tolist() == (ROWS.direct + ROWS.weight * ROWS.residual).tolist()
"""
EVALUATE = """
import numpy as np
from decision.ope.arrays import evaluate

rng = np.random.default_rng(0)
policy = np.tile([0.2, 0.8], (400, 1))
action = rng.integers(2, size=400)
found = evaluate(action=action, propensity=np.full(400, 0.5), reward=rng.random(400), policy=policy)
assert found.estimates["toy"].value == found.estimates["dr"].value and found.bootstrap["toy"] == found.bootstrap["dr"]
print("toy estimated")
"""


def tracked(root: Path) -> dict[str, bytes]:
    """Return the contents of the sources below `root`."""
    files = [file for name in COPIED for file in (root / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): file.read_bytes() for file in files if "__pycache__" not in file.parts}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the sources."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


def add_line(file: Path, after: str, line: str) -> None:
    """Write `line` below the one that begins with `after`."""
    text = file.read_text()
    there = next(old for old in text.splitlines(keepends=True) if old.startswith(after))
    file.write_text(text.replace(there, there + line))


def add_rule(root: Path) -> None:
    """Do what CONTRIBUTING says of an exploration rule."""
    (root / "decision/exploration/toy.py").write_text(RULE)
    add_line(root / "decision/options.py", '    "uniform": ', '    "toy": "decision.exploration.toy",\n')
    (root / "tests/decision/exploration/test_toy.py").write_text(TEST)
    add_line(root / "infra/docs/policies.md", "| `regcb`", "| `toy` | half greedy, half uniform | none |\n")


def add_estimator(root: Path) -> None:
    """Do what CONTRIBUTING says of an estimator."""
    (root / "decision/ope/estimators/toy.py").write_text(ESTIMATOR)
    registry = root / "decision/ope/estimators/registry.py"
    add_line(registry, '    "offcem": ', '    "toy": "decision.ope.estimators.toy",\n')
    (root / "tests/decision/ope/estimators/test_toy.py").write_text(ESTIMATOR_TEST)
    add_line(root / "infra/docs/evaluation.md", "| `dm` |", "| `toy` | DR, weights cut at 5 | never |\n")


def changed_by(follow: Callable[[Path], None], root: Path) -> list[str]:
    """Return which files change where a recipe is followed."""
    before = tracked(root)
    follow(root)
    return sorted(name for name, text in tracked(root).items() if text != before.get(name))


def python(root: Path, *arguments: str) -> str:
    """Return what Python says in the copy."""
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_rule_is_the_files_that_contributing_lists_and_works(house: Path) -> None:
    changed = changed_by(add_rule, house)
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("## A new exploration rule")[2].partition("\n## ")[0]
    listed = re.findall(r"^\d+\. `([^`]+)`", recipe, flags=re.MULTILINE)
    assert sorted(listed) == changed

    wanted = ["tests/decision/exploration/test_toy.py", "tests/contracts", "-k", "toy and not extension"]
    tried = python(house, "-m", "pytest", "-v", *wanted)
    assert int(re.findall(r"(\d+) passed", tried)[0]) > 8
    assert python(house, "-c", USE) == "toy served\n"


def test_a_new_estimator_is_its_file_its_line_its_test_and_its_row(house: Path) -> None:
    changed = changed_by(add_estimator, house)
    assert changed == [
        "decision/ope/estimators/registry.py",
        "decision/ope/estimators/toy.py",
        "infra/docs/evaluation.md",
        "tests/decision/ope/estimators/test_toy.py",
    ]
    row = next(line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| estimator"))
    for named in ("decision/ope/estimators/", "decision/ope/estimators/registry.py"):
        assert f"`{named}`" in row

    wanted = ["tests/decision/ope/estimators/test_toy.py", "tests/contracts/test_estimators.py"]
    tried = python(house, "-m", "pytest", "-v", *wanted, "-k", "toy or without")
    assert int(re.findall(r"(\d+) passed", tried)[0]) > 13
    assert python(house, "-c", EVALUATE) == "toy estimated\n"


@pytest.mark.parametrize("name", [*RULES, *ORACLES])
def test_every_rule_and_oracle_has_its_line_in_the_docs(name: str) -> None:
    text = (ROOT / "infra" / "docs" / "policies.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows), f"policies.md has no row for {name}"
