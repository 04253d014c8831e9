"""Adam as its paper has it (arXiv 1412.6980, algorithm 1), on whatever it is given: the oracle's part."""

from __future__ import annotations

from torch import Tensor


class Adam:
    def __init__(self, betas: tuple[float, float], eps: float = 1e-8) -> None:
        self.betas, self.eps, self.step = betas, eps, 0
        self.mean: Tensor | float = 0.0
        self.square: Tensor | float = 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        first, second = self.betas
        self.step += 1
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient**2
        mean, square = self.mean / (1 - first**self.step), self.square / (1 - second**self.step)
        return mean / (square**0.5 + self.eps)
