"""Matrices and correlated inputs for tests of non-structured pruning."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix(outputs: int, inputs: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def correlated_inputs(tokens: int, inputs: int, seed: int = 1) -> Tensor:
    """`(tokens, inputs)` float64: a few hidden causes drive all channels, whose sizes differ a hundredfold."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(tokens, inputs // 4, generator=generator, dtype=torch.float64)
    mixing = torch.randn(inputs // 4, inputs, generator=generator, dtype=torch.float64)
    noise = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64)
    sizes = torch.logspace(-1, 1, inputs, dtype=torch.float64)[torch.randperm(inputs, generator=generator)]
    return (causes @ mixing + noise) * sizes


def hessian_of(inputs: Tensor) -> Tensor:
    return inputs.T @ inputs / len(inputs)
