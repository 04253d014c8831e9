"""What was measured on a variant: the `evaluation` part of the manifest and of the evaluate stage's output."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, computed_field


class _Measured(BaseModel):
    """A newer publisher may add fields; an older reader leaves them out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Perplexities(_Measured):
    """Held-out perplexity of each form of the model on one corpus; `aligned` is None if it was not aligned."""

    base: float = Field(ge=1)
    pruned: float = Field(ge=1)
    aligned: float | None = Field(default=None, ge=1)
    quantized: float = Field(ge=1, description="of the weights that are published, whatever the scheme")


class WeightBytes(_Measured):
    """Bytes of the safetensors files; `quantized` is what is published, whatever the scheme."""

    base: int = Field(ge=0)
    pruned: int = Field(ge=0)
    aligned: int | None = Field(default=None, ge=0)
    quantized: int = Field(ge=0)


class CertificateBudget(_Measured):
    """The probe's LoRA training, as the recipe fixed it (recipe.evaluation.probe_budget)."""

    steps: int
    batch_size: int = Field(description="sequences per step")
    sequence_length: int = Field(description="tokens per sequence")
    rank: int
    learning_rate: float


class ProbeTraining(_Measured):
    """What training the probe on the published checkpoint took."""

    seconds: float
    peak_memory_bytes: int
    tokens: int


class Certificate(_Measured):
    """Proof that an adapter trained on the published checkpoint carries over to the base model.

    A LoRA was trained on the other documents of `corpus`, recovered to the base model's shapes and measured on
    held-out documents. `improves` and `gain` follow from the numbers, so they cannot disagree with them.
    """

    corpus: str
    budget: CertificateBudget
    base: float = Field(ge=1, description="perplexity of the base model on `corpus`")
    recovered: float = Field(ge=1, description="perplexity of the base model with the recovered adapter on `corpus`")
    training: ProbeTraining
    recovered_perplexity: dict[str, float] = Field(description="corpus → perplexity with the recovered adapter")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def improves(self) -> bool:
        return self.recovered < self.base

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gain(self) -> float:
        """Base perplexity over recovered perplexity: above 1 is better."""
        return self.base / self.recovered


class EvaluationReport(_Measured):
    """Perplexity by corpus, on documents that neither calibration nor alignment nor the probe has seen."""

    perplexity: dict[str, Perplexities]
    held_out_tokens: dict[str, int] = Field(description="corpus → tokens that were scored")
    bytes: WeightBytes
    certificate: Certificate | None = None
