"""Versions of the manifest's format: what came with which, and how an older one becomes this one.

`format_version` is major.minor. A newer minor only adds keys, which readers keep without knowing them. A newer major
changes or removes some: an older one is upgraded on reading by one function per major, a newer one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from publisher.errors import RequestFault

#: few digits: Python refuses to read numbers of thousands
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")


class FormatVersion(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: object) -> FormatVersion | None:
        """None for what is no version, as `next`."""
        found = _VERSION.fullmatch(str(text))
        return cls(int(found[1]), int(found[2])) if found else None


#: Minor version of this major one → keys that each manifest from it on has, as `part.key`; `[]` stands for the parts of
#: a list or of an object whose names are data. Whoever adds a field to a type of this package adds a line here, of the
#: next minor version, and nothing to a version that was published. (Some of 2.2's were written by publishers of 2.1
#: already, and `text` by those of 2.2: the version was not raised then.)
CAME_WITH: Mapping[FormatVersion, tuple[str, ...]] = {
    FormatVersion(2, 0): (
        "format_version",
        "base.repo_id",
        "base.revision",
        "base.endpoint",
        "base.files[].size",
        "base.files[].sha256",
        "recipe",
        "recipe_digest",
        "parameters.base",
        "parameters.pruned",
        "bytes.base",
        "bytes.checkpoint",
        "base_widths[].query_heads",
        "base_widths[].kv_heads",
        "base_widths[].neurons",
        "base_widths[].experts",
        "widths[].query_heads",
        "widths[].kv_heads",
        "widths[].neurons",
        "widths[].experts",
        "alignment.steps",
        "alignment.tokens",
        "alignment.seconds",
        "alignment.peak_memory_bytes",
        "alignment.first_loss",
        "alignment.last_loss",
        "alignment.tokens_per_second",
        "alignment.objective",
        "evaluation.perplexity[].base",
        "evaluation.perplexity[].pruned",
        "evaluation.perplexity[].aligned",
        "evaluation.perplexity[].quantized",
        "evaluation.held_out_tokens",
        "evaluation.bytes.base",
        "evaluation.bytes.pruned",
        "evaluation.bytes.aligned",
        "evaluation.bytes.quantized",
        "evaluation.certificate.corpus",
        "evaluation.certificate.budget.steps",
        "evaluation.certificate.budget.batch_size",
        "evaluation.certificate.budget.sequence_length",
        "evaluation.certificate.budget.rank",
        "evaluation.certificate.budget.learning_rate",
        "evaluation.certificate.base",
        "evaluation.certificate.recovered",
        "evaluation.certificate.training.seconds",
        "evaluation.certificate.training.peak_memory_bytes",
        "evaluation.certificate.training.tokens",
        "evaluation.certificate.recovered_perplexity",
        "evaluation.certificate.improves",
        "evaluation.certificate.gain",
        "software",
        "stage_seconds",
        "created_at",
        "files[].size",
        "files[].sha256",
    ),
    # the certificate's upper bound, gradient fidelity and tasks
    FormatVersion(2, 1): (
        "evaluation.certificate.base_perplexity",
        "evaluation.certificate.direct",
        "evaluation.certificate.direct_perplexity",
        "evaluation.certificate.direct_training.seconds",
        "evaluation.certificate.direct_training.peak_memory_bytes",
        "evaluation.certificate.direct_training.tokens",
        "evaluation.certificate.gain_retained",
        "evaluation.certificate.gain_retained_by_corpus",
        "evaluation.gradient_fidelity.mean",
        "evaluation.gradient_fidelity.whole",
        "evaluation.gradient_fidelity.layers",
        "evaluation.tasks",
    ),
    # the certificate's differences, document by document, its verdict and strength; how alignment went
    FormatVersion(2, 2): (
        "alignment.step",
        "alignment.skipped_steps",
        "alignment.data_wait_share",
        "alignment.optimizer_state_bytes",
        "alignment.quantization_aware",
        "alignment.bf16_modules",
        "alignment.gradient_matching",
        "alignment.reconstruction.tokens",
        "alignment.reconstruction.seconds",
        "alignment.reconstruction.peak_memory_bytes",
        "alignment.reconstruction.error_before",
        "alignment.reconstruction.error_after",
        "alignment.reconstruction.quantization_aware",
        "alignment.checks[].step",
        "alignment.checks[].loss",
        "alignment.optimizer",
        "evaluation.certificate.tried_strengths[].strength",
        "evaluation.certificate.tried_strengths[].loss",
        "evaluation.certificate.tried_strengths[].error",
        "evaluation.certificate.strength",
        "evaluation.certificate.differences[].documents",
        "evaluation.certificate.differences[].mean",
        "evaluation.certificate.differences[].standard_error",
        "evaluation.certificate.differences[].verdict",
        "evaluation.certificate.verdict",
    ),
    # the manifest's own digest; what the model's family puts around text
    FormatVersion(2, 3): ("text.before", "text.close", "digest"),
}

CURRENT = max(CAME_WITH)
#: the first whose manifests have a digest of their own
SEALED_SINCE = FormatVersion(2, 3)


def upgraded(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A manifest's JSON as this major version has it; `where` names it for people.

    Raises RequestFault for what states no version, and for a newer major one.
    """
    version = stated_version(content, where)
    while version.major < CURRENT.major:
        content = _UPGRADES[version.major](content)
        version = stated_version(content, where)
    return content


def stated_version(content: Mapping[str, Any], where: str) -> FormatVersion:
    """Raises RequestFault for none, and for one that cannot be read."""
    if "format_version" not in content:
        raise RequestFault(f"{where} has no format_version; it is not a manifest.")
    version = FormatVersion.parse(content["format_version"])
    if version is None or version.major > CURRENT.major or version.major < min(_UPGRADES):
        raise RequestFault(
            f"{where} has format_version {content['format_version']}; this version reads up to {CURRENT.major}.x.",
            way_out="Upgrade loram-publisher.",
        )
    return version


def _from_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """1.0 had one width for all layers of the base model, and at first counted parameters `base` and `checkpoint`.

    Its masks do not say the model's structure, so adapters cannot be recovered by them (checkpoint.masks refuses);
    what it is, how it was made and whether its files are whole can be told.
    """
    widths, parameters = content.get("widths"), content.get("parameters")
    changed: dict[str, Any] = {"format_version": "2.0"}
    if isinstance(widths, list) and isinstance(content.get("base_widths"), Mapping):
        changed["base_widths"] = [content["base_widths"]] * len(widths)
    if isinstance(parameters, Mapping) and "checkpoint" in parameters:
        rest = {name: value for name, value in parameters.items() if name != "checkpoint"}
        changed["parameters"] = rest | {"pruned": parameters["checkpoint"]}
    return {**content, **changed}


#: major version → from it to the next
_UPGRADES: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {1: _from_1}
