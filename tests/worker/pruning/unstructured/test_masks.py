"""Exact counts, and of equal scores the first stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.pruning.unstructured.masks import all_but_smallest, all_but_smallest_of_rows, largest_of_neighbours

#: few distinct values, so that many scores are equal
scores_with_ties = st.lists(st.sampled_from([0.0, 1e-30, 0.5, 1.0, 3e8]), min_size=1, max_size=60)


def stable_choice(scores: list[float], count: int) -> list[bool]:
    """By Python's stable sort: the largest first, of equal ones the first."""
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[:count]
    return [index in best for index in range(len(scores))]


@given(scores_with_ties, st.floats(0, 1))
def test_a_matrix_loses_exactly_its_smallest(scores: list[float], share: float) -> None:
    removed = int(len(scores) * share)
    kept = all_but_smallest(torch.tensor(scores), removed)
    assert kept.tolist() == stable_choice(scores, len(scores) - removed)


@given(scores_with_ties, st.floats(0, 1))
def test_each_row_loses_exactly_its_smallest(scores: list[float], share: float) -> None:
    removed = int(len(scores) * share)
    kept = all_but_smallest_of_rows(torch.tensor([scores, scores[::-1]]), removed)
    assert kept[0].tolist() == stable_choice(scores, len(scores) - removed)
    assert kept[1].tolist() == stable_choice(scores[::-1], len(scores) - removed)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4))
def test_neighbours_keep_their_two_largest(scores: list[float]) -> None:
    assert largest_of_neighbours(torch.tensor(scores), 2, dim=0).tolist() == stable_choice(scores, 2)


def test_a_large_matrix_is_cut_at_its_quantile() -> None:
    scores = torch.randn(1000, 300, generator=torch.Generator().manual_seed(0)).abs()
    kept = all_but_smallest(scores, 100_000)
    assert int(kept.sum()) == 200_000
    assert scores[kept].min() >= scores[~kept].max()


@pytest.mark.parametrize("dim", [0, 1])
def test_neighbours_lie_along_the_named_dimension(dim: int) -> None:
    scores = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    assert (largest_of_neighbours(scores, 4, dim).sum(dim) == 4).all()
