"""Where a LoRA trained on the checkpoint goes in the base model (arXiv 2502.13533, section 3.2).

LoRA adds `B @ A` to a weight. Pruning removed rows of that weight (heads of q, k, v; neurons of gate, up; experts of
a router), which are rows of `B`, or columns (of o and down), which are columns of `A`. Recovery puts them back at
the kept indices with zeros between: the update of everything that was kept is unchanged, that of everything removed
is zero. Which rows and columns those are, the masks know for every family.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import KeptIndices, PruningMasks
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.scatter import put_back
from publisher.checkpoint.recovery.whole_parameters import refuse_cut
from publisher.errors import RequestFault

NAMING = Naming((".lora_",))
#: The parts of a LoRA on a linear layer, after the module's name.
A, B, B_BIAS = _LORA = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias")
EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
_ELSEWHERE = (*_LORA, EMBEDDING_A, EMBEDDING_B)

#: the axis of an adapter's tensor that lost entries, and those that are left; None: it is unchanged
_Cut = tuple[int, KeptIndices] | None


def recover_tensor(name: str, tensor: Tensor, masks: PruningMasks) -> Tensor:
    """One tensor of a LoRA, by its name in adapter_model.safetensors, in the base model's shape.

    `lora_A` is (rank, in), `lora_B` (out, rank). What is not on a cut axis is returned as it is. Raises
    RequestFault for a tensor that does not fit the checkpoint or cannot be recovered, and for a whole parameter: what
    it was before training has to be known (whole_parameters.py).
    """
    cut = _cut(name, tuple(tensor.shape), masks)
    if NAMING.is_whole(name):
        raise RequestFault(
            f"{name} is a whole parameter, and what it was before training is not known.",
            way_out="Save the adapter, and recover its folder with the checkpoint's.",
        )
    return tensor if cut is None else put_back(tensor, cut[1], cut[0])


def recover_state(state: Mapping[str, Tensor], masks: PruningMasks) -> dict[str, Tensor]:
    """`recover_tensor` for all tensors of a LoRA."""
    return {name: recover_tensor(name, tensor, masks) for name, tensor in state.items()}


def cut_tensor(name: str, tensor: Tensor, masks: PruningMasks) -> Tensor:
    """The opposite of `recover_tensor`: of a LoRA tensor of the base model the rows or columns that were kept."""
    for part, axis in ((A, 1), (B, 0)):
        found = masks.parameter(_weight(name, part)) if name.endswith(part) else None
        kept = None if found is None else found.along(axis)
        if kept is not None:
            return tensor.index_select(axis, kept.indices.to(tensor.device))
    return tensor


def cut_matrix(name: str, tensor: Tensor, masks: PruningMasks) -> Tensor:
    """Of a tensor shaped like the base model's matrix `name` (out, in), as its gradient is, the entries kept."""
    module = name.removesuffix(".weight")
    return cut_tensor(f"{module}{A}", cut_tensor(f"{module}{B}", tensor, masks), masks)


def recovered_shape(name: str, shape: Shape, masks: PruningMasks) -> Shape:
    """The shape that `recover_tensor` would return; raises what it would raise, but takes whole parameters."""
    cut = _cut(name, shape, masks)
    if cut is None:
        return shape
    axis, kept = cut
    return (*shape[:axis], kept.full, *shape[axis + 1 :])


def _cut(name: str, shape: Shape, masks: PruningMasks) -> _Cut:
    if masks.layer_of(name) is None:
        _refuse_unknown_part(name)
        return None
    part = next((part for part in _LORA if name.endswith(part)), None)
    if part is None:
        refuse_cut(name, masks, "LoRA")
        return None
    return _cut_of_factor(name, shape, part, masks)


def _cut_of_factor(name: str, shape: Shape, part: str, masks: PruningMasks) -> _Cut:
    found = masks.parameter(_weight(name, part))
    if found is None or len(found.full) != 2:
        raise RequestFault(
            f"{name} is an update of something that is no single matrix, which has no recovery.",
            way_out="Train a LoRA on linear layers; of target_parameters, routers alone can be recovered.",
        )
    left_out, left_in = found.left
    if part == A:
        _refuse_shape(name, shape, (_rank(shape, 0), left_in))
    else:
        _refuse_shape(name, shape, (left_out, _rank(shape, 1)) if part == B else (left_out,))
    axis = 1 if part == A else 0
    kept = found.along(axis)
    return None if kept is None else (axis, kept)


def _weight(name: str, part: str) -> str:
    """What the module that a factor adapts calls its matrix."""
    return name.removesuffix(part).replace(".base_layer", "") + ".weight"


def _rank(shape: Shape, axis: int) -> int:
    """The rank that a tensor of a LoRA has itself; at least 1, so that an empty shard never fits."""
    return max(1, shape[axis]) if len(shape) == 2 else 1


def _refuse_shape(name: str, shape: Shape, fitting: Shape) -> None:
    if shape != fitting:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} has shape {shape}, {fitting} would fit.",
            way_out="Recover it with the checkpoint it was trained on.",
        )


def _refuse_unknown_part(name: str) -> None:
    """Outside the layers: embeddings, norms and head keep their shape, so anything but new methods may pass."""
    if not NAMING.is_whole(name) and not name.endswith(_ELSEWHERE):
        raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
