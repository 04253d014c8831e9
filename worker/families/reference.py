"""The base model with removed heads, neurons and experts switched off: what a pruned model has to agree with.

Heads and neurons: the columns that read them are zero. Experts: the router gives them minus infinity, so that they
are never chosen and have no share in what the others get. A norm over all heads at once (OLMo 2, over the whole query
or key projection) is the one place where a removed head acts on those that stay: there the mean over the kept heads
stands for the mean over all of them, as in the pruned model, which has no others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import TensorSpec, Unit
from worker.pruning.cutting import Kept


class Float64(TorchFunctionMode):
    """Within, what a family computes in fp32 whatever the model's dtype (norms, softmax, routers) is float64 too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        named = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **named)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


class _Unroutable(TorchFunctionMode):
    """Within, a product with a router's matrix is minus infinity for `removed` experts (by the matrix's identity)."""

    def __init__(self, removed: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._removed = removed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.linear and id(args[1]) in self._removed:
            return result.index_fill(-1, self._removed[id(args[1])], -torch.inf)
        return result


@contextmanager
def switched_off(model: PreTrainedModel, geometry: Geometry, kept: Kept) -> Iterator[None]:
    """Within, `model` (the base model, whose weights change for good) works without the units that are not `kept`."""
    routers: dict[int, Tensor] = {}
    for layer in range(geometry.layers):
        chosen = {unit: indices for (of, unit), indices in kept.items() if of == layer}
        module = model.get_submodule(f"{geometry.layer_prefix}{layer}")
        weights = dict(module.state_dict(keep_vars=True))
        for name, spec in geometry.kind(layer).parameters.items():
            removed = _removed(spec, chosen, geometry.kind(layer).units)
            if len(removed):
                routers |= _switch_off(module, name, weights[name], spec, removed)
    with _Unroutable(routers):
        yield


def _removed(spec: TensorSpec, chosen: Mapping[Unit, Tensor], units: Mapping[Unit, int]) -> Tensor:
    """Entries of the tensor's axis that go, ascending."""
    if not any(part.unit in chosen for part in spec.parts):
        return torch.empty(0, dtype=torch.long)
    whole = torch.ones(spec.shape[spec.axis], dtype=torch.bool)
    whole[spec.entries({unit: indices.tolist() for unit, indices in chosen.items()}, units)] = False
    return whole.nonzero().flatten()


def _switch_off(layer: nn.Module, name: str, weight: Tensor, spec: TensorSpec, removed: Tensor) -> dict[int, Tensor]:
    """Returns the router's matrix among `layer`'s weights, by identity, with the experts that it must not choose."""
    owner = layer.get_submodule(name.rpartition(".")[0])
    if any(part.unit is Unit.EXPERTS for part in spec.parts):
        if len(spec.shape) == 1:  # what routers add to the scores that they choose by
            weight.data[removed] = -torch.inf
        return {id(weight): removed} if len(spec.shape) == 2 else {}
    if spec.axis == 1:
        weight.data[:, removed] = 0
    elif _is_norm(owner):
        _normalize_kept(owner, spec.shape[0], removed)
    return {}


def _is_norm(module: nn.Module) -> bool:
    return not list(module.children()) and all(weight.ndim == 1 for weight in module.parameters())


def _normalize_kept(norm: nn.Module, full: int, removed: Tensor) -> None:
    """From now on `norm` is taken over the entries that stay; the others are zero, and nothing reads them."""
    kept = torch.ones(full, dtype=torch.bool)
    kept[removed] = False
    smaller = copy.deepcopy(norm)
    for weight in smaller.parameters():
        weight.data = weight.data[kept]
    if isinstance(smaller, nn.LayerNorm):
        smaller.normalized_shape = (int(kept.sum()),)

    def over_kept(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if args[0].shape[-1] != full:
            return output
        result = torch.zeros_like(output)
        result[..., kept] = smaller(args[0][..., kept])
        return result

    norm.register_forward_hook(over_kept)
