"""What calibration tells about the inputs of matrices, added up batch by batch in fp32."""

from __future__ import annotations

from typing import Protocol, assert_never

import torch
from torch import Tensor

from publisher.errors import UnsupportedModel
from publisher.recipe.criteria.spec import InputStatistic

#: columns of a Hessian that are added up at once; of blocks below the diagonal only the mirror image is computed
_BLOCK = 384


class Statistic(Protocol):
    """Of one input of `columns` channels."""

    def __init__(self, columns: int, device: torch.device) -> None: ...

    def add(self, inputs: Tensor) -> None:
        """`inputs` `(tokens, columns)`"""

    def mean(self) -> Tensor:
        """Over the tokens. Ends the adding up."""


class Squares:
    """The square of each channel: `(columns,)`."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self._sum = torch.zeros(columns, device=device)
        self._tokens = 0

    def add(self, inputs: Tensor) -> None:
        self._sum += torch.linalg.vector_norm(inputs, dim=0, dtype=torch.float32).square_()
        self._tokens += len(inputs)

    def mean(self) -> Tensor:
        return self._sum / max(1, self._tokens)


class Hessian:
    """The products of all pairs of channels, X Xᵀ: `(columns, columns)`, symmetric."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self._sum = torch.zeros(columns, columns, device=device)
        self._tokens = 0

    def add(self, inputs: Tensor) -> None:
        inputs = inputs.float()
        for start in range(0, len(self._sum), _BLOCK):
            rows = slice(start, start + _BLOCK)
            self._sum[rows, start:].addmm_(inputs[:, rows].T, inputs[:, start:])
        self._tokens += len(inputs)

    def mean(self) -> Tensor:
        for start in range(0, len(self._sum), _BLOCK):
            stop = start + _BLOCK
            self._sum[stop:, start:stop] = self._sum[start:stop, stop:].T
        return self._sum.div_(max(1, self._tokens))


def statistic_of(what: InputStatistic) -> type[Statistic]:
    """What adds up that."""
    match what:
        case InputStatistic.SQUARES:
            return Squares
        case InputStatistic.HESSIAN:
            return Hessian
        case _:
            assert_never(what)


class InputStatistics:
    """A statistic for the input of each matrix; matrices that are handed the same tensor share one."""

    def __init__(self, kind: type[Statistic]) -> None:
        self._kind = kind
        self._statistics: dict[str, Statistic] = {}
        self._same_as: dict[str, str] = {}
        self._latest: tuple[str, Tensor] | None = None

    def add(self, matrix: str, inputs: Tensor) -> None:
        """`inputs` `(…, in)` of a batch. UnsupportedModel if the matrix shared its input in earlier ones, not now."""
        if self._latest is None or self._latest[1] is not inputs:
            self._latest = matrix, inputs
        first = self._latest[0]
        if self._same_as.setdefault(matrix, first) != first:
            raise UnsupportedModel(
                f"{matrix} reads the same input as {self._same_as[matrix]} in one batch of calibration text, and as "
                f"{first} in another.",
                way_out="Use criterion magnitude.",
            )
        if first == matrix:
            flat = inputs.reshape(-1, inputs.shape[-1])
            if matrix not in self._statistics:
                self._statistics[matrix] = self._kind(flat.shape[1], flat.device)
            self._statistics[matrix].add(flat)

    def forget_batch(self) -> None:
        """The next batch's tensors are others, even in the same memory."""
        self._latest = None

    def groups(self) -> dict[str, list[str]]:
        """First reader of each input → all of its readers."""
        groups: dict[str, list[str]] = {}
        for matrix, first in self._same_as.items():
            groups.setdefault(first, []).append(matrix)
        return groups

    def take(self, matrix: str, weight: Tensor) -> Tensor:
        """The mean of what a first reader was handed, zeros if nothing was; its memory is the caller's now."""
        statistic = self._statistics.pop(matrix, None) or self._kind(weight.shape[1], weight.device)
        return statistic.mean()
