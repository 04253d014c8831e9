"""Rounding that makes up for itself, against GPTQ with an inverse per column."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.devices import each_device
from tests.worker.pruning.unstructured.layers import correlated_inputs, hessian_of, matrix
from tests.worker.quantization.gptq import gptq
from worker.numerics.inverse_hessian import NotPositiveDefinite
from worker.quantization.compensated import compensated
from worker.quantization.packing import Grid, round_trip


def damped(hessian: Tensor) -> Tensor:
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def damped_hessian(inputs: int) -> Tensor:
    return damped(hessian_of(correlated_inputs(600, inputs)))


@each_device
@pytest.mark.parametrize("inputs", [64, 100, 296], ids=["one block a row", "blocks across rows", "several sweeps"])
def test_equals_the_papers_equations(inputs: int, device: str) -> None:
    weights, hessian = [matrix(24, inputs), matrix(7, inputs).flip(1)], damped_hessian(inputs)
    found = compensated([weight.to(device) for weight in weights], hessian.clone().to(device))
    for weight, rounded in zip(weights, found, strict=True):
        same = rounded.double().cpu() == gptq(weight, hessian)
        # from a weight that falls to the other side of a tie, others behind it differ
        assert same.double().mean() >= {"cpu": 1.0, "cuda": 0.95}[device]


def test_rounding_it_costs_less_of_what_the_matrix_puts_out() -> None:
    weight, inputs = matrix(48, 192).float(), correlated_inputs(800, 192)
    read, unread = inputs[:600], inputs[600:]
    (found,) = compensated([weight], damped(hessian_of(read)))
    for reads in (read, unread):
        wanted = reads @ weight.double().T
        nearest, made_up = (reads @ round_trip(each).double().T for each in (weight, found))
        assert (made_up - wanted).norm() < 0.8 * (nearest - wanted).norm()


def test_scales_stay_as_they_are() -> None:
    weight = matrix(5, 100).float()
    (found,) = compensated([weight], damped_hessian(100))
    assert not torch.equal(found, weight.bfloat16())
    assert torch.equal(Grid(found).scales, Grid(weight).scales)


def test_nothing_comes_of_nothing() -> None:
    weight = torch.zeros(4, 128)
    (found,) = compensated([weight], damped_hessian(128))
    assert torch.equal(found, weight.bfloat16())


def test_what_cannot_be_factored_is_refused() -> None:
    with pytest.raises(NotPositiveDefinite, match="a Hessian of 8 inputs"):
        compensated([matrix(4, 8)], -torch.eye(8, dtype=torch.float64))
