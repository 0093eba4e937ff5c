"""The report of a demonstration."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.demo.proof import answers_by_second, calibration_bins, first_answers, regret_curves
from pipelines.demo.result import DemoResult
from pipelines.demo.traffic import Acknowledged
from pipelines.replay.replay import Replay
from pipelines.reports import figures
from pipelines.reports.pages import render


def demo_report(result: DemoResult, journal: list[Acknowledged], decisions: pa.Table, replayed: Replay | None) -> str:
    """Return the page of a demonstration.

    Args:
        result: what it found.
        journal: the application's.
        decisions: the loop's rows of the lake.
        replayed: the champion on its holdout, when there is one.
    """
    drawn = {
        "learning": figures.learning(
            [_generation_row(entry) for entry in result.generations], uniform=result.uniform, optimum=result.optimum
        ),
        "versions": figures.served_versions(answers_by_second(journal), first_answers(journal)),
        "regret": figures.regret(regret_curves(journal, uniform=result.uniform, optimum=result.optimum)),
        "calibration": figures.calibration(calibration_bins(decisions)),
        "weights": "" if replayed is None else figures.weights(replayed.diagnostics.histogram),
    }
    return render("demo.html", result=result, summary=result.summary(), figures=drawn, replayed=replayed)


def _generation_row(entry: Any) -> dict[str, Any]:
    names = ("version", "value", "low", "high", "true_value", "greedy_accuracy")
    return {name: getattr(entry, name) for name in names}
