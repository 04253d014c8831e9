from __future__ import annotations

import math

import pytest
import torch

from publisher.manifest.verdict import Verdict
from worker.evaluation.paired import paired_difference
from worker.evaluation.perplexity import DocumentLosses


def test_mean_and_standard_error_are_those_computed_by_hand() -> None:
    """d = 3, 1, 8 nats over t = 10, 10, 20 tokens: R = 12 / 40 = 0.3; d - R t = 0, -2, 2; squares sum to 8.

    Variance 3 / 2 * 8 / 40^2 = 0.0075.
    """
    found = paired_difference(
        DocumentLosses([30.0, 21.0, 68.0], [10, 10, 20]), DocumentLosses([27.0, 20.0, 60.0], [10, 10, 20])
    )
    assert found.documents == 3
    assert found.mean == pytest.approx(0.3)
    assert found.standard_error == pytest.approx(math.sqrt(0.0075))
    assert found.verdict is Verdict.INCONCLUSIVE


def test_of_documents_of_equal_length_it_is_the_ordinary_standard_error_of_a_mean() -> None:
    gains = torch.tensor([0.3, -0.1, 0.2, 0.25, 0.05, 0.4, 0.1, 0.15], dtype=torch.float64)
    base = DocumentLosses([300.0] * 8, [100] * 8)
    found = paired_difference(base, DocumentLosses((300 - 100 * gains).tolist(), [100] * 8))
    assert found.mean == pytest.approx(float(gains.mean()))
    assert found.standard_error == pytest.approx(float(gains.std() / math.sqrt(8)))
    assert found.verdict is Verdict.PASSED


def test_standard_error_is_what_drawing_documents_again_and_again_shows() -> None:
    """The bootstrap over documents of unlike lengths, whose gain differs from document to document."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, 800, (60,), generator=generator)
    gains = tokens * (0.02 + 0.05 * torch.randn(60, generator=generator, dtype=torch.float64))
    base = 3.5 * tokens.double() + 40 * torch.randn(60, generator=generator, dtype=torch.float64)
    found = paired_difference(
        DocumentLosses(base.tolist(), tokens.tolist()), DocumentLosses((base - gains).tolist(), tokens.tolist())
    )
    drawn = torch.randint(0, 60, (20_000, 60), generator=generator)
    means = gains[drawn].sum(1) / tokens[drawn].sum(1)
    assert found.standard_error == pytest.approx(float(means.std()), rel=0.05)


def test_mean_is_the_logarithm_of_the_ratio_of_perplexities() -> None:
    base, other = DocumentLosses([50.0, 900.0], [20, 300]), DocumentLosses([51.0, 860.0], [20, 300])
    assert paired_difference(base, other).mean == pytest.approx(math.log(base.perplexity / other.perplexity))


def test_a_single_document_has_no_standard_error() -> None:
    found = paired_difference(DocumentLosses([50.0], [20]), DocumentLosses([30.0], [20]))
    assert (found.mean, found.standard_error, found.verdict) == (1.0, None, Verdict.INCONCLUSIVE)
    assert str(found) == "falls by 1 nats per token (1 held-out document, so no standard error)"


def test_a_loss_that_rises_is_told_as_such() -> None:
    base, other = DocumentLosses([10.0] * 8, [10] * 8), DocumentLosses([11.0, 12.0] * 4, [10] * 8)
    found = paired_difference(base, other)
    assert str(found) == "rises by 0.15 nats per token (standard error 0.019, 8 held-out documents)"
    assert (found.verdict, found.is_significant) == (Verdict.FAILED, True)
