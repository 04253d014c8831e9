from __future__ import annotations

from typing import Any

import pytest

from publisher.manifest.evaluation import Certificate
from publisher.manifest.verdict import Requirement, Verdict, judge, withholds
from tests.manifest.contents import certificate


@pytest.mark.parametrize(
    ("documents", "mean", "error", "verdict"),
    [
        (8, 0.021, 0.010, Verdict.PASSED),
        (8, 0.020, 0.010, Verdict.NOT_SIGNIFICANT),
        (500, 1e-5, 1e-4, Verdict.NOT_SIGNIFICANT),
        (500, 1.7e-5, 1e-6, Verdict.NEGLIGIBLE),
        (8, 0.0, 0.0, Verdict.FAILED),
        (8, -0.001, 0.5, Verdict.FAILED),
        (8, -0.5, 0.001, Verdict.FAILED),
        (7, 0.5, 0.001, Verdict.INCONCLUSIVE),
        (7, -0.5, 0.001, Verdict.INCONCLUSIVE),
        (1, 0.5, None, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_takes_eight_documents_and_more_than_two_standard_errors(
    documents: int, mean: float, error: float | None, verdict: Verdict
) -> None:
    assert judge(documents, mean, error) is verdict


@pytest.mark.parametrize(
    ("requirement", "published"),
    [
        (True, {Verdict.PASSED}),
        ("unless_failed", set(Verdict) - {Verdict.FAILED}),
        (False, set(Verdict)),
    ],
)
def test_what_a_recipe_requires_decides_what_is_published(requirement: Requirement, published: set[Verdict]) -> None:
    assert {verdict for verdict in Verdict if not withholds(requirement, verdict)} == published


def test_verdict_in_a_manifest_follows_from_its_numbers_not_from_what_it_calls_itself() -> None:
    found: dict[str, Any] = {"documents": 12, "mean": -0.1, "standard_error": 0.01, "verdict": "passed"}

    def verdict(**differences: object) -> Verdict:
        claims = {"improves": True, "verdict": "passed", "gain": 9.0}
        return Certificate.model_validate(certificate(differences=differences) | claims).verdict

    assert verdict(novel=found) is Verdict.FAILED
    assert verdict(other=found) is Verdict.NOT_STATED
    assert verdict() is Verdict.NOT_STATED
