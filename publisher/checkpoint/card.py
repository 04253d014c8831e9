"""The model card, README.md: whether it helps, what it costs, how it was made, and code that can be pasted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from publisher.checkpoint.card_pruning import is_of_single_weights, method, pruning
from publisher.checkpoint.card_usage import usage
from publisher.checkpoint.evaluation import Certificate, EvaluationReport
from publisher.checkpoint.manifest import Manifest
from publisher.checkpoint.markdown import code, table

FILE_NAME = "README.md"
_NO_VERDICT = (
    "> **Not certified.** No probe adapter was trained on this checkpoint, so nothing here says whether an adapter "
    "trained on it helps the base model."
)


@dataclass(frozen=True)
class CardSubject:
    """What the card says beyond the manifest.

    `repo_id` and `endpoint`: where the checkpoint will be found; `license`: the base model's, as the Hub names it;
    `plots`: (title, path in the checkpoint).
    """

    manifest: Manifest
    repo_id: str
    endpoint: str | None = None
    license: str | None = None
    plots: Sequence[tuple[str, str]] = ()


def model_card(subject: CardSubject) -> str:
    """README.md as text: YAML metadata that the Hub understands, then Markdown."""
    manifest = subject.manifest
    sections = [
        f"---\n{_metadata(subject)}\n---",
        f"# {subject.repo_id}",
        verdict(manifest.evaluation),
        _introduction(manifest),
        _sizes(manifest),
        _perplexities(manifest.evaluation),
        _trainings(manifest),
        *(f"![{title}]({path})" for title, path in subject.plots),
        usage(manifest, subject.repo_id, subject.endpoint),
        _making(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def verdict(evaluation: EvaluationReport | None) -> str:
    """The first thing to read: does an adapter trained here help the base model?"""
    certificate = evaluation.certificate if evaluation else None
    if certificate is None:
        return _NO_VERDICT
    numbers = (
        f"held-out perplexity of the base model on `{certificate.corpus}`: {certificate.base:.4g} without it, "
        f"{certificate.recovered:.4g} with the recovered adapter ({_probe(certificate)})"
    )
    if certificate.improves:
        return f"> **Certified: an adapter trained on this checkpoint improves the base model.** Measured {numbers}."
    return (
        "> ⚠️ **Warning: the adapter that was trained on this checkpoint as a probe does not improve the base model.** "
        f"Measured {numbers}. Align for longer or prune less before training on it."
    )


def _probe(certificate: Certificate) -> str:
    budget = certificate.budget
    return (
        f"LoRA of rank {budget.rank}, {budget.steps} steps of {budget.batch_size} × {budget.sequence_length} tokens, "
        f"learning rate {budget.learning_rate:g}"
    )


def _metadata(subject: CardSubject) -> str:
    quantized = _scheme(subject.manifest) != "none"
    data: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": subject.license,
        "tags": ["loram", "pruned", _method(subject.manifest), "lora", *(["4-bit"] if quantized else [])],
    }
    if subject.manifest.base.commit:  # the Hub takes a repository's name only, and a folder has none
        relation = "quantized" if quantized else "finetune"
        data |= {"base_model": subject.manifest.base.repo_id, "base_model_relation": relation}
    return str(ModelCardData(**data, ignore_metadata_errors=False).to_yaml()).strip()


def _introduction(manifest: Manifest) -> str:
    base = manifest.base
    return (
        f"A pruned copy of `{base.repo_id}` at `{base.revision}`, {manifest.parameters.reduction:.2f}× smaller in "
        f"parameters and {manifest.bytes.reduction:.2f}× in bytes, to train adapters on "
        "([LoRAM](https://arxiv.org/abs/2502.13533)). It is not meant to be used as a model itself: what is trained "
        "on it is *recovered* and used on the base model."
        f"\n\n{pruning(manifest)}"
    )


def _sizes(manifest: Manifest) -> str:
    parameters, sizes = manifest.parameters, manifest.bytes
    counted, stored = "Parameters", "Bytes of weights"
    if is_of_single_weights(manifest):
        counted, stored = "Parameters that are kept", "Bytes of weights and masks"
    rows = [
        _size_row(counted, parameters.base, parameters.pruned, parameters.reduction),
        _size_row(stored, sizes.base, sizes.checkpoint, sizes.reduction),
    ]
    return table(["", "Base model", "This checkpoint", "Reduction"], rows)


def _size_row(name: str, base: int, checkpoint: int, reduction: float) -> list[str]:
    return [name, f"{base:,}", f"{checkpoint:,}", f"{reduction:.2f}×"]


def _perplexities(evaluation: EvaluationReport | None) -> str:
    if evaluation is None:
        return ""
    recovered = evaluation.certificate.recovered_perplexity if evaluation.certificate else {}
    rows = []
    for corpus, measured in evaluation.perplexity.items():
        values = [measured.base, measured.pruned, measured.aligned, measured.quantized, recovered.get(corpus)]
        rows.append([f"`{corpus}`", *("–" if value is None else f"{value:.4g}" for value in values)])
    heads = ["Corpus", "Base", "Pruned", "Aligned", "As published", "Base + recovered probe"]
    return "## Perplexity on held-out documents\n\n" + table(heads, rows)


def _trainings(manifest: Manifest) -> str:
    """What the two trainings took on the publisher's machine."""
    rows = []
    if manifest.alignment is not None:
        aligned = manifest.alignment
        rows.append(_training_row("Alignment", aligned.peak_memory_bytes, aligned.seconds, aligned.tokens))
    if manifest.evaluation is not None and manifest.evaluation.certificate is not None:
        probe = manifest.evaluation.certificate.training
        rows.append(_training_row("Probe (LoRA)", probe.peak_memory_bytes, probe.seconds, probe.tokens))
    return table(["Training", "Peak memory", "Seconds", "Tokens"], rows) if rows else ""


def _training_row(name: str, peak_memory_bytes: int, seconds: float, tokens: int) -> list[str]:
    return [name, f"{peak_memory_bytes / 2**20:,.0f} MiB", f"{seconds:,.0f}", f"{tokens:,}"]


def _making(manifest: Manifest) -> str:
    recipe = json.dumps(manifest.recipe, indent=2, ensure_ascii=False)
    seconds = [[stage, f"{value:,.1f}"] for stage, value in manifest.stage_seconds.items()]
    parts = [
        "## How it was made",
        f"Recipe `{manifest.recipe_digest}`:\n\n{code('json', recipe)}",
        table(["Stage", "Seconds"], seconds) if seconds else "",
        table(["Package", "Version"], [[name, version] for name, version in manifest.software.items()]),
        "`loram.json` holds all of this, and every file's sha256.",
    ]
    return "\n\n".join(part for part in parts if part)


def _method(manifest: Manifest) -> str:
    return f"{method(manifest)}-pruning".replace("_", "-")


def _scheme(manifest: Manifest) -> str:
    quantization = manifest.recipe.get("quantization") or {}
    return str(quantization.get("scheme", "none"))
