from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from tests.worker.alignment.optimizers.adam import Adam
from worker.alignment.optimizers.gradnormlorp import GradNormLoRP

RATE, RANK, GAP, BETAS = 0.05, 3, 2, (0.9, 0.95)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)], ids=["wide", "tall"])
def test_updates_are_those_of_the_paper_s_formulas(shape: tuple[int, int]) -> None:
    """w = δ v / ‖v‖ with v and δ kept as such; autograd says what their gradients are, U η(Uᵀ D V) Vᵀ replaces v's."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = Parameter(start.clone())
    optimizer = GradNormLoRP([weight], lr=RATE, rank=RANK, betas=BETAS, gap=GAP)
    v, length = start.clone(), start.norm(dim=1, keepdim=True)
    inner, outer = Adam(BETAS), Adam(BETAS)
    for step in range(5):
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
        weight.grad = gradient
        optimizer.step()
        v.requires_grad_(), length.requires_grad_()
        by_v, by_length = torch.autograd.grad((gradient * length * v / v.norm(dim=1, keepdim=True)).sum(), (v, length))
        if step % GAP == 0:
            u, _, vh = torch.linalg.svd(by_v, full_matrices=False)
            u, vh = u[:, :RANK], vh[:RANK]
        v = (v - RATE * u @ inner.direction(u.T @ by_v @ vh.T) @ vh).detach()
        length = (length - RATE * outer.direction(by_length)).detach()
        torch.testing.assert_close(weight.data, length * v / v.norm(dim=1, keepdim=True))


def test_a_row_of_zeros_stays_and_is_no_nan() -> None:
    weight = Parameter(torch.ones(4, 6).index_fill(0, torch.tensor([2]), 0.0))
    optimizer = GradNormLoRP([weight], lr=1e-2, rank=2)
    for _ in range(3):
        weight.grad = torch.randn(4, 6)
        optimizer.step()
    assert weight.isfinite().all()
    assert weight[2].abs().max() < 0.1
