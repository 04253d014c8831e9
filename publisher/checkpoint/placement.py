"""Recovery: an adapter trained on the checkpoint becomes one for the base model (arXiv 2502.13533, section 3.2).

LoRA adds `B @ A` to a weight. Pruning removed rows of that weight (heads of q, k, v; neurons of gate, up), which
are rows of `B`, or columns (of o and down), which are columns of `A`. Recovery puts them back at the kept indices
with zeros between: the update of everything that was kept is unchanged, that of everything removed is zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from publisher.checkpoint.masks import KeptIndices, Masks
from publisher.errors import RequestFault

Shape = tuple[int, ...]

_IN_PROJECTION = re.compile(r"(?:.+\.)?layers\.(\d+)\.(?:self_attn|mlp)\.([a-z]+_proj)\.(.+)")
_IN_LAYER = re.compile(r"(?:.+\.)?layers\.(\d+)\.")
_LORA_A, _LORA_B, _LORA_B_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
#: A whole parameter instead of an update: `bias="lora_only"` or "all", and `modules_to_save`.
_WHOLE = ("weight", "bias", "base_layer.weight", "base_layer.bias")
_ELSEWHERE = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True)
class CheckpointShapes:
    """All that recovery knows of a checkpoint: its masks and the sizes that pruning leaves alone."""

    masks: Masks
    hidden_size: int
    layers: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], masks: Masks) -> Self:
        """Read the checkpoint's config.json."""
        return cls(masks, int(config["hidden_size"]), int(config["num_hidden_layers"]))

    def out_features(self, layer: int, projection: str) -> int:
        rows = self.masks.rows(layer, projection)
        return self._full(projection, "q_proj k_proj v_proj gate_proj up_proj") if rows is None else len(rows)

    def in_features(self, layer: int, projection: str) -> int:
        columns = self.masks.columns(layer, projection)
        return self._full(projection, "o_proj down_proj") if columns is None else len(columns)

    def _full(self, projection: str, cut: str) -> int:
        """The base model's size of an axis that pruning can cut for the projections in `cut`."""
        if projection not in cut.split():
            return self.hidden_size
        key = self.masks.kv_heads * self.masks.head_dim
        sizes = {"k_proj": key, "v_proj": key, "q_proj": key * self.masks.group_size}
        return (sizes | {"o_proj": sizes["q_proj"]}).get(projection, self.masks.neurons)


@dataclass(frozen=True)
class _Placement:
    """Where one adapter tensor goes: `kept` on axis `axis`; None: it is unchanged."""

    axis: int = 0
    kept: KeptIndices | None = None


def recover_tensor(name: str, tensor: Tensor, shapes: CheckpointShapes) -> Tensor:
    """One tensor of an adapter, by its name in adapter_model.safetensors, in the base model's shape.

    `lora_A` is (rank, in), `lora_B` (out, rank). What is not on a cut axis is returned as it is. Raises
    RequestFault for a tensor that does not fit the checkpoint or cannot be recovered.
    """
    placement = _place(name, tuple(tensor.shape), shapes)
    return tensor if placement.kept is None else put_back(tensor, placement.kept, placement.axis)


def recover_state(state: Mapping[str, Tensor], shapes: CheckpointShapes) -> dict[str, Tensor]:
    """`recover_tensor` for all tensors of an adapter."""
    return {name: recover_tensor(name, tensor, shapes) for name, tensor in state.items()}


def recovered_shape(name: str, shape: Shape, shapes: CheckpointShapes) -> Shape:
    """The shape that `recover_tensor` would return; raises what it would raise."""
    placement = _place(name, shape, shapes)
    if placement.kept is None:
        return shape
    return (*shape[: placement.axis], placement.kept.full, *shape[placement.axis + 1 :])


def put_back(tensor: Tensor, kept: KeptIndices, axis: int) -> Tensor:
    """Zeros of the full size, with `tensor`'s entries of `axis` at the kept indices."""
    shape = list(tensor.shape)
    shape[axis] = kept.full
    return tensor.new_zeros(shape).index_copy_(axis, kept.indices.to(tensor.device), tensor)


def _place(name: str, shape: Shape, shapes: CheckpointShapes) -> _Placement:
    _refuse_unknown_layer(name, shapes)
    match = _IN_PROJECTION.fullmatch(name)
    if match is None:
        _refuse_unknown_part(name)
        return _Placement()
    layer, projection, part = int(match[1]), match[2], match[3]
    rows, columns = shapes.masks.rows(layer, projection), shapes.masks.columns(layer, projection)
    match part:
        case "lora_A.weight":
            _refuse_shape(name, shape, (_rank(shape, 0), shapes.in_features(layer, projection)))
            return _Placement(1, columns)
        case "lora_B.weight":
            _refuse_shape(name, shape, (shapes.out_features(layer, projection), _rank(shape, 1)))
            return _Placement(0, rows)
        case "lora_B.bias":
            _refuse_shape(name, shape, (shapes.out_features(layer, projection),))
            return _Placement(0, rows)
    _refuse_whole_parameter(name, part, cut=rows is not None or (columns is not None and part.endswith("weight")))
    return _Placement()


def _rank(shape: Shape, axis: int) -> int:
    """The rank that a tensor of a LoRA has itself; at least 1, so that an empty shard never fits."""
    return max(1, shape[axis]) if len(shape) == 2 else 1


def _refuse_shape(name: str, shape: Shape, fitting: Shape) -> None:
    if shape != fitting:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} has shape {shape}, {fitting} would fit.",
            way_out="Recover it with the checkpoint it was trained on.",
        )


def _refuse_unknown_layer(name: str, shapes: CheckpointShapes) -> None:
    match = _IN_LAYER.match(name)
    if match and int(match[1]) >= shapes.layers:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} is of layer {match[1]}, the checkpoint has layers "
            f"0 … {shapes.layers - 1}."
        )


def _refuse_whole_parameter(name: str, part: str, *, cut: bool) -> None:
    """A trained copy of a parameter replaces the base model's, whose removed rows nobody here knows."""
    if part not in _WHOLE:
        raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
    if cut:
        raise RequestFault(
            f"{name} is a whole parameter of a pruned projection (modules_to_save or bias), not an update: the rows "
            "that pruning removed would be lost from the base model.",
            way_out='Train this projection through LoRA alone, with bias="none".',
        )


def _refuse_unknown_part(name: str) -> None:
    """Outside the projections: embeddings, norms and head keep their shape, so anything but new methods may pass."""
    if ".lora_" in name and not name.endswith(_ELSEWHERE):
        raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
