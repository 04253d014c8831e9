"""Whether a LoRA can be trained on a model here: an estimate from shapes, before anything is loaded."""

from __future__ import annotations

import torch

from publisher.architecture import Geometry
from publisher.architecture.sparsity import is_projection
from publisher.recipe import ProbeBudget
from worker.alignment.batch_loss import rows_at_once
from worker.alignment.objective import LOGITS_AT_ONCE
from worker.measure import compute_dtype

_FP32 = 4
#: Logits, their gradient and a copy of them in the making.
_LOGIT_BUFFERS = 3
#: Kept for the way back, of each layer: what goes into norms, attention and the linear maps, as wide as the model …
_HIDDEN_KEPT = 8
#: … and what comes out of the linear maps, with what the activation function makes of it.
_OUTPUTS_KEPT = 2


def lora_memory(geometry: Geometry, budget: ProbeBudget, device: torch.device) -> int:
    """Bytes to train the probe's LoRA on the whole base model: weights in the dtype that `device` computes in, the
    adapter with gradient and AdamW moments in fp32, and what one micro-batch keeps for the way back."""
    width = compute_dtype(device).itemsize
    tokens = rows_at_once(device, budget.sequence_length) * budget.sequence_length
    sides, outputs = _projections(geometry)
    kept = _OUTPUTS_KEPT * outputs + _HIDDEN_KEPT * geometry.hidden_size * geometry.layers
    return (
        geometry.parameters() * width
        + budget.rank * sides * 4 * _FP32
        + tokens * kept * width
        + _LOGIT_BUFFERS * LOGITS_AT_ONCE * _FP32
    )


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
