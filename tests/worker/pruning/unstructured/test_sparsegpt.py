"""SparseGPT against least squares and against the paper's Algorithm 1 written with an inverse per column."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.devices import each_device
from tests.worker.pruning.unstructured.layers import correlated_inputs, hessian_of, matrix
from worker.numerics.inverse_hessian import NotPositiveDefinite
from worker.pruning.unstructured.sparsegpt import BLOCK, by_sparsegpt
from worker.pruning.unstructured.sparsity import SemiStructured, Sparsity, Unstructured


def damped(hessian: Tensor) -> Tensor:
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def algorithm_1(weight: Tensor, hessian: Tensor, sparsity: Sparsity) -> tuple[Tensor, Tensor]:
    """Column by column: OBS with the inverse Hessian of the columns that are not done yet (equations 3 and 4)."""
    weight, kept = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    inverses = [torch.linalg.inv(damped(hessian)[i:, i:]) for i in range(len(hessian))]
    strengths = torch.stack([inverse[0, 0] for inverse in inverses])
    block = sparsity.of if isinstance(sparsity, SemiStructured) else BLOCK
    for column, inverse in enumerate(inverses):
        if column % block == 0:
            stop = min(column + block, len(hessian))
            scores = weight[:, column:stop].square() / strengths[column:stop]
            kept[:, column:stop] = _chosen(scores, sparsity, column, stop)
        error = weight[:, column] * ~kept[:, column] / inverse[0, 0]
        weight[:, column:] -= error[:, None] * inverse[0]
    return weight, kept


def _chosen(scores: Tensor, sparsity: Sparsity, start: int, stop: int) -> Tensor:
    if isinstance(sparsity, SemiStructured):
        order = scores.argsort(dim=1, descending=True)
        return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, : sparsity.kept], True)
    removed = len(scores) * (int(stop * sparsity.ratio) - int(start * sparsity.ratio))
    return scores > scores.flatten().sort().values[removed - 1]


@each_device
@pytest.mark.parametrize("sparsity", [Unstructured(0.5), Unstructured(0.3), SemiStructured(2, 4), SemiStructured(4, 8)])
def test_equals_the_papers_algorithm(sparsity: Sparsity, device: str) -> None:
    weight, hessian = matrix(24, 2 * BLOCK + 40), hessian_of(correlated_inputs(600, 2 * BLOCK + 40))
    expected, expected_kept = algorithm_1(weight, hessian, sparsity)
    pruned = by_sparsegpt([weight.to(device)], hessian.clone().to(device), sparsity)[0]
    assert torch.equal(pruned.kept.cpu(), expected_kept)
    torch.testing.assert_close(pruned.weight.cpu(), expected, rtol=0, atol=1e-9)


def test_what_is_left_is_the_least_squares_fit_when_the_first_columns_go() -> None:
    """Everything that remains may move, so no other weights on the kept columns come closer to the layer's output."""
    weight, hessian = matrix(6, 20), hessian_of(correlated_inputs(200, 20))
    weight[:, :10] *= 1e-3  # the smallest scores by far
    pruned = by_sparsegpt([weight], hessian.clone(), Unstructured(0.5))[0]
    assert not pruned.kept[:, :10].any()
    full = damped(hessian)
    best = torch.linalg.solve(full[10:, 10:], full[10:] @ weight.T).T
    torch.testing.assert_close(pruned.weight[:, 10:], best, rtol=1e-9, atol=1e-12)


def test_one_weight_goes_as_in_optimal_brain_surgeon() -> None:
    """δ = -w_0 H⁻¹[:, 0] / H⁻¹[0, 0]"""
    weight, hessian = matrix(1, 16), hessian_of(correlated_inputs(200, 16))
    weight[0, 0] = 1e-4
    inverse = torch.linalg.inv(damped(hessian))
    pruned = by_sparsegpt([weight], hessian.clone(), Unstructured(1 / 16))[0]
    assert pruned.kept.tolist() == [[False] + [True] * 15]
    expected = weight - weight[0, 0] / inverse[0, 0] * inverse[0]
    torch.testing.assert_close(pruned.weight, expected, rtol=1e-9, atol=1e-12)


def test_matrices_of_one_input_do_not_influence_each_other() -> None:
    hessian = hessian_of(correlated_inputs(400, 160))
    weights = [matrix(rows, 160, seed=rows) for rows in (5, 12, 3)]
    together = by_sparsegpt(weights, hessian.clone(), Unstructured(0.5))
    for weight, pruned in zip(weights, together, strict=True):
        alone = by_sparsegpt([weight], hessian.clone(), Unstructured(0.5))[0]
        assert torch.equal(pruned.kept, alone.kept)
        torch.testing.assert_close(pruned.weight, alone.weight, rtol=0, atol=1e-11)


def test_weights_of_an_input_that_is_always_zero_go_first() -> None:
    inputs = torch.randn(100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[:, [2, 5]] = 0
    pruned = by_sparsegpt([matrix(4, 8).sign()], hessian_of(inputs), Unstructured(0.25))[0]
    assert pruned.kept.all(dim=0).tolist() == [True, True, False, True, True, False, True, True]


def test_single_precision_is_enough_for_fewer_tokens_than_inputs() -> None:
    weight, inputs = matrix(16, 200), correlated_inputs(50, 200)
    exact = by_sparsegpt([weight], hessian_of(inputs), Unstructured(0.5))[0]
    single = by_sparsegpt([weight.float()], hessian_of(inputs).float(), Unstructured(0.5))[0]
    errors = [float((inputs @ (weight - pruned.weight.double()).T).norm()) for pruned in (exact, single)]
    assert errors[1] < 1.01 * errors[0]


def test_a_hessian_that_no_damping_helps_is_refused() -> None:
    hessian = -torch.eye(4)
    with pytest.raises(NotPositiveDefinite, match="4 inputs"):
        by_sparsegpt([matrix(2, 4, dtype=torch.float32)], hessian, Unstructured(0.5))
