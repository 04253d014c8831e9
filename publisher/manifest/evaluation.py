"""What was measured on a variant: the `evaluation` part of the manifest and of the evaluate stage's output."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, computed_field

from publisher.manifest.part import Part
from publisher.manifest.verdict import LEAST_DOCUMENTS, LEAST_GAIN, STANDARD_ERRORS, Verdict, judge


class Perplexities(Part):
    """Held-out perplexity of each form of the model on one corpus; `aligned` is None if it was not aligned."""

    base: float = Field(ge=1)
    pruned: float = Field(ge=1)
    aligned: float | None = Field(default=None, ge=1)
    quantized: float = Field(ge=1, description="of the weights that are published, whatever the scheme")


class WeightBytes(Part):
    """Bytes of the safetensors files; `quantized` is what is published, whatever the scheme."""

    base: int = Field(ge=0)
    pruned: int = Field(ge=0)
    aligned: int | None = Field(default=None, ge=0)
    quantized: int = Field(ge=0)


class CertificateBudget(Part):
    """The probe's LoRA training, as the recipe fixed it (recipe.evaluation.probe_budget)."""

    steps: int
    batch_size: int = Field(description="sequences per step")
    sequence_length: int = Field(description="tokens per sequence")
    rank: int
    learning_rate: float


class ProbeTraining(Part):
    """What training a LoRA of the certificate's budget took, on the published checkpoint or on the base model."""

    seconds: float
    peak_memory_bytes: int
    tokens: int


class TriedStrength(Part):
    """The base model with the recovered adapter at one strength, on training text that the probe did not train on."""

    strength: float = Field(gt=0, description="what the adapter's update was multiplied by")
    loss: float = Field(description="nats per token")
    error: float = Field(
        default=0.0, ge=0, description="standard error over sequences of how far it is from the least loss"
    )


