"""Bytes that optimizers keep for a parameter, as declarations put them together."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.recipe.optimizers.spec import Shape

FP32 = 4
#: bytes of an 8-bit moment with its share of an fp32 scale for 256 of them; bitsandbytes keeps small tensors in fp32
_EIGHT_BITS, _EIGHT_BITS_FROM = 1 + FP32 / 256, 4096


def adam_moments(entries: int) -> float:
    """Adam's two of a tensor with so many entries, in fp32."""
    return 2 * entries * FP32


def adam_moments_8bit(entries: int) -> float:
    """The same as bitsandbytes keeps them."""
    return 2 * entries * (_EIGHT_BITS if entries >= _EIGHT_BITS_FROM else FP32)


@dataclass(frozen=True)
class Projection:
    """Of a matrix's gradient onto `rank` directions of its smaller side, as GaLore has it (arXiv 2403.03507)."""

    shape: Shape
    wanted_rank: int

    @property
    def rank(self) -> int:
        return min(self.wanted_rank, *self.shape)

    @property
    def basis_bytes(self) -> float:
        """Of the directions, in fp32."""
        return min(self.shape) * self.rank * FP32

    @property
    def entries(self) -> int:
        """Numbers of the projected gradient."""
        return max(self.shape) * self.rank
