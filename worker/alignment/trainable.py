"""What alignment trains: all weights but the LM head, or LoRA beside them that is merged in the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.optim import Optimizer
from transformers import PreTrainedModel

from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault
from publisher.recipe import Alignment, Trainable
from worker.alignment.sparsity import keep_removed_weights_zero
from worker.models.causal import load_causal
from worker.probe.probe import with_lora
from worker.streaming.model import decoder_layers

_ADAPTER = "default"
_CPU_COMPILERS = ("g++", "clang++", "c++")
#: numbers of sequences that go through a layer at once: of micro-batches, of a batch's last one, with and without grad
_SHAPES_OF_TEXT = 4


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
        mask = None if self._masks is None else self._masks.mask_of(name)
        mask = None if mask is None else mask.to(weight.device)
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
    if alignment.compile:
        _compile(trainable.model)
    return trainable


def checkpoint_activations(frozen: PreTrainedModel) -> None:
    """For gradients of a model that stays in inference mode, as to dropout: only its layers think that they train."""
    frozen.activation_checkpointing_enable({"use_reentrant": False})
    _, layers = decoder_layers(frozen)
    for layer in layers:
        layer.training = True


def _compile(model: PreTrainedModel) -> None:
    """Layer by layer: layers of one shape share their code, and each shape is compiled once.

    Their forward alone, so that hooks still see what comes out of them.
    """
    if model.device.type == "cpu" and not any(map(shutil.which, _CPU_COMPILERS)):
        raise RequestFault(
            "torch.compile needs a C++ compiler for a CPU, and this worker has none.",
            field="recipe.alignment.compile",
            way_out="Install g++ on the worker, or leave compile out.",
        )
    _, layers = decoder_layers(model)
    # of different widths in every layer none would be left out
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES_OF_TEXT * len(layers))
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)
