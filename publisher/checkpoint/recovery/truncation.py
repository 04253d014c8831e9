"""The LoRA of a given rank that is nearest to a change of a matrix: its largest singular values (Eckart and Young)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

#: A LoRA is near enough when what it leaves out is at most this share of the change's norm.
NEAR = 1e-3
#: The rank that is not passed without being asked for: engines that serve LoRAs take 64 to 512.
CAP = 128
#: Matrices up to this size, in their smaller dimension, are decomposed whole: exactly, in seconds.
_WHOLE = 768
#: columns more than the rank, and times that the change is applied, when a larger one is sampled (Halko et al. 2011)
_MORE, _TIMES = 16, 4


@dataclass(frozen=True)
class Truncation:
    """`b` (out, rank) and `a` (rank, in), whose product is the change; `norm`: the change's, `left_out`: that of what
    the product lacks of it (Frobenius)."""

    b: Tensor
    a: Tensor
    norm: float
    left_out: float

    @property
    def rank(self) -> int:
        return len(self.a)


def truncated(change: Tensor, rank: int | None) -> Truncation:
    """`change` (out, in) in floats of 32 or 64 bits; `rank` None: the lowest that is near, up to CAP."""
    norm = float(torch.linalg.vector_norm(change, dtype=torch.float64))
    most = min(*change.shape, CAP if rank is None else rank)
    left, values = _decomposed(change, most)
    rank = _lowest(values, norm) if rank is None else len(values)
    kept = min(rank, _numerical(values, max(change.shape)))
    left, root = left[:, :kept], values[:kept].sqrt()
    core = left.mT @ change  # the nearest to the change that these columns can make
    a = core / root[:, None] if values[0] else core
    return Truncation((left * root).contiguous(), a.contiguous(), norm, _left_out(change, left, core, norm))


def _decomposed(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first `rank` columns of U (out, rank), and the singular values (rank,)."""
    if min(change.shape) <= max(_WHOLE, rank + _MORE):
        left, values, _ = torch.linalg.svd(change, full_matrices=False)
        return left[:, :rank], values[:rank]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, _ = torch.svd_lowrank(change, q=rank + _MORE, niter=_TIMES)
    return left[:, :rank], values[:rank]


def _numerical(values: Tensor, size: int) -> int:
    """How many are more than rounding; at least one, since no LoRA has rank 0."""
    return max(1, int((values > values[0] * size * torch.finfo(values.dtype).eps).sum()))


def _lowest(values: Tensor, norm: float) -> int:
    """The first rank at which what is left out is near nothing, or all values."""
    missing = norm**2 - values.double().square().cumsum(0)
    enough = (missing <= (NEAR * norm) ** 2).nonzero()
    return int(enough[0]) + 1 if len(enough) else len(values)


def _left_out(change: Tensor, left: Tensor, core: Tensor, norm: float) -> float:
    """By rows of the change, which as a whole takes as much memory again; what is there beside rounding."""
    total, step = 0.0, max(1, 2**24 // change.shape[1])
    for start in range(0, len(change), step):
        rows = slice(start, start + step)
        rest = change[rows] - left[rows] @ core
        total += float(torch.linalg.vector_norm(rest, dtype=torch.float64)) ** 2
    found = sqrt(total)
    return 0.0 if found < norm * torch.finfo(change.dtype).eps * 8 else found
