"""A truncation's error is the best that any matrix of its rank reaches: the singular values that are left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from publisher.checkpoint.recovery.truncation import CAP, NEAR, truncated


def matrix(values: Tensor, rows: int, columns: int) -> Tensor:
    """With these singular values."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (rows, columns)
    )
    return left * values @ right.mT


@pytest.mark.parametrize(("rows", "columns"), [(30, 50), (50, 30), (1, 8), (8, 1)])
@pytest.mark.parametrize("rank", [1, 4, 100])
def test_error_is_that_of_the_singular_values_left_out(rows: int, columns: int, rank: int) -> None:
    change = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = truncated(change, rank)
    best = float(torch.linalg.svdvals(change)[rank:].norm())
    assert found.left_out == pytest.approx(best, abs=1e-12)
    assert float((change - found.b @ found.a).norm()) == pytest.approx(best, abs=1e-12)
    assert found.norm == pytest.approx(float(change.norm()))
    assert found.rank == min(rank, rows, columns)


def test_rank_that_is_not_asked_for_is_the_lowest_that_is_near() -> None:
    values = torch.tensor([1.0, 0.5, 0.1, NEAR / 2, NEAR / 4], dtype=torch.float64)
    assert truncated(matrix(values, 20, 30), None).rank == 3
    assert truncated(matrix(values[:3], 20, 30), None).left_out == 0


def test_rank_that_is_not_asked_for_ends_at_the_cap() -> None:
    change = torch.randn(CAP + 20, CAP + 30, generator=torch.Generator().manual_seed(1))
    assert truncated(change, None).rank == CAP


def test_rank_of_a_change_is_not_filled_with_rounding() -> None:
    assert truncated(matrix(torch.ones(3, dtype=torch.float64), 20, 30), 10).rank == 3


@pytest.mark.parametrize("rank", [None, 4])
def test_no_change_is_a_lora_of_zeros(rank: int | None) -> None:
    found = truncated(torch.zeros(6, 8), rank)
    assert (found.rank, found.norm, found.left_out) == (1, 0, 0)
    assert not (found.b @ found.a).any()


def test_wide_matrix_is_sampled_to_the_same_error_within_a_hundredth() -> None:
    values = torch.linspace(1, 0.01, 300, dtype=torch.float64)
    change = matrix(values, 900, 1000)
    found, best = truncated(change, 40), float(values[40:].norm())
    assert best <= found.left_out < 1.01 * best
    assert float((change - found.b @ found.a).norm()) == pytest.approx(found.left_out, rel=1e-6)


def test_wide_matrix_of_low_rank_is_found_exactly() -> None:
    change = matrix(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64), 900, 1000)
    found = truncated(change, None)
    assert (found.rank, found.left_out) == (3, pytest.approx(0, abs=1e-12))


def test_sampling_leaves_the_user_s_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    truncated(matrix(torch.ones(3, dtype=torch.float64), 900, 900), 2)
    assert torch.equal(torch.rand(3), expected)
