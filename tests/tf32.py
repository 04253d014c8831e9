"""What a GPU's tensor cores do to fp32: linear layers whose products are of numbers with 10 bits of mantissa."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_DROPPED = 13


def rounded(tensor: Tensor) -> Tensor:
    """To the nearest number with 10 bits of mantissa."""
    half = 1 << (_DROPPED - 1)
    return ((tensor.contiguous().view(torch.int32) + half) >> _DROPPED << _DROPPED).view(torch.float32)


class Tf32(TorchFunctionMode):
    """Within, linear layers without bias compute so, forward and backward."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.linear and (len(args) < 3 or args[2] is None):
            return _Linear.apply(*args[:2])  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return rounded(x) @ rounded(weight).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x = rounded(gradient) @ rounded(weight)
        if not ctx.needs_input_grad[1]:
            return by_x, None
        return by_x, rounded(gradient.flatten(0, -2)).T @ rounded(x.flatten(0, -2))
