"""Whether a LoRA can be trained on a model here: an estimate from shapes, before anything is loaded."""

from __future__ import annotations

import torch

from publisher.architecture.geometry import Geometry
from publisher.architecture.sparsity import is_projection
from publisher.recipe import ProbeBudget
from worker.models.device import is_gpu
from worker.models.measure import compute_dtype
from worker.training.batch_loss import rows_at_once
from worker.training.objective import LOGITS_AT_ONCE

_FP32 = 4
#: Logits, their gradient and a copy of them in the making.
_LOGIT_BUFFERS = 3
#: Kept for the way back of each token: 1.94 to 1.96 times what the linear maps put out, counted on Llamas.
_OUTPUTS_KEPT = 2
#: Of that, with what is made on the way and what the allocator holds on to. SmolLM2-135M on the CPU: 2,961 MiB
#: estimated, 2,831 measured. CUDA's allocator wastes less.
_OF_KEPT, _OF_KEPT_ON_GPU = 3.0, 1.25
#: The process itself, with its libraries; a GPU's memory holds none of it.
_PROCESS = 2**29


def of_kept(device: torch.device | str) -> float:
    """What training takes of the values that it keeps for the way back."""
    return _OF_KEPT_ON_GPU if is_gpu(device) else _OF_KEPT


def lora_memory(geometry: Geometry, budget: ProbeBudget, device: torch.device) -> int:
    """Bytes to train the probe's LoRA on the whole base model: weights in the dtype that `device` computes in, the
    adapter with gradient and AdamW moments in fp32, and what one micro-batch keeps for the way back."""
    width = compute_dtype(device).itemsize
    tokens = rows_at_once(device, budget.sequence_length) * budget.sequence_length
    sides, _ = _projections(geometry)
    return (
        (0 if is_gpu(device) else _PROCESS)
        + geometry.parameters() * width
        + budget.rank * sides * 4 * _FP32
        + int(tokens * kept_values(geometry) * width * of_kept(device))
        + _LOGIT_BUFFERS * LOGITS_AT_ONCE * _FP32
    )


def kept_values(geometry: Geometry) -> int:
    """Values that one token leaves in all layers for the way back."""
    return _OUTPUTS_KEPT * _projections(geometry)[1]


def _projections(geometry: Geometry) -> tuple[int, int]:
    """Over all layers: inputs and outputs of the linear maps that get a LoRA, and the outputs that one token makes."""
    sides = outputs = 0
    at_work = set(range(geometry.experts_per_token))
    for layer in range(geometry.layers):
        for name, spec in geometry.kind(layer).tensors.items():
            if is_projection(name, spec):
                sides += sum(spec.shape) if spec.expert is None else 0
                outputs += spec.shape[0] if spec.expert is None or spec.expert in at_work else 0
    return sides, outputs
