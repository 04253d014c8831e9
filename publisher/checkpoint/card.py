"""The model card, README.md: whether it helps, what it costs, how it was made, and code that can be pasted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from publisher.checkpoint.evaluation import Certificate, EvaluationReport
from publisher.checkpoint.manifest import Manifest

FILE_NAME = "README.md"
_HUGGING_FACE = "https://huggingface.co"
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
        _usage(subject),
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
        "tags": ["loram", "pruned", "lora", *(["4-bit"] if quantized else [])],
    }
    if subject.manifest.base.commit:  # the Hub takes a repository's name only, and a folder has none
        relation = "quantized" if quantized else "finetune"
        data |= {"base_model": subject.manifest.base.repo_id, "base_model_relation": relation}
    return str(ModelCardData(**data, ignore_metadata_errors=False).to_yaml()).strip()


def _introduction(manifest: Manifest) -> str:
    base = manifest.base
    return (
        f"A pruned copy of `{base.repo_id}` at `{base.revision}`, {manifest.parameters.reduction:.2f}× smaller in "
        f"parameters and {manifest.bytes.reduction:.2f}× in bytes, to train adapters on with little memory "
        "([LoRAM](https://arxiv.org/abs/2502.13533)). It is not meant to be used as a model itself: an adapter trained "
        "on it is *recovered* and used on the base model."
    )


def _sizes(manifest: Manifest) -> str:
    parameters, sizes = manifest.parameters, manifest.bytes
    rows = [
        _size_row("Parameters", parameters.base, parameters.pruned, parameters.reduction),
        _size_row("Bytes of weights", sizes.base, sizes.checkpoint, sizes.reduction),
    ]
    return _table(["", "Base model", "This checkpoint", "Reduction"], rows)


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
    return "## Perplexity on held-out documents\n\n" + _table(heads, rows)


def _trainings(manifest: Manifest) -> str:
    """What the two trainings took on the publisher's machine."""
    rows = []
    if manifest.alignment is not None:
        aligned = manifest.alignment
        rows.append(_training_row("Alignment", aligned.peak_memory_bytes, aligned.seconds, aligned.tokens))
    if manifest.evaluation is not None and manifest.evaluation.certificate is not None:
        probe = manifest.evaluation.certificate.training
        rows.append(_training_row("Probe (LoRA)", probe.peak_memory_bytes, probe.seconds, probe.tokens))
    return _table(["Training", "Peak memory", "Seconds", "Tokens"], rows) if rows else ""


def _training_row(name: str, peak_memory_bytes: int, seconds: float, tokens: int) -> list[str]:
    return [name, f"{peak_memory_bytes / 2**20:,.0f} MiB", f"{seconds:,.0f}", f"{tokens:,}"]


def _usage(subject: CardSubject) -> str:
    parts = [
        "## Use",
        "Needs the Python package `loram-publisher`, from the repository of the service that made this checkpoint.",
        _shell(subject),
        "Train any LoRA on it with the tools that you already use:\n\n" + _training_code(subject.repo_id),
        "Recover the adapter, and use it on the base model:\n\n" + _recovery_code(subject),
    ]
    return "\n\n".join(part for part in parts if part)


def _shell(subject: CardSubject) -> str:
    if not subject.endpoint or subject.endpoint == _HUGGING_FACE:
        return ""
    return _code("bash", f"export HF_ENDPOINT={subject.endpoint}")


def _training_code(repo_id: str) -> str:
    return _code(
        "python",
        "import publisher.checkpoint  # lets transformers load layers of different widths",
        "from peft import LoraConfig, get_peft_model",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({repo_id!r})",
        f'model = AutoModelForCausalLM.from_pretrained({repo_id!r}, dtype="auto")',
        'model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))',
        "# … train with transformers, TRL, or a loop of your own …",
        'model.save_pretrained("adapter")',
    )


def _recovery_code(subject: CardSubject) -> str:
    base = subject.manifest.base
    pinned = f", revision={base.commit!r}" if base.commit else ""
    return _code(
        "python",
        "from pathlib import Path",
        "from peft import PeftModel",
        "from publisher.checkpoint.folder import open_checkpoint",
        "from publisher.checkpoint.recovery import recover_adapter",
        "from transformers import AutoModelForCausalLM",
        "",
        f"checkpoint = open_checkpoint({subject.repo_id!r}, weights=False)",
        'recover_adapter(Path("adapter"), checkpoint, Path("recovered"))',
        f'base = AutoModelForCausalLM.from_pretrained({base.repo_id!r}{pinned}, dtype="auto")',
        'model = PeftModel.from_pretrained(base, "recovered")',
    )


def _making(manifest: Manifest) -> str:
    recipe = json.dumps(manifest.recipe, indent=2, ensure_ascii=False)
    seconds = [[stage, f"{value:,.1f}"] for stage, value in manifest.stage_seconds.items()]
    parts = [
        "## How it was made",
        f"Recipe `{manifest.recipe_digest}`:\n\n{_code('json', recipe)}",
        _table(["Stage", "Seconds"], seconds) if seconds else "",
        _table(["Package", "Version"], [[name, version] for name, version in manifest.software.items()]),
        "`loram.json` holds all of this, and every file's sha256.",
    ]
    return "\n\n".join(part for part in parts if part)


def _scheme(manifest: Manifest) -> str:
    quantization = manifest.recipe.get("quantization") or {}
    return str(quantization.get("scheme", "none"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = "|".join(["---", *["---:"] * (len(heads) - 1)])
    return "\n".join([_row(heads), f"|{numbers}|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
