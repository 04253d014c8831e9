"""The demo's last word: one table of perplexity, bytes and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from rich.table import Table

from publisher.manifest.verdict import Verdict, verdict_of

MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """Perplexities are on the novel's held-out documents; bytes are of weight files; peaks are of processes."""

    base: float
    pruned: float
    aligned: float
    quantized: float
    probe: float
    recovered: float
    bytes: dict[str, int]
    peaks: dict[str, int]
    #: tokens per second of align, of the certificate's probe and of the user's training
    speeds: dict[str, float]
    device: str
    gain_retained: float | None
    #: the certificate's verdict, and on the novel its `documents`, `mean` and `standard_error`
    verdict: Verdict
    difference: dict[str, Any]

    @classmethod
    def of(
        cls, manifest: dict[str, Any], publication: dict[str, Any], training: dict[str, Any], user: dict[str, Any]
    ) -> Self:
        """From the published manifest and what the downstream user measured."""
        evaluation = manifest["evaluation"]
        perplexity, certificate = evaluation["perplexity"]["novel"], evaluation["certificate"]
        return cls(
            base=user["base"],
            pruned=perplexity["pruned"],
            aligned=perplexity["aligned"],
            quantized=perplexity["quantized"],
            probe=certificate["recovered"],
            recovered=user["recovered"],
            bytes=evaluation["bytes"],
            peaks={
                "alignment": manifest["alignment"]["peak_memory_bytes"],
                "probe": certificate["training"]["peak_memory_bytes"],
                "user": training["peak_memory_bytes"],
            },
            speeds={
                "align": manifest["alignment"]["tokens"] / manifest["alignment"]["seconds"],
                "probe": certificate["training"]["tokens"] / certificate["training"]["seconds"],
                "LoRA": training["tokens"] / training["seconds"],
            },
            device=training["device"],
            gain_retained=certificate.get("gain_retained"),
            verdict=verdict_of(certificate),
            difference=certificate["differences"]["novel"],
        )


def results_table(measured: Measured) -> Table:
    """Rows in the order in which the models come to be."""
    table = Table(title="Held-out perplexity on the novel (lower is better)", title_justify="left")
    table.add_column("model")
    for heading in ("perplexity", "weights", "peak memory of training"):
        table.add_column(heading, justify="right")
    sizes, peaks = measured.bytes, measured.peaks
    table.add_row("base", f"{measured.base:.2f}", _mib(sizes["base"]), "")
    table.add_row("pruned", f"{measured.pruned:.2f}", _mib(sizes["pruned"]), "")
    table.add_row("aligned", f"{measured.aligned:.2f}", _mib(sizes["pruned"]), f"{_mib(peaks['alignment'])} (align)")
    table.add_row("4-bit, as published", f"{measured.quantized:.2f}", _mib(sizes["quantized"]), "")
    table.add_row(
        f"base + recovered probe (certificate: {measured.verdict.words})",
        f"{measured.probe:.2f}",
        "",
        f"{_mib(peaks['probe'])} (LoRA)",
    )
    table.add_row(
        "[bold]base + your recovered adapter[/]",
        f"[bold]{measured.recovered:.2f}[/]",
        "",
        f"{_mib(peaks['user'])} (LoRA)",
    )
    return table


def certificate_line(measured: Measured) -> str:
    """What the certificate rests on."""
    found = measured.difference
    return (
        f"Certificate {measured.verdict.words}: document by document, the recovered probe lowers the base model's loss "
        f"by {found['mean']:.3f} ± {found['standard_error']:.3f} nats per token (mean and standard error over "
        f"{found['documents']} held-out documents)."
    )


def speed_line(measured: Measured) -> str:
    """How fast and where; and what of a direct LoRA's gain the recovered one kept."""
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in measured.speeds.items())
    line = f"Tokens per second on {measured.device}: {speeds}."
    if measured.gain_retained is not None:
        line += f" The recovered probe keeps {measured.gain_retained:.0%} of the gain of a LoRA on the base model."
    return line


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
