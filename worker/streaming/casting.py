"""Products with weights that stay in the type they are stored in.

A layer of LLaMA-2-70B has 856 M weights: 1.7 GB as stored in bf16, 3.4 GB in fp32. On a CPU, which computes in
fp32, a weight is therefore cast in blocks of rows while its product is made, in forward and in backward, and no
fp32 copy of a whole matrix exists.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

#: weights that are cast at once: 64 MiB in fp32
CAST_AT_ONCE = 2**24

#: weights of a layer that are cast for good
_CAST_ONCE = 2**26

#: called in backward with the input (tokens, in) and the gradient by the output (tokens, out) of a product
Listener = Callable[[Tensor, Tensor], None]


def row_blocks(weight: Tensor, at_once: int = CAST_AT_ONCE) -> Iterator[slice]:
    """Neighbouring rows of `weight` `(rows, …)` with about `at_once` entries each."""
    rows = max(1, at_once * len(weight) // max(1, weight.numel()))
    for start in range(0, len(weight), rows):
        yield slice(start, start + rows)


def cast_in_use(model: nn.Module, dtype: torch.dtype) -> frozenset[str]:
    """Let linear layers and the input embeddings of `model` cast their weights to `dtype` when they use them.

    Returns the names of the parameters that may therefore stay in any type.
    """
    names = set()
    embeddings = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    for path, module in model.named_modules():
        if type(module) is nn.Linear:
            listen(module, None)
        elif module is embeddings and isinstance(module, nn.Embedding):
            module.forward = functools.partial(_embedded, module, dtype)  # type: ignore[method-assign]
        else:
            continue
        names |= {f"{path}.{leaf}" for leaf, _ in module.named_parameters(recurse=False)}
    return frozenset(names)


def cast_once(layer: nn.Module, dtype: torch.dtype) -> None:
    """Save the many products to come the cast, unless the linear layers of `layer` would take 256 MiB in fp32."""
    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    if sum(module.weight.numel() for module in linear) <= _CAST_ONCE:
        for module in linear:
            module.to(dtype)


def listen(module: nn.Linear, listener: Listener | None) -> None:
    """Let `listener` hear of this layer's products in backward, from now on; None: nobody."""
    module.forward = functools.partial(_product, module, listener)  # type: ignore[method-assign]


def _embedded(module: nn.Embedding, dtype: torch.dtype, tokens: Tensor) -> Tensor:
    """The module's own forward on a table of those rows alone that `tokens` name, in `dtype`.

    The table of LLaMA-3-70B has 4.2 GB in fp32; and families scale embeddings in their table's type.
    """
    table = module._parameters["weight"]
    assert table is not None
    if table.dtype == dtype:
        return type(module).forward(module, tokens)
    named, positions = torch.unique(tokens, return_inverse=True)
    padding, module.padding_idx = module.padding_idx, None
    module._parameters["weight"] = nn.Parameter(table.detach()[named].to(dtype), requires_grad=False)
    try:
        return type(module).forward(module, positions)
    finally:
        module._parameters["weight"] = table
        module.padding_idx = padding


def _product(module: nn.Linear, listener: Listener | None, x: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    if listener is None and weight.dtype == x.dtype:
        return functional.linear(x, weight, bias)
    shift = None if bias is None else bias.to(x.dtype)
    y: Tensor = _Product.apply(x, weight.detach(), shift, listener)  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    """x Wᵀ + b with a frozen W of any floating-point type. The gradient by W is the listener's business."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, listener: Listener | None) -> Tensor:
        ctx.weight, ctx.listener = weight, listener
        ctx.save_for_backward(x if listener else None)
        if weight.dtype == x.dtype:
            return functional.linear(x, weight, bias)
        flat = x.reshape(-1, x.shape[-1])
        y = flat.new_empty(len(flat), len(weight))
        for rows in row_blocks(weight):
            y[:, rows] = flat @ weight[rows].to(x.dtype).T
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *by_output: Tensor) -> tuple[Tensor | None, None, None, None]:
        (by_y,) = by_output
        flat = by_y.reshape(-1, by_y.shape[-1])
        (x,) = ctx.saved_tensors
        if ctx.listener is not None:
            ctx.listener(x.reshape(-1, x.shape[-1]), flat)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return _by_input(flat, ctx.weight).view(*by_y.shape[:-1], ctx.weight.shape[1]), None, None, None


def _by_input(by_y: Tensor, weight: Tensor) -> Tensor:
    """(tokens, out) times (out, in), the weight cast block by block."""
    if weight.dtype == by_y.dtype:
        return by_y @ weight
    by_x = by_y.new_zeros(len(by_y), weight.shape[1])
    for rows in row_blocks(weight):
        by_x.addmm_(by_y[:, rows], weight[rows].to(by_y.dtype))
    return by_x
