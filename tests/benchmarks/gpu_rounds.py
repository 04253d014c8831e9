"""Trainings that stand beside each other, in rounds that alternate them: a row of each as it ends, then the medians."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import Trained, train_lora
from tests.benchmarks.gpu_report import Predictions, write_results

Found = dict[str, list[Trained]]
#: a row of the table, of the medians of some runs
Line = Callable[[Case, list[Trained]], str]


def alternated(
    asked: Sequence[Case],
    options: argparse.Namespace,
    predicted: Predictions,
    *,
    steps: int,
    heading: str,
    line: Line,
    before: Iterable[Mapping[str, Any]] = (),
) -> Found:
    """The runs of each case by its name. `options`: of gpu_report's parser, and `rounds`; `before`: rows that are in
    the file of results already."""
    found: Found = {case.name: [] for case in asked}
    rows = list(before)
    print(heading, flush=True)
    for _ in range(options.rounds):
        for case in asked:
            trained = train_lora(case.written(options.work, options.device, steps))
            found[case.name].append(trained)
            guess = predicted.peak(case.benchmark, case.name)
            rows.append({"model": case.name, "predicted": guess} | asdict(trained))
            print(line(case, [trained]), flush=True)
            write_results(options.out, case.benchmark, options.device, rows, tiny=options.tiny)
    print(f"medians:\n{heading}")
    print(*(line(case, found[case.name]) for case in asked), sep="\n", flush=True)
    return found


def refused(runs: Iterable[Trained]) -> str | None:
    """Why there are no figures, if one of them has none."""
    return next((run.refused for run in runs if run.refused), None)
