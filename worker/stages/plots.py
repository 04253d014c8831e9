"""The card's pictures: the loss while aligning, and perplexity from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from publisher.checkpoint.evaluation import EvaluationReport, Perplexities

FOLDER = "plots"


def draw_plots(
    checkpoint: Path, alignment: Mapping[str, Any] | None, evaluation: EvaluationReport | None
) -> list[tuple[str, str]]:
    """Write `plots/*.png` into the checkpoint; returns title and path in the checkpoint of each."""
    figures: list[tuple[str, str, Figure]] = []
    if alignment and alignment.get("loss"):
        figures.append(("Loss while aligning", "alignment_loss.png", _loss(alignment["loss"])))
    if evaluation and evaluation.perplexity:
        figures.append(("Perplexity by stage", "perplexity.png", _perplexity(evaluation)))
    if figures:
        (checkpoint / FOLDER).mkdir()
    for _, name, figure in figures:
        # No software version inside: equal numbers give equal files.
        figure.savefig(checkpoint / FOLDER / name, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return [(title, f"{FOLDER}/{name}") for title, name, _ in figures]


def _loss(losses: Sequence[float]) -> Figure:
    figure, axes = _canvas("step", "loss")
    axes.plot(range(1, len(losses) + 1), losses)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _perplexity(evaluation: EvaluationReport) -> Figure:
    """Logarithmic: a pruned model is often a hundred times worse than its base."""
    figure, axes = _canvas("", "held-out perplexity")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    recovered = evaluation.certificate.recovered_perplexity if evaluation.certificate else {}
    for corpus, measured in evaluation.perplexity.items():
        stages = _stages(measured, recovered.get(corpus))
        axes.plot(list(stages), list(stages.values()), marker="o", label=corpus)
    axes.legend()
    return figure


def _stages(measured: Perplexities, recovered: float | None) -> dict[str, float]:
    values = {
        "base": measured.base,
        "pruned": measured.pruned,
        "aligned": measured.aligned,
        "as published": measured.quantized,
        "base + probe": recovered,
    }
    return {stage: value for stage, value in values.items() if value is not None}


def _canvas(x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of its own, without pyplot: that keeps global state and wants a display."""
    figure = Figure(figsize=(6, 3.2))
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes
