"""The model card, README.md: whether it helps, what it costs, how it was made, and code that can be pasted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCardData

from publisher.checkpoint.signature import FILE_NAME as SIGNATURE
from publisher.manifest.manifest import Manifest
from publisher.manifest.slsa_provenance import FILE_NAME as PROVENANCE
from worker.card.bom import FILE_NAME as BILL
from worker.card.evaluation import measurements, verdict
from worker.card.markdown import code, table
from worker.card.pruning import is_of_single_weights, method, pruning
from worker.card.usage import HUGGING_FACE, usage

FILE_NAME = "README.md"


@dataclass(frozen=True)
class CardSubject:
    """What the card says beyond the manifest.

    `repo_id` and `endpoint`: where the checkpoint will be found; `license`, `license_name`, `license_link`: the base
    model's, as the Hub's metadata has them; `legal_texts`: files in the checkpoint; `plots`: (title, path in the
    checkpoint); `signed_by`: the key that it is signed with, by its id (publisher.configuration.signing_key).
    """

    manifest: Manifest
    repo_id: str
    endpoint: str | None = None
    license: str | list[str] | None = None
    license_name: str | None = None
    license_link: str | None = None
    legal_texts: Sequence[str] = ()
    plots: Sequence[tuple[str, str]] = ()
    signed_by: str | None = None


def model_card(subject: CardSubject) -> str:
    """README.md as text: YAML metadata that the Hub understands, then Markdown."""
    manifest = subject.manifest
    sections = [
        f"---\n{_metadata(subject)}\n---",
        f"# {subject.repo_id}",
        verdict(manifest),
        _introduction(manifest),
        _sizes(manifest),
        _in_bf16(manifest),
        *measurements(manifest),
        *(f"![{title}]({path})" for title, path in subject.plots),
        usage(manifest, subject.repo_id, subject.endpoint),
        _licence(subject),
        _making(manifest),
        _verification(subject),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metadata(subject: CardSubject) -> str:
    quantized = subject.manifest.is_quantized
    data: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": subject.license,
        "license_name": subject.license_name,
        "license_link": subject.license_link,
        "tags": ["loram", "pruned", _method(subject.manifest), "lora", *(["4-bit"] if quantized else [])],
    }
    if subject.manifest.base.is_public:  # the Hub takes a repository's name only
        relation = "quantized" if quantized else "finetune"
        data |= {"base_model": subject.manifest.base.repo_id, "base_model_relation": relation}
    return str(ModelCardData(**data, ignore_metadata_errors=False).to_yaml()).strip()


def _introduction(manifest: Manifest) -> str:
    base = manifest.base
    local = f"a model that its publisher has in a folder named `{base.repo_id}`,"
    named = f"`{base.repo_id}`" if base.is_public else local
    pinned = f"at `{base.revision}`" if base.commit else f"whose files have the digest `{base.revision}`"
    return (
        f"A pruned copy of {named} {pinned}, {manifest.parameters.reduction:.2f}× smaller in "
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


def _in_bf16(manifest: Manifest) -> str:
    names = manifest.alignment.bf16_modules if manifest.alignment else []
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names)
    return f"Of the linear layers {len(names)} are in bf16, which 4 bits would have hurt most: {listed}."


def _size_row(name: str, base: int, checkpoint: int, reduction: float) -> list[str]:
    return [name, f"{base:,}", f"{checkpoint:,}", f"{reduction:.2f}×"]


def _licence(subject: CardSubject) -> str:
    """That of the base model goes for what is made of it; nothing where nothing is known of it."""
    names = subject.license if isinstance(subject.license, list) else [subject.license] if subject.license else []
    named = ", ".join(f"`{name}`" for name in [*names, *([subject.license_name] if subject.license_name else [])])
    sentences = [
        f"The base model's licence goes for this checkpoint, too: {named}." if named else "",
        f"Its text: <{subject.license_link}>." if (subject.license_link or "").startswith("http") else "",
        f"What came with the base model: {', '.join(f'[{name}]({quote(name)})' for name in subject.legal_texts)}."
        if subject.legal_texts
        else "",
    ]
    said = " ".join(sentence for sentence in sentences if sentence)
    return f"## Licence\n\n{said}" if said else ""


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


def _verification(subject: CardSubject) -> str:
    """The files that are for programs, and how to ask whether all of them are as they were published."""
    endpoint = f" --endpoint {subject.endpoint}" if subject.endpoint not in (None, HUGGING_FACE) else ""
    whole = f"publisher verify {subject.repo_id}{endpoint}"
    rows = [
        [f"[`{PROVENANCE}`]({PROVENANCE})", "how it was made: in-toto statement, SLSA provenance"],
        [f"[`{BILL}`]({BILL})", "what it is and is made of: CycloneDX bill of materials"],
        *([[f"[`{SIGNATURE}`]({SIGNATURE})", "who published it: OpenSSF model signing"]] if subject.signed_by else []),
    ]
    parts = [
        "## Whether it is whole",
        f"`{whole}` compares every file with `loram.json`, and what they say with each other.",
        table(["File", "Says"], rows),
    ]
    if subject.signed_by:
        parts.append(
            f"It is signed with the key whose public half, as PEM, has the sha256 `{subject.signed_by}`. With that "
            f"key, from its publisher and not from here: `{whole} --signature --public-key FILE`. This card is signed, "
            "too: edited, it is a changed file."
        )
    return "\n\n".join(parts)


def _method(manifest: Manifest) -> str:
    return f"{method(manifest)}-pruning".replace("_", "-")
