"""The matrices of a decoder layer in memory, by the names that files have for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from publisher.architecture.structure import Shape
from publisher.errors import UnsupportedModel
from worker.streaming.files import TensorFiles
from worker.streaming.model import LayerStream

#: hears of a matrix's name and its input
Seen = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Linear:
    """The weight of an nn.Linear."""

    name: str
    module: nn.Linear

    @property
    def weight(self) -> Tensor:
        return self.module.weight.detach()

    def replace(self, weight: Tensor) -> None:
        self.module.weight = nn.Parameter(weight.to(self.weight.dtype), requires_grad=False)


@dataclass(frozen=True)
class ExpertMatrix:
    """Rows of one expert's slice of a parameter `(experts, out, in)` that holds all of them."""

    name: str
    parameter: nn.Parameter
    expert: int
    rows: slice

    @property
    def weight(self) -> Tensor:
        return self.parameter.detach()[self.expert, self.rows]

    def replace(self, weight: Tensor) -> None:
        self.weight.copy_(weight)


Matrix = Linear | ExpertMatrix


def matrices_of_layer(
    stream: LayerStream, index: int, layer: nn.Module, files: TensorFiles, wanted: Mapping[str, Shape]
) -> list[Matrix]:
    """Those of `wanted` (names in files, of any layer) that `layer`, which is number `index`, holds.

    Raises UnsupportedModel for one that is neither an nn.Linear nor an expert's share of a fused parameter.
    """
    found: list[Matrix] = []
    for path, module in layer.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            stored = stream.stored(index, f"{path}.{leaf}")
            names = [name for name in stored if name in wanted]
            if isinstance(module, nn.Linear) and len(stored) == 1:
                found += [Linear(name, module) for name in names]
            elif parameter.dim() == 3 and names:
                found += _experts(parameter, files, names)
    prefix = f"{stream.layer_name(index)}."
    missing = {name for name in wanted if name.startswith(prefix)} - {matrix.name for matrix in found}
    if missing:
        raise UnsupportedModel(
            f"{min(missing)} is not a linear layer of transformers' {stream.config.model_type!r} model, so what it "
            "reads cannot be measured.",
            way_out="Use criterion magnitude.",
        )
    return found


@contextmanager
def watched(matrices: Sequence[Matrix], seen: Seen) -> Iterator[None]:
    """Within, `seen` is called with the name and the input `(…, in)` of each matrix whenever it is multiplied."""
    handles = [
        matrix.module.register_forward_pre_hook(_noting(matrix.name, seen))
        for matrix in matrices
        if isinstance(matrix, Linear)
    ]
    experts = [matrix for matrix in matrices if isinstance(matrix, ExpertMatrix)]
    try:
        with _WatchedExperts(experts, seen) if experts else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _noting(name: str, seen: Seen) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen(name, arguments[0])

    return hook


class _WatchedExperts(TorchFunctionMode):
    """Sees products with one expert's slice of a fused parameter, as transformers' eager experts make them."""

    def __init__(self, matrices: Sequence[ExpertMatrix], seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self._names: dict[int, list[str]] = {}
        for matrix in matrices:
            self._names.setdefault(matrix.parameter[matrix.expert].data_ptr(), []).append(matrix.name)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.linear:
            for name in self._names.get(args[1].data_ptr(), ()):
                self._seen(name, args[0])
        return func(*args, **(kwargs or {}))


def _experts(parameter: nn.Parameter, files: TensorFiles, names: list[str]) -> Iterator[ExpertMatrix]:
    """Where each expert's tensor went when transformers fused them: found by its values. Nothing for other layouts."""
    for name in names:
        stored = files.read([name])[name].to(parameter.device, parameter.dtype)
        rows, columns = stored.shape
        if parameter.shape[2] != columns or parameter.shape[1] % rows:
            continue
        parts = parameter.detach().view(len(parameter), -1, rows, columns)
        for expert, part in (parts[:, :, 0] == stored[0]).all(dim=2).nonzero().tolist():
            if torch.equal(parts[expert, part], stored):
                yield ExpertMatrix(name, parameter, expert, slice(part * rows, (part + 1) * rows))
                break
