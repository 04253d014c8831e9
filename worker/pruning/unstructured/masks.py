"""Which weights stay, from a score per weight: exact counts, and of equal scores the first stays.

Scores are not negative and finite. Masks are bool, True where a weight stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: scores whose copies are in memory at once while a row's or matrix's threshold is looked for
_CHUNK = 1 << 24
_LOW_BITS = 16


def all_but_smallest(scores: Tensor, removed: int) -> Tensor:
    """The mask of a whole matrix: all but the `removed` smallest of `scores` (any shape), compared as float32."""
    flat = scores.flatten().float()
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    kept = _above(flat[None], _kth_smallest(flat, removed)[None, None], flat.numel() - removed)
    return kept.view_as(scores)


def all_but_smallest_of_rows(scores: Tensor, removed: int) -> Tensor:
    """The same in every row of `scores` `(rows, columns)`: each loses its `removed` smallest."""
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    columns = scores.shape[1]
    return torch.cat(
        [
            _above(chunk, chunk.kthvalue(removed, dim=1, keepdim=True).values, columns - removed)
            for chunk in torch.split(scores, max(1, _CHUNK // columns))
        ]
    )


def largest_of_neighbours(scores: Tensor, kept: int, dim: int) -> Tensor:
    """The `kept` largest along `dim`, which holds one group of neighbours: "2:4" has 4 entries there and keeps 2."""
    columns = scores.unbind(dim)
    stays = []
    for here, score in enumerate(columns):
        beaten_by = torch.zeros_like(score, dtype=torch.uint8)
        for there, other in enumerate(columns):
            if there != here:
                beaten_by += other >= score if there < here else other > score
        stays.append(beaten_by < kept)
    return torch.stack(stays, dim)


def _above(scores: Tensor, thresholds: Tensor, count: int) -> Tensor:
    """`count` entries of each row: those above its threshold `(rows, 1)`, and the first of those that equal it."""
    kept = scores > thresholds
    missing = count - kept.sum(dim=1, keepdim=True)
    equal = scores == thresholds
    if torch.equal(equal.sum(dim=1, keepdim=True), missing):
        return kept.logical_or_(equal)
    return kept.logical_or_(equal & (equal.cumsum(dim=1, dtype=torch.int32) <= missing))


def _kth_smallest(scores: Tensor, k: int) -> Tensor:
    """The k-th smallest (from 1) of flat float32 scores.

    By counting: floats that are not negative are ordered as their bit patterns. A sort, or torch's kthvalue, takes
    three times the matrix beside it.
    """
    bits = scores.view(torch.int32)
    counts = torch.zeros(1 << (31 - _LOW_BITS), dtype=torch.int64, device=scores.device)
    for chunk in torch.split(bits, _CHUNK):
        counts += torch.bincount(chunk >> _LOW_BITS, minlength=len(counts))
    below = counts.cumsum(0)
    bucket = int(torch.searchsorted(below, k))
    within = torch.cat([chunk[chunk >> _LOW_BITS == bucket] for chunk in torch.split(bits, _CHUNK)])
    return within.kthvalue(k - int(below[bucket] - counts[bucket])).values.view(torch.float32)
