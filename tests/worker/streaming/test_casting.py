"""Products with weights of another type, against the product with the weight cast as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.streaming.casting import cast_in_use, listen, row_blocks


def layer(dtype: torch.dtype, *, bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(24, 40, bias=bias).to(dtype).requires_grad_(False)
    cast_in_use(linear, torch.float32)
    return linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_product_and_gradient_are_those_of_the_weight_cast_as_a_whole(stored: torch.dtype, bias: bool) -> None:
    linear, x = layer(stored, bias=bias), torch.randn(3, 7, 24, requires_grad=True)
    offset = linear.bias.float() if bias else None
    wanted = functional.linear(x, linear.weight.float(), offset)
    found = linear(x)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    by_y = torch.randn_like(found)
    (by_x,), (wanted_by_x,) = torch.autograd.grad(found, x, by_y), torch.autograd.grad(wanted, x, by_y)
    torch.testing.assert_close(by_x, wanted_by_x, rtol=1e-6, atol=1e-6)
    assert linear.weight.dtype == stored


def test_a_listener_hears_what_the_gradient_by_the_weight_is_made_of() -> None:
    linear, x = layer(torch.bfloat16, bias=False), torch.randn(3, 7, 24, requires_grad=True)
    heard: list[tuple[Tensor, Tensor]] = []
    listen(linear, lambda inputs, by_y: heard.append((inputs, by_y)))
    linear(x).square().sum().backward()
    weight = linear.weight.float().requires_grad_()
    functional.linear(x.detach(), weight).square().sum().backward()  # type: ignore[no-untyped-call]
    ((inputs, by_y),) = heard
    torch.testing.assert_close(by_y.T @ inputs, weight.grad, rtol=1e-5, atol=1e-5)
    listen(linear, None)
    linear(x).sum().backward()
    assert len(heard) == 1


@pytest.mark.parametrize(("rows", "at_once"), [(10, 12), (10, 4000), (1, 1), (7, 8)])
def test_blocks_of_rows_cover_each_row_once(rows: int, at_once: int) -> None:
    weight = torch.arange(rows * 4).reshape(rows, 4)
    assert torch.equal(torch.cat([weight[block] for block in row_blocks(weight, at_once)]), weight)
