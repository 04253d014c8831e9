"""The demo's last word: one table of perplexity, bytes and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel
from rich.table import Table

from publisher.errors import InfrastructureFault
from publisher.manifest.evaluation import Certificate, EvaluationReport, Perplexities
from publisher.manifest.manifest import AlignmentRecord, Manifest

MIB = 2**20


#: the corpus whose held-out documents everything is measured on
CORPUS = "novel"


class UserTraining(BaseModel):
    """What the downstream user's training took, as publisher.client.demo.downstream says it."""

    tokens: int
    seconds: float
    peak_memory_bytes: int
    device: str


class UserPerplexity(BaseModel):
    """Of the base model alone, and with the adapter that the downstream user trained and recovered."""

    base: float
    recovered: float


@dataclass(frozen=True)
class Measured:
    """What the table is made of. Perplexities are on the novel's held-out documents."""

    evaluation: EvaluationReport
    alignment: AlignmentRecord
    certificate: Certificate
    training: UserTraining
    user: UserPerplexity

    @classmethod
    def of(cls, manifest: Manifest, training: UserTraining, user: UserPerplexity) -> Self:
        """From the published manifest and what the downstream user measured.

        Raises InfrastructureFault if the manifest lacks what the demo's recipe asks for.
        """
        evaluation, alignment = manifest.evaluation, manifest.alignment
        if evaluation is None or alignment is None or evaluation.certificate is None:
            raise InfrastructureFault("the published manifest lacks alignment, evaluation or certificate.")
        return cls(evaluation, alignment, evaluation.certificate, training, user)

    @property
    def perplexity(self) -> Perplexities:
        return self.evaluation.perplexity[CORPUS]

    @property
    def speeds(self) -> dict[str, float]:
        """Tokens per second of align, of the certificate's probe and of the user's training."""
        probe = self.certificate.training
        return {
            "align": self.alignment.tokens / self.alignment.seconds,
            "probe": probe.tokens / probe.seconds,
            "LoRA": self.training.tokens / self.training.seconds,
        }


def results_table(measured: Measured) -> Table:
    """Rows in the order in which the models come to be."""
    table = Table(title="Held-out perplexity on the novel (lower is better)", title_justify="left")
    table.add_column("model")
    for heading in ("perplexity", "weights", "peak memory of training"):
        table.add_column(heading, justify="right")
    perplexity, sizes, certificate = measured.perplexity, measured.evaluation.bytes, measured.certificate
    aligned = "" if perplexity.aligned is None else f"{perplexity.aligned:.2f}"
    align_peak = f"{_mib(measured.alignment.peak_memory_bytes)} (align)"
    table.add_row("base", f"{measured.user.base:.2f}", _mib(sizes.base), "")
    table.add_row("pruned", f"{perplexity.pruned:.2f}", _mib(sizes.pruned), "")
    table.add_row("aligned", aligned, _mib(sizes.pruned), align_peak)
    table.add_row("4-bit, as published", f"{perplexity.quantized:.2f}", _mib(sizes.quantized), "")
    table.add_row(
        f"base + recovered probe (certificate: {certificate.verdict.words})",
        f"{certificate.recovered:.2f}",
        "",
        f"{_mib(certificate.training.peak_memory_bytes)} (LoRA)",
    )
    table.add_row(
        "[bold]base + your recovered adapter[/]",
        f"[bold]{measured.user.recovered:.2f}[/]",
        "",
        f"{_mib(measured.training.peak_memory_bytes)} (LoRA)",
    )
    return table


def certificate_line(measured: Measured) -> str:
    """What the certificate rests on."""
    found = measured.certificate.differences[CORPUS]
    error = "" if found.standard_error is None else f" ± {found.standard_error:.3f}"
    return (
        f"Certificate {measured.certificate.verdict.words}: document by document, the recovered probe lowers the base "
        f"model's loss by {found.mean:.3f}{error} nats per token (mean and standard error over "
        f"{found.documents} held-out documents)."
    )


def speed_line(measured: Measured) -> str:
    """How fast and where; and what of a direct LoRA's gain the recovered one kept."""
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in measured.speeds.items())
    line = f"Tokens per second on {measured.training.device}: {speeds}."
    retained = measured.certificate.gain_retained
    if retained is not None:
        line += f" The recovered probe keeps {retained:.0%} of the gain of a LoRA on the base model."
    return line


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
