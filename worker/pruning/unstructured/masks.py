"""Which weights stay, from a score per weight: exact counts, and of equal scores the first stays.

Scores are not negative and finite. Masks are bool, True where a weight stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: scores of rows that are copied at once while their thresholds are looked for
_CHUNK = 1 << 24


def all_but_smallest(scores: Tensor, removed: int) -> Tensor:
    """The mask of a whole matrix: all but the `removed` smallest of `scores` (any shape), compared as float32."""
    return _all_but_smallest(scores.float().reshape(1, -1), removed).view(scores.shape)


def all_but_smallest_of_rows(scores: Tensor, removed: int) -> Tensor:
    """The same in every row of `scores` `(rows, columns)`: each loses its `removed` smallest."""
    chunks = torch.split(scores.float(), max(1, _CHUNK // scores.shape[1]))
    return torch.cat([_all_but_smallest(chunk, removed) for chunk in chunks])


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


def _all_but_smallest(scores: Tensor, removed: int) -> Tensor:
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    thresholds = _kth_smallest(scores, removed)
    kept = scores > thresholds
    missing = scores.shape[1] - removed - kept.count_nonzero(dim=1)
    # at least the threshold itself goes, and mostly nothing else is equal to it
    for row in missing.nonzero().flatten().tolist():
        equal = (scores[row] == thresholds[row]).nonzero().flatten()
        kept[row, equal[: int(missing[row])]] = True
    return kept


def _kth_smallest(scores: Tensor, k: int) -> Tensor:
    """Of each row, the k-th smallest from 1: `(rows, 1)`."""
    if scores.device.type != "cpu":
        return scores.kthvalue(k, dim=1, keepdim=True).values
    # ten times as fast as torch's on a CPU, and without an index per score
    return torch.from_numpy(np.partition(scores.numpy(), k - 1, axis=1)[:, k - 1 : k].copy())
