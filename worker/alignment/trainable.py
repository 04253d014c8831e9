"""What alignment trains: all weights but the LM head, or LoRA beside them that is merged in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.optim import Optimizer
from transformers import PreTrainedModel

from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.merging import merged_weight
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.recipe import Alignment, Trainable
from worker.alignment.sparsity import keep_removed_weights_zero
from worker.causal import load_causal
from worker.evaluation.probe import with_lora

_ADAPTER = "default"


class AllWeights:
    """fp32 master weights. Tied embeddings are the LM head's own tensor, so they stay frozen with it."""

    def __init__(self, pruned: Path, device: torch.device, masks: WeightMasks | None) -> None:
        self.model = load_causal(pruned, device, torch.float32)
        self.model.get_output_embeddings().requires_grad_(False)
        self._masks = masks

    def trained_by(self, optimizer: Optimizer) -> None:
        """Weights that were pruned one by one stay zero, whatever `optimizer` does."""
        if self._masks is not None:
            keep_removed_weights_zero(self.model, self._masks, optimizer)

    def merged(self) -> PreTrainedModel:
        """The trained model. Nothing is trained after it."""
        return self.model


class LowRank:
    """LoRA on all linear layers of the decoder, in fp32, beside frozen weights in the dtype the device computes in.

    With masks of single weights its update is masked, in training as when it is merged.
    """

    def __init__(self, pruned: Path, device: torch.device, masks: WeightMasks | None, rank: int) -> None:
        self._adapter: PeftModel = with_lora(load_causal(pruned, device), rank)
        self._masks = masks
        if masks is not None:
            mask_adapter(self._adapter, masks)
        self.model: PreTrainedModel = self._adapter.get_base_model()

    def trained_by(self, optimizer: Optimizer) -> None:
        """Nothing to do: pruned weights are frozen, and updates masked."""

    @torch.no_grad()
    def merged(self) -> PreTrainedModel:
        """The model without LoRA, its updates added in fp32 and rounded once. Nothing is trained after it."""
        for name, layer in self.model.named_modules():
            if isinstance(layer, LoraLayer):
                self._merge(f"{name}.weight", layer)
        merged: PreTrainedModel = self._adapter.unload()
        return merged

    def _merge(self, name: str, layer: Any) -> None:
        weight = layer.get_base_layer().weight
        mask = None
        if self._masks is not None and name in self._masks:
            mask = self._masks.mask(name).to(weight.device)
        weight.copy_(merged_weight(weight, layer.get_delta_weight(_ADAPTER), mask))


def load_trainable(
    alignment: Alignment, pruned: Path, device: torch.device, masks: WeightMasks | None
) -> AllWeights | LowRank:
    """The pruned model, ready to be trained as the recipe says; `masks` if single weights were pruned."""
    trainable = (
        LowRank(pruned, device, masks, alignment.rank)
        if alignment.trainable is Trainable.LOW_RANK
        else AllWeights(pruned, device, masks)
    )
    if alignment.activation_checkpointing:
        trainable.model.activation_checkpointing_enable({"use_reentrant": False})
    return trainable
