"""The model card on what was measured: the verdict at its top, and the tables behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from publisher.manifest.evaluation import Certificate, EvaluationReport, PairedDifference, ProbeTraining
from publisher.manifest.manifest import Manifest
from publisher.manifest.verdict import LEAST_DOCUMENTS, LEAST_GAIN, STANDARD_ERRORS, Verdict, withholds
from worker.card.markdown import table
from worker.card.pruning import calibration_corpora, recipe_of

_NO_VERDICT = (
    "> **Not certified.** No probe adapter was trained on this checkpoint, so nothing here says whether an adapter "
    "trained on it helps the base model."
)
_STDERR = "_stderr"


_PASSED = "> **Certified: an adapter trained on this checkpoint improves the base model.**"
#: what the card opens with, and what may be done about it
_NOT_PASSED = {
    Verdict.NOT_SIGNIFICANT: (
        "> ⚠️ **Not certified: whether an adapter trained on this checkpoint improves the base model is within the "
        "error of measuring it.**",
        "Align for longer, prune less, or measure by a longer probe and more documents.",
    ),
    Verdict.NEGLIGIBLE: (
        "> ⚠️ **Not certified: the adapter that was trained on this checkpoint as a probe hardly changes the base "
        "model.**",
        "Align for longer, prune less, or measure by a longer probe.",
    ),
    Verdict.INCONCLUSIVE: (
        "> ⚠️ **Inconclusive: too few held-out documents to tell whether an adapter trained on this checkpoint improves "
        "the base model.**",
        "Try it on text of your own.",
    ),
    Verdict.FAILED: (
        "> ⚠️ **Warning: the adapter that was trained on this checkpoint as a probe does not improve the base model.**",
        "Align for longer or prune less before training on it.",
    ),
    Verdict.NOT_STATED: (
        "> **No verdict: the publisher did not measure document by document how sure it is that an adapter trained on "
        "this checkpoint improves the base model.**",
        "",
    ),
}


def verdict(manifest: Manifest) -> str:
    """The first thing to read: does an adapter trained here help the base model?"""
    certificate = manifest.evaluation.certificate if manifest.evaluation else None
    if certificate is None:
        return _NO_VERDICT
    numbers = (
        f"Measured held-out perplexity of the base model on `{certificate.corpus}`: {certificate.base:.4g} without it, "
        f"{certificate.recovered:.4g} with the recovered adapter ({_probe(certificate)}).{_by_document(certificate)}"
    )
    if certificate.verdict is Verdict.PASSED:
        return f"{_PASSED} {numbers}{_retained(certificate)}"
    opening, advice = _NOT_PASSED[certificate.verdict]
    return " ".join(part for part in (opening, numbers, _consequence(manifest, certificate.verdict), advice) if part)


def _by_document(certificate: Certificate) -> str:
    if certificate.difference is None:
        return ""
    return f" Document by document, {certificate.reason}."


def measurements(manifest: Manifest) -> Iterator[str]:
    """Sections and tables; nothing where nothing was measured."""
    evaluation = manifest.evaluation
    if evaluation is not None:
        yield _perplexities(evaluation)
        if evaluation.certificate is not None:
            yield _certificate(evaluation.certificate)
            yield _also_read(evaluation.certificate.corpus, manifest)
    yield _trainings(manifest)
    if evaluation is not None:
        yield _fidelity(evaluation)
        yield _tasks(evaluation)


def _retained(certificate: Certificate) -> str:
    if certificate.direct is None or certificate.gain_retained is None:
        return ""
    return (
        f" The same LoRA trained on the base model itself reaches {certificate.direct:.4g}: "
        f"{certificate.gain_retained:.0%} of its gain carries over."
    )


def _consequence(manifest: Manifest, verdict: Verdict) -> str:
    asked = recipe_of(manifest).evaluation
    requirement = True if asked is None else asked.require_certificate
    if withholds(requirement, verdict):
        return "So it was not published: its recipe requires the certificate, and this is a copy of what was built."
    said = json.dumps(requirement)
    return f"Its recipe lets it be published all the same (`evaluation.require_certificate: {said}`)."


def _probe(certificate: Certificate) -> str:
    budget = certificate.budget
    return (
        f"LoRA of rank {budget.rank}, {budget.steps} steps of {budget.batch_size} × {budget.sequence_length} tokens, "
        f"learning rate {budget.learning_rate:g}"
    )


def _perplexities(evaluation: EvaluationReport) -> str:
    recovered = evaluation.certificate.recovered_perplexity if evaluation.certificate else {}
    rows = []
    for corpus, measured in evaluation.perplexity.items():
        values = [measured.base, measured.pruned, measured.aligned, measured.quantized, recovered.get(corpus)]
        rows.append([f"`{corpus}`", *map(_number, values)])
    heads = ["Corpus", "Base", "Pruned", "Aligned", "As published", "Base + recovered probe"]
    return "## Perplexity on held-out documents\n\n" + table(heads, rows)


def _certificate(certificate: Certificate) -> str:
    """Base model without and with the two LoRAs, corpus by corpus."""
    direct, retained = certificate.direct_perplexity or {}, certificate.gain_retained_by_corpus or {}
    base = certificate.base_perplexity or {certificate.corpus: certificate.base}
    rows = [
        [
            f"`{corpus}`{' (trained on)' if corpus == certificate.corpus else ''}",
            *map(_number, (value, certificate.recovered_perplexity.get(corpus), direct.get(corpus))),
            _share(retained.get(corpus)),
            *_difference(certificate.differences.get(corpus)),
        ]
        for corpus, value in base.items()
    ]
    heads = ["Corpus", "Base", "+ LoRA recovered from here", "+ LoRA trained on the base", "Gain retained"]
    heads += ["Gain of the recovered, nats per token", "Documents", "Verdict"]
    said = (
        f"Perplexity of the base model with a LoRA that was trained on this checkpoint and recovered, and with the "
        f"same LoRA trained on the base model directly ({_probe(certificate)}). Gain retained: the share of the direct "
        "LoRA's improvement that the recovered one brings; – where the direct one was not trained, as for want of "
        "memory, or improves nothing. Gain in nats per token: the mean difference of the base model's loss without "
        "and with the recovered LoRA, document by document, weighted by tokens, ± its standard error over documents "
        f"(ratio estimator). It passes with more than {STANDARD_ERRORS} standard errors and at least {LEAST_GAIN:g}, "
        f"over at least {LEAST_DOCUMENTS} documents."
    )
    return "\n\n".join(part for part in ("## Certificate", said, table(heads, rows), _strength(certificate)) if part)


def _difference(found: PairedDifference | None) -> list[str]:
    """Mean and standard error, documents, verdict."""
    if found is None:
        return ["–", "–", Verdict.NOT_STATED.words]
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2g}"
    return [f"{found.mean:.3g}{error}", f"{found.documents:,}", found.verdict.words]


def _strength(certificate: Certificate) -> str:
    """By what the recovered LoRA was multiplied, and what else was tried."""
    if not certificate.tried_strengths:
        return ""
    heads = ["Strength", *(f"{each.strength:g}" for each in certificate.tried_strengths)]
    losses = ["Loss, nats per token", *(f"{each.loss:.4f}" for each in certificate.tried_strengths)]
    errors = [
        "Standard error of its difference from the least",
        *(f"{each.error:.4f}" for each in certificate.tried_strengths),
    ]
    return (
        f"The recovered LoRA's update was multiplied by {certificate.strength:g}: of what was tried, the least whose "
        "loss, on training text that the LoRA had not seen, is within one standard error of the best. "
        "`publisher recover` does the same unless it is told otherwise (`--strength`).\n\n"
        + table(heads, [losses, errors])
    )


def _also_read(corpus: str, manifest: Manifest) -> str:
    alignment = recipe_of(manifest).alignment
    aligned = {corpus.name for corpus in alignment.corpora} if alignment else set()
    readers = {"calibration": calibration_corpora(manifest), "alignment": aligned}
    having_read = [name for name, corpora in readers.items() if corpus in corpora]
    if not having_read:
        return ""
    said = " and ".join(having_read)
    return (
        f"Training documents of `{corpus}` are among the text of this checkpoint's {said}, so the probe may have "
        f"trained on some that {said} had read; what is measured on, neither has seen. Adapters for text of other "
        "kinds may gain less."
    )


def _trainings(manifest: Manifest) -> str:
    """What the trainings took on the publisher's machine."""
    rows = []
    if manifest.alignment is not None:
        aligned, reconstruction = manifest.alignment, manifest.alignment.reconstruction
        if reconstruction is not None:
            rows.append(
                _training_row(
                    "Reconstruction (least squares)",
                    reconstruction.peak_memory_bytes,
                    reconstruction.seconds,
                    reconstruction.tokens,
                )
            )
        if aligned.steps:
            name = "Alignment against 4 bits" if aligned.quantization_aware else "Alignment"
            name += ", gradients matched" if aligned.gradient_matching else ""
            rows.append(_training_row(name, aligned.peak_memory_bytes, aligned.seconds, aligned.tokens))
    if manifest.evaluation is not None and manifest.evaluation.certificate is not None:
        certificate = manifest.evaluation.certificate
        rows.append(_lora_row("LoRA on this checkpoint (probe)", certificate.training))
        if certificate.direct_training is not None:
            rows.append(_lora_row("The same LoRA on the base model", certificate.direct_training))
    return table(["Training", "Peak memory", "Seconds", "Tokens"], rows) if rows else ""


