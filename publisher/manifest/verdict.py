"""What a certificate's numbers come to: free of torch, so that API, dashboard, card and workers judge alike."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

#: Below it a standard error over documents says little itself: its own is about 1 / sqrt(2 (n - 1)), a quarter at 8.
LEAST_DOCUMENTS = 8
#: The mean difference has to be more than so many above zero: about 95 % of a normal distribution lie within two.
STANDARD_ERRORS = 2

#: Nats per token that a gain has to come to besides, a thousandth of perplexity. Differences that are alike in every
#: document are significant however small they are: two steps of training at a rate of 1e-5 gained 5.6e-4 ± 0.3e-4. That
#: is less than what computing in bf16 does: SmolLM2-135M's loss on a novel moved by 1.7e-3 ± 1.6e-3 from fp32 to bf16.
LEAST_GAIN = 1e-3

#: What a recipe asks of the certificate before its checkpoint is published; see recipe.Evaluation.require_certificate.
Requirement = bool | Literal["unless_failed"]


#: the way out of an inconclusive certificate
MORE_DOCUMENTS = (
    "Register the corpus with a larger held_out_fraction, or as more and shorter documents; or publish without a "
    'certificate that passes: require_certificate "unless_failed" or false, and the card opens with what it is.'
)


class Verdict(StrEnum):
    """Of whether the recovered probe lowers the base model's loss on held-out documents."""

    PASSED = "passed"  #: by more than two standard errors and LEAST_GAIN, over at least eight documents
    NOT_SIGNIFICANT = "not_significant"  #: it does, but by no more than two standard errors
    NEGLIGIBLE = "negligible"  #: by more than two standard errors, but by less than LEAST_GAIN
    INCONCLUSIVE = "inconclusive"  #: fewer than eight documents: nothing can be said
    FAILED = "failed"  #: it does not
    NOT_STATED = "not_stated"  #: older publishers did not measure document by document

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


def judge(documents: int, mean: float, standard_error: float | None) -> Verdict:
    """Of the `mean` of paired per-document differences: loss of the base model minus that with the recovered probe."""
    if documents < LEAST_DOCUMENTS or standard_error is None:
        return Verdict.INCONCLUSIVE
    if mean <= 0:
        return Verdict.FAILED
    if mean <= STANDARD_ERRORS * standard_error:
        return Verdict.NOT_SIGNIFICANT
    return Verdict.PASSED if mean >= LEAST_GAIN else Verdict.NEGLIGIBLE


def withholds(requirement: Requirement, verdict: Verdict) -> bool:
    """Whether a checkpoint of such a verdict is not published by a recipe of such a requirement."""
    if requirement == "unless_failed":
        return verdict is Verdict.FAILED
    return requirement and verdict is not Verdict.PASSED
