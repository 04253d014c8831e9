"""Recovery: an adapter trained on the checkpoint becomes one for the base model (arXiv 2502.13533, section 3.2).

LoRA adds `B @ A` to a weight. Pruning removed rows of that weight (heads of q, k, v; neurons of gate, up; experts of
a router), which are rows of `B`, or columns (of o and down), which are columns of `A`. Recovery puts them back at
the kept indices with zeros between: the update of everything that was kept is unchanged, that of everything removed
is zero. Which rows and columns those are, the masks know for every family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.masks import KeptIndices, Masks
from publisher.checkpoint.whole_parameters import is_whole
from publisher.errors import RequestFault

#: The parts of a LoRA on a linear layer, after the module's name.
_A, _B, _B_BIAS = _LORA = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias")
_ELSEWHERE = (*_LORA, ".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True)
class _Placement:
    """Where one adapter tensor goes: `kept` on axis `axis`; None: it is unchanged."""

    axis: int = 0
    kept: KeptIndices | None = None


def recover_tensor(name: str, tensor: Tensor, masks: Masks) -> Tensor:
    """One tensor of an adapter, by its name in adapter_model.safetensors, in the base model's shape.

    `lora_A` is (rank, in), `lora_B` (out, rank). What is not on a cut axis is returned as it is. Raises
    RequestFault for a tensor that does not fit the checkpoint or cannot be recovered, and for a whole parameter: what
    it was before training has to be known (whole_parameters.py).
    """
    placement = _placement(name, tuple(tensor.shape), masks)
    if is_whole(name):
        raise RequestFault(
            f"{name} is a whole parameter, and what it was before training is not known.",
            way_out="Save the adapter, and recover its folder with the checkpoint's.",
        )
    return tensor if placement.kept is None else put_back(tensor, placement.kept, placement.axis)


def recover_state(state: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """`recover_tensor` for all tensors of an adapter."""
    return {name: recover_tensor(name, tensor, masks) for name, tensor in state.items()}


def cut_tensor(name: str, tensor: Tensor, masks: Masks) -> Tensor:
    """The opposite of `recover_tensor`: of a LoRA tensor of the base model the rows or columns that were kept."""
    layer, inside = _in_layer(name, masks)
    if layer is None:
        return tensor
    for part, axis, kept_of in ((_A, 1, masks.columns), (_B, 0, masks.rows)):
        kept = kept_of(layer, inside.removesuffix(part)) if inside.endswith(part) else None
        if kept is not None:
            return tensor.index_select(axis, kept.indices.to(tensor.device))
    return tensor


def cut_matrix(name: str, tensor: Tensor, masks: Masks) -> Tensor:
    """Of a tensor shaped like the base model's matrix `name` (out, in), as its gradient is, the entries kept."""
    module = name.removesuffix(".weight")
    return cut_tensor(f"{module}{_A}", cut_tensor(f"{module}{_B}", tensor, masks), masks)


def recovered_shape(name: str, shape: Shape, masks: Masks) -> Shape:
    """The shape that `recover_tensor` would return; raises what it would raise."""
    placement = _placement(name, shape, masks)
    if placement.kept is None:
        return shape
    return (*shape[: placement.axis], placement.kept.full, *shape[placement.axis + 1 :])


def refuse_other_layers(names: Iterable[str], masks: Masks) -> None:
    """RequestFault naming a tensor of a layer that the checkpoint does not have, whatever stands before its number."""
    for name in sorted(names):
        _in_layer(name, masks)


def put_back(tensor: Tensor, kept: KeptIndices, axis: int) -> Tensor:
    """Zeros of the full size, with `tensor`'s entries of `axis` at the kept indices."""
    shape = list(tensor.shape)
    shape[axis] = kept.full
    bits = tensor.view(torch.uint8) if tensor.itemsize == 1 else tensor  # torch cannot index floats of 8 bits
    whole = bits.new_zeros(shape).index_copy_(axis, kept.indices.to(tensor.device), bits)
    return whole.view(tensor.dtype)


def _placement(name: str, shape: Shape, masks: Masks) -> _Placement:
    layer, inside = _in_layer(name, masks)
    if layer is None:
        _refuse_unknown_part(name)
        return _Placement()
    for part in _LORA:
        if inside.endswith(part):
            return _lora_placement(name, shape, masks, (layer, inside.removesuffix(part), part))
    _refuse_whole_parameter(name, masks, layer, inside)
    return _Placement()


def _in_layer(name: str, masks: Masks) -> tuple[int | None, str]:
    """The layer and the name within it; None outside the layers. PEFT's names end with those of the modules."""
    container = re.escape(masks.prefix.rstrip(".").rpartition(".")[2])
    match = re.fullmatch(rf"(?:.+?\.)?{container}\.(\d+)\.(.+)", name)
    if match is None:
        return None, name
    if int(match[1]) >= masks.layers:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} is of layer {match[1]}, the checkpoint has layers "
            f"0 … {masks.layers - 1}."
        )
    return int(match[1]), match[2].replace(".base_layer.", ".")


def _lora_placement(name: str, shape: Shape, masks: Masks, place: tuple[int, str, str]) -> _Placement:
    layer, module, part = place
    spec = masks.spec(layer, f"{module}.weight")
    if spec is None or len(spec.shape) != 2:
        raise RequestFault(
            f"{name} is an update of something that is no single matrix, which has no recovery.",
            way_out="Train a LoRA on linear layers; of target_parameters, routers alone can be recovered.",
        )
    left_out, left_in = spec.pruned_shape(masks.counts(layer))
    if part == _A:
        _refuse_shape(name, shape, (_rank(shape, 0), left_in))
        return _Placement(1, masks.columns(layer, module))
    _refuse_shape(name, shape, (left_out, _rank(shape, 1)) if part == _B else (left_out,))
    return _Placement(0, masks.rows(layer, module))


def _rank(shape: Shape, axis: int) -> int:
    """The rank that a tensor of a LoRA has itself; at least 1, so that an empty shard never fits."""
    return max(1, shape[axis]) if len(shape) == 2 else 1


def _refuse_shape(name: str, shape: Shape, fitting: Shape) -> None:
    if shape != fitting:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} has shape {shape}, {fitting} would fit.",
            way_out="Recover it with the checkpoint it was trained on.",
        )


def _refuse_whole_parameter(name: str, masks: Masks, layer: int, inside: str) -> None:
    """A trained copy of a parameter replaces the base model's, whose removed rows nobody here knows."""
    if masks.spec(layer, inside) is None:
        raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
    if masks.cut(layer, inside) is not None:
        raise RequestFault(
            f"{name} is a whole parameter of a pruned projection (modules_to_save or bias), not an update: the rows "
            "that pruning removed would be lost from the base model.",
            way_out='Train this projection through LoRA alone, with bias="none".',
        )


def _refuse_unknown_part(name: str) -> None:
    """Outside the layers: embeddings, norms and head keep their shape, so anything but new methods may pass."""
    if ".lora_" in name and not name.endswith(_ELSEWHERE):
        raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
