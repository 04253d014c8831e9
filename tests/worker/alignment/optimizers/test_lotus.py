from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.worker.alignment.optimizers.adam import Adam
from worker.alignment.optimizers.lotus import Lotus
from worker.alignment.optimizers.subspace import randomized_basis

RANK, BETAS = 3, (0.9, 0.95)


def _gradient(rows: int, columns: int, seed: int) -> Tensor:
    """A matrix whose singular values halve."""
    generator = torch.Generator().manual_seed(seed)
    smaller = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, smaller, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, smaller, generator=generator, dtype=torch.float64)).Q
    return left * 0.5 ** torch.arange(smaller, dtype=torch.float64) @ right.T


def _lotus(weight: Parameter, **options: float) -> Lotus:
    return Lotus([weight], lr=0.1, rank=RANK, betas=BETAS, scale=0.25, **options)  # type: ignore[arg-type]


def test_the_randomized_basis_spans_the_leading_singular_vectors() -> None:
    torch.manual_seed(0)
    gradient = _gradient(40, 64, seed=1)
    basis = randomized_basis(gradient, RANK)
    exact = torch.linalg.svd(gradient).U[:, :RANK]
    torch.testing.assert_close(basis.T @ basis, torch.eye(RANK, dtype=torch.float64))
    torch.testing.assert_close(basis @ basis.T, exact @ exact.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(10, 16), (16, 10)], ids=["wide", "tall"])
def test_updates_are_those_of_adam_in_the_subspace(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer, adam, expected = _lotus(weight), Adam(BETAS), torch.zeros(shape, dtype=torch.float64)
    for step in range(4):
        weight.grad = _gradient(*shape, seed=step)
        optimizer.step()
        basis = optimizer.state[weight]["basis"]
        if shape[0] < shape[1]:
            expected -= 0.1 * 0.25 * basis @ adam.direction(basis.T @ weight.grad)
        else:
            expected -= 0.1 * 0.25 * adam.direction(weight.grad @ basis) @ basis.T
    torch.testing.assert_close(weight.data, expected)


def test_the_subspace_is_left_when_algorithm_1_says_so() -> None:
    """Its counter T and displacement written out; gradients stand still, then move, then are where they were."""
    gap, threshold = 4, 0.02
    torch.manual_seed(0)
    weight = Parameter(torch.zeros(10, 16, dtype=torch.float64))
    optimizer = _lotus(weight, verifying_gap=gap, threshold=threshold)
    seeds = [*[0] * 5, 1, 2, 3, 4, 5, 6, 1, 1, 1, 1, 7, 8]
    found, wanted, switch = [], [], True
    basis, start, count = torch.empty(0), torch.empty(0), 0
    for seed in seeds:
        weight.grad = _gradient(10, 16, seed)
        before = optimizer.state[weight].get("basis")
        optimizer.step()
        found.append(optimizer.state[weight]["basis"] is not before)
        wanted.append(switch)
        if switch:
            basis, count = optimizer.state[weight]["basis"], 1
            start = basis.T @ weight.grad / (basis.T @ weight.grad).norm()
        switch = False
        unit = basis.T @ weight.grad / (basis.T @ weight.grad).norm()
        count += 1
        if count % gap == 0:
            switch = float((unit - start).norm()) / count < threshold
    assert found == wanted
    assert 2 <= sum(found) <= 4
