"""The card's pictures: what was kept, the loss while aligning, perplexity from stage to stage, what the probe gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from publisher.manifest.evaluation import Certificate, EvaluationReport, PairedDifference, Perplexities
from publisher.manifest.reports import DocumentLosses
from publisher.manifest.verdict import STANDARD_ERRORS

FOLDER = "plots"


@dataclass(frozen=True)
class Measured:
    """What there is to draw. `kept`: unit → share that is left, by layer; losses in nats per token, by step, and where
    gradients were matched their cosine with the base model's. `document_losses` as evaluate writes them."""

    kept: Mapping[str, Sequence[float]]
    alignment_loss: Sequence[float] = ()
    gradient_cosine: Sequence[float] = ()
    evaluation: EvaluationReport | None = None
    probe_losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    document_losses: Mapping[str, DocumentLosses] = field(default_factory=dict)


def draw_plots(checkpoint: Path, measured: Measured) -> list[tuple[str, str]]:
    """Write `plots/*.png` into the checkpoint; returns title and path in the checkpoint of each."""
    figures = list(_figures(measured))
    if figures:
        (checkpoint / FOLDER).mkdir()
    for _, name, figure in figures:
        # No software version inside: equal numbers give equal files.
        figure.savefig(checkpoint / FOLDER / name, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return [(title, f"{FOLDER}/{name}") for title, name, _ in figures]


def _figures(measured: Measured) -> Iterator[tuple[str, str, Figure]]:
    if any(share < 1 for shares in measured.kept.values() for share in shares):
        yield "Kept share by layer", "kept.png", _kept(measured.kept)
    if measured.alignment_loss:
        yield "Loss while aligning", "alignment_loss.png", _alignment(measured)
    evaluation = measured.evaluation
    if evaluation and evaluation.perplexity:
        yield "Perplexity by stage", "perplexity.png", _perplexity(evaluation)
    if evaluation and evaluation.certificate:
        yield "What the probe gains", "probe.png", _probe(evaluation.certificate, measured.probe_losses)
        corpus = evaluation.certificate.corpus
        if evaluation.certificate.difference and corpus in measured.document_losses:
            figure = _documents(evaluation.certificate.difference, measured.document_losses[corpus])
            yield "What the probe gains, document by document", "documents.png", figure


def _kept(kept: Mapping[str, Sequence[float]]) -> Figure:
    """A group of bars per layer, one bar per unit."""
    figure, axes = _canvas("layer", "kept share")
    layers, width = len(next(iter(kept.values()))), 0.8 / len(kept)
    figure.set_size_inches(max(6, 0.14 * layers), 3.2)
    for index, (unit, shares) in enumerate(kept.items()):
        shift = (index - (len(kept) - 1) / 2) * width
        axes.bar([layer + shift for layer in range(layers)], shares, width, label=unit)
    axes.set_ylim(0, 1.05)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes)
    return figure


def _probe(certificate: Certificate, losses: Mapping[str, Sequence[float]]) -> Figure:
    """Left: what the LoRAs make of the base model; right, where their losses are known: how they were trained."""
    figure = Figure(figsize=(6 + 4 * bool(losses), 3.2), layout=ConstrainedLayoutEngine(wspace=0.08))
    panels = figure.subplots(1, 2, squeeze=False)[0] if losses else [figure.add_subplot()]
    _gain(panels[0], certificate)
    if losses:
        _probe_losses(panels[1], losses)
    return figure


def _documents(difference: PairedDifference, losses: DocumentLosses) -> Figure:
    """Each held-out document's gain, from the least to the greatest; their mean, and two standard errors about it."""
    figure, axes = _canvas("held-out document, by gain", "base's loss less recovered's, nats/token")
    both = zip(losses.nats["base"], losses.nats["recovered"], losses.tokens, strict=True)
    gains = sorted((base - recovered) / tokens for base, recovered, tokens in both)
    axes.plot(range(1, len(gains) + 1), gains, "o", markersize=4, label="document")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(difference.mean, color="C1", label="mean")
    if difference.standard_error is not None:
        reach = STANDARD_ERRORS * difference.standard_error
        label = f"mean ± {STANDARD_ERRORS} standard errors"
        axes.axhspan(difference.mean - reach, difference.mean + reach, color="C1", alpha=0.2, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes)
    return figure


def _gain(axes: Axes, certificate: Certificate) -> None:
    """Relative to the base model, so that corpora of unlike perplexity stand side by side."""
    base = certificate.base_perplexity or {certificate.corpus: certificate.base}
    forms = {
        "base": base,
        "recovered LoRA": certificate.recovered_perplexity,
        "direct LoRA": certificate.direct_perplexity or {},
    }
    shown = {form: values for form, values in forms.items() if values}
    width = 0.8 / len(shown)
    for index, (form, values) in enumerate(shown.items()):
        places = [place + (index - (len(shown) - 1) / 2) * width for place in range(len(base))]
        bars = axes.bar(places, [values[corpus] / base[corpus] for corpus in base], width, label=form)
        axes.bar_label(bars, [f"{values[corpus]:.4g}" for corpus in base], fontsize=8, padding=2)
    axes.set_xticks(range(len(base)), list(base))
    axes.margins(y=0.12)
    axes.set_ylabel("perplexity / base model's")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _legend_above(axes)


def _probe_losses(axes: Axes, losses: Mapping[str, Sequence[float]]) -> None:
    labels = {"probe_loss": "on the checkpoint", "direct_loss": "on the base model"}
    for series, values in losses.items():
        axes.plot(range(1, len(values) + 1), values, label=labels.get(series, series))
    axes.set_xlabel("step")
    axes.set_ylabel("loss of the LoRA's training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """Where it hides no bar and no curve."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)


def _alignment(measured: Measured) -> Figure:
    """The loss; right of it, where gradients were matched, how much they agree."""
    series = {"loss": measured.alignment_loss, "cosine of gradients": measured.gradient_cosine}
    drawn = {name: values for name, values in series.items() if values}
    figure = Figure(figsize=(2 + 4 * len(drawn), 3.2), layout=ConstrainedLayoutEngine(wspace=0.08))
    for axes, (name, values) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        axes.plot(range(1, len(values) + 1), values)
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _perplexity(evaluation: EvaluationReport) -> Figure:
    """One line per corpus."""
    figure, axes = _canvas("", "held-out perplexity")
    recovered = evaluation.certificate.recovered_perplexity if evaluation.certificate else {}
    for corpus, measured in evaluation.perplexity.items():
        stages = _stages(measured, recovered.get(corpus))
        axes.plot(list(stages), list(stages.values()), marker="o", label=corpus)
    _scale_perplexity(axes)
    _legend_above(axes)
    return figure


def _scale_perplexity(axes: Axes) -> None:
    """Logarithmic where values lie far apart: a pruned model is often a hundred times worse than its base."""
    low, high = axes.dataLim.intervaly
    if high > 3 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


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
