"""CONTRIBUTING's recipe, followed: a new exploration rule is the files that it lists, and no others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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


def tracked(root: Path) -> dict[str, bytes]:
    """Return the contents of the sources below `root`."""
    files = [
        file for name in ("decision", "infra/docs", "tests") for file in (root / name).rglob("*") if file.is_file()
    ]
    return {str(file.relative_to(root)): file.read_bytes() for file in files if "__pycache__" not in file.parts}


def follow(root: Path) -> None:
    """Do what CONTRIBUTING says."""
    (root / "decision" / "exploration" / "toy.py").write_text(RULE)
    options = root / "decision" / "options.py"
    line = '    "uniform": "decision.exploration.uniform",\n'
    assert line in options.read_text()
    options.write_text(options.read_text().replace(line, line + '    "toy": "decision.exploration.toy",\n'))
    (root / "tests" / "decision" / "exploration" / "test_toy.py").write_text(TEST)
    policies = root / "infra" / "docs" / "policies.md"
    row = next(line for line in policies.read_text().splitlines(keepends=True) if line.startswith("| `regcb`"))
    policies.write_text(policies.read_text().replace(row, row + "| `toy` | half greedy, half uniform | none |\n"))


def test_a_new_rule_is_the_files_that_contributing_lists_and_works(tmp_path: Path) -> None:
    for name in ("decision", "simulators", "pipelines", "serving", "tests", "infra", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    before = tracked(tmp_path)
    follow(tmp_path)
    after = tracked(tmp_path)
    changed = sorted(name for name in after if after[name] != before.get(name))
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("## A new exploration rule")[2].partition("\n## ")[0]
    listed = re.findall(r"^\d+\. `([^`]+)`", recipe, flags=re.MULTILINE)
    assert sorted(listed) == changed

    wanted = ["tests/decision/exploration/test_toy.py", "tests/contracts", "-k", "toy and not extension"]
    tried = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", *wanted], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout
    assert int(re.findall(r"(\d+) passed", tried.stdout)[0]) > 8
    used = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert used.stdout == "toy served\n", used.stderr


@pytest.mark.parametrize("name", [*RULES, *ORACLES])
def test_every_rule_and_oracle_has_its_line_in_the_docs(name: str) -> None:
    text = (ROOT / "infra" / "docs" / "policies.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows), f"policies.md has no row for {name}"