def _lora_row(name: str, training: ProbeTraining) -> list[str]:
    return _training_row(name, training.peak_memory_bytes, training.seconds, training.tokens)


def _training_row(name: str, peak_memory_bytes: int, seconds: float, tokens: int) -> list[str]:
    return [name, f"{peak_memory_bytes / 2**20:,.0f} MiB", f"{seconds:,.0f}", f"{tokens:,}"]


def _fidelity(evaluation: EvaluationReport) -> str:
    found = evaluation.gradient_fidelity
    if found is None:
        return ""
    return (
        f"Gradient fidelity: {found.mean:.3f} on average over matrices, {found.whole:.3f} of all as one. It is the "
        "cosine between the gradients of a fresh LoRA on this checkpoint and on the base model, where both have "
        "weights: 1 means that training starts in the base model's own direction."
    )


def _tasks(evaluation: EvaluationReport) -> str:
    rows = []
    for task, forms in evaluation.tasks.items():
        metrics = dict.fromkeys(name for values in forms.values() for name in values if _STDERR not in name)
        for metric in metrics:
            shown = [_measured(forms.get(form, {}), metric) for form in ("base", "published", "recovered")]
            rows.append([f"`{task}`", metric, *shown])
    if not rows:
        return ""
    heads = ["Task", "Metric", "Base", "As published", "Base + recovered probe"]
    return "## lm-evaluation-harness\n\n" + table(heads, rows)


def _measured(values: dict[str, float], metric: str) -> str:
    """With its standard error, which the harness calls `acc_stderr`, of `name,filter` `name_stderr,filter`."""
    name, comma, used = metric.partition(",")
    error = values.get(f"{name}{_STDERR}{comma}{used}")
    return _number(values.get(metric)) + (f" ± {error:.2g}" if error is not None else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