class PairedDifference(Part):
    """By how much the recovered probe lowers the base model's loss, document by document (worker.evaluation.paired)."""

    documents: int = Field(ge=1, description="held-out documents, each text once, that were measured")
    mean: float = Field(description="of the differences, weighted by tokens, nats per token: ln(base / recovered)")
    standard_error: float | None = Field(
        default=None, ge=0, description="of `mean` over documents, nats per token; None of a single document"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        return judge(self.documents, self.mean, self.standard_error)

    @property
    def is_significant(self) -> bool:
        """Whether the mean is more than two standard errors from zero, to whichever side."""
        return self.standard_error is not None and abs(self.mean) > STANDARD_ERRORS * self.standard_error

    def __str__(self) -> str:
        """`falls by 0.0412 nats per token (standard error 0.0080, 11 held-out documents)`, of the loss; or `rises`."""
        documents = f"{self.documents} held-out document{'s' if self.documents > 1 else ''}"
        error = f"{documents}, so no standard error"
        if self.standard_error is not None:
            error = f"standard error {self.standard_error:.2g}, {documents}"
        return f"{'rises' if self.mean < 0 else 'falls'} by {abs(self.mean):.3g} nats per token ({error})"


class Certificate(Part):
    """Proof that an adapter trained on the published checkpoint carries over to the base model.

    A LoRA was trained on the other documents of `corpus`, recovered to the base model's shapes and measured on
    held-out documents. What is recovered from this checkpoint is multiplied by `strength` (checkpoint.recovery): the
    mildest of `tried_strengths` that is about as good as the best, on text that neither the LoRA was trained nor the
    certificate is measured on. `direct`: the same LoRA, trained on the base model itself, is what recovery could reach
    at best; None if the recipe left it out or the base model did not fit for training. `strength`, `verdict`,
    `improves`, `gain` and what is retained follow from the numbers, so they cannot disagree with them.
    """

    corpus: str
    budget: CertificateBudget
    base: float = Field(ge=1, description="perplexity of the base model on `corpus`")
    recovered: float = Field(ge=1, description="perplexity of the base model with the recovered adapter on `corpus`")
    tried_strengths: list[TriedStrength] = Field(default=[], description="before measuring; none: 1 was taken")
    training: ProbeTraining
    recovered_perplexity: dict[str, float] = Field(description="corpus → perplexity with the recovered adapter")
    base_perplexity: dict[str, float] = Field(default={}, description="corpus → perplexity of the base model")
    differences: dict[str, PairedDifference] = Field(
        default={}, description="corpus → what the recovered adapter gains, document by document; older: not stated"
    )
    direct: float | None = Field(
        default=None, ge=1, description="perplexity on `corpus` of the base model with a LoRA trained on it directly"
    )
    direct_perplexity: dict[str, float] | None = Field(default=None, description="corpus → the same")
    direct_training: ProbeTraining | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def strength(self) -> float:
        """What the recovered adapter's update was multiplied by."""
        return chosen_strength(self.tried_strengths)

    @property
    def difference(self) -> PairedDifference | None:
        """On `corpus`, by which it is judged; None if the publisher did not measure document by document."""
        return self.differences.get(self.corpus)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """On `corpus`."""
        return Verdict.NOT_STATED if self.difference is None else self.difference.verdict

    @computed_field  # type: ignore[prop-decorator]
    @property
    def improves(self) -> bool:
        """Whether it passed: a lower perplexity alone is no proof."""
        return self.verdict is Verdict.PASSED

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, as one clause."""
        if self.difference is None:
            return f"perplexity on {self.corpus} was not measured document by document"
        judged = _JUDGED[self.verdict]
        if self.verdict is Verdict.FAILED and self.difference.is_significant:
            judged = ", significantly"
        return f"with the recovered adapter the base model's loss on {self.corpus} {self.difference}{judged}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gain(self) -> float:
        """Base perplexity over recovered perplexity: above 1 is better."""
        return self.base / self.recovered

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gain_retained(self) -> float | None:
        """Share of the direct LoRA's gain that the recovered one brings on `corpus`; see `retained_gain`."""
        return None if self.direct is None else retained_gain(self.base, self.recovered, self.direct)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gain_retained_by_corpus(self) -> dict[str, float | None] | None:
        """The same on every corpus; None without a direct LoRA."""
        if self.direct_perplexity is None:
            return None
        return {
            corpus: retained_gain(self.base_perplexity[corpus], self.recovered_perplexity[corpus], direct)
            for corpus, direct in self.direct_perplexity.items()
        }


_JUDGED = {
    Verdict.PASSED: f", more than {STANDARD_ERRORS} standard errors",
    Verdict.NOT_SIGNIFICANT: f", which is not more than {STANDARD_ERRORS} standard errors",
    Verdict.NEGLIGIBLE: f", which is significant but less than {LEAST_GAIN:g}",
    Verdict.INCONCLUSIVE: f"; at least {LEAST_DOCUMENTS} documents are needed",
    Verdict.FAILED: "; it does not improve",
}


def chosen_strength(tried: Sequence[TriedStrength]) -> float:
    """The mildest whose loss is within one standard error of the least; 1 if nothing was tried.

    Source: Breiman et al., Classification and Regression Trees (1984), the one-standard-error rule. Loss is flat
    around its least, and what is chosen there by a few sequences alone tends to be too much for other text.
    """
    if not tried:
        return 1.0
    least = min(each.loss for each in tried)
    return min(each.strength for each in tried if each.loss - least <= each.error)


def retained_gain(base: float, recovered: float, direct: float) -> float | None:
    """(base - recovered) / (base - direct): 1 is as good as training directly, negative is worse than no adapter.

    None where the direct LoRA improves nothing, so that there is no gain to retain.
    """
    return (base - recovered) / (base - direct) if direct < base else None


class GradientFidelity(Part):
    """Cosine between the LoRA gradients of the published checkpoint and of the base model (worker.evaluation.fidelity).

    1: training a LoRA on the checkpoint starts in the direction that it would take on the base model.
    """

    mean: float = Field(description="over all matrices, each counted once")
    whole: float = Field(description="of all matrices' gradients as one vector")
    layers: list[float | None] = Field(description="mean over each layer's matrices; None: no LoRA there")


class EvaluationReport(Part):
    """Perplexity by corpus, on documents that neither calibration nor alignment nor the probe has seen."""

    perplexity: dict[str, Perplexities]
    held_out_tokens: dict[str, int] = Field(description="corpus → tokens that were scored")
    bytes: WeightBytes
    certificate: Certificate | None = None
    gradient_fidelity: GradientFidelity | None = None
    tasks: dict[str, dict[str, dict[str, float]]] = Field(
        default={}, description="lm-evaluation-harness: task → base, published, recovered → metric → value"
    )
