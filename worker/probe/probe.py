"""The probe: a small LoRA trained on the published checkpoint, to measure what carries over to the base model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.manifest.evaluation import ProbeTraining
from publisher.recipe import ProbeBudget
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.models.measure import peak_memory
from worker.quantization.nf4 import load_published
from worker.training.batch_loss import NextToken, accumulate_gradients
from worker.training.schedule import Schedule

_WARMUP_FRACTION = 0.1
_GRADIENT_NORM = 1.0

#: (finished steps, loss of the last one in nats per token)
OnStep = Callable[[int, float], None]


def train_probe(
    checkpoint: Path,
    sequences: Tensor,
    budget: ProbeBudget,
    output: Path,
    *,
    device: torch.device,
    seed: int,
    on_step: OnStep,
    check: Callable[[], None],
    masks: WeightMasks | None = None,
) -> ProbeTraining:
    """Train a LoRA on all linear layers of the decoder in `checkpoint` and save it, as PEFT does, in `output`.

    `sequences` (n, sequence_length) are gone through in an order that `seed` decides, again and again if the
    budget asks for more than n. `check` is called before each part of a step and may raise. With `masks` the update
    is masked, as the model's weights are.
    """
    torch.manual_seed(seed)
    started = time.perf_counter()
    with peak_memory(device) as peak:
        adapter = with_lora(load_published(checkpoint, device), budget.rank)
        if masks is not None:
            mask_adapter(adapter, masks)
        _train(adapter, _batches(sequences, budget, seed).to(device), budget, on_step, check)
        adapter.save_pretrained(output, save_embedding_layers=False)
    return ProbeTraining(
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak.bytes,
        tokens=budget.steps * budget.batch_size * sequences.shape[1],
    )


def load_with_adapter(
    base: Path, adapter: Path, device: torch.device, masks: WeightMasks | None = None
) -> PreTrainedModel:
    """The base model with an adapter for it on top, through PEFT and nothing else but the masks."""
    adapted = PeftModel.from_pretrained(load_causal(base, device), adapter, torch_device=str(device))
    if masks is not None:
        mask_adapter(adapted, masks)
    model: PreTrainedModel = adapted.eval().get_base_model()
    return model


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """All but the LM head, by name: what adapters go on."""
    head = model.get_output_embeddings()
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }


def with_lora(model: PreTrainedModel, rank: int) -> PeftModel:
    """A new LoRA on all linear layers of the decoder, B zero.

    They are named one by one: PEFT's "all-linear" takes the fused experts of a mixture along, as parameters, and what
    is trained there cannot be recovered.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(linear_layers(model)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _batches(sequences: Tensor, budget: ProbeBudget, seed: int) -> Tensor:
    """int32 (steps, batch_size, sequence_length)."""
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(seed))
    index = torch.arange(budget.steps * budget.batch_size) % len(order)
    return sequences[order[index]].view(budget.steps, budget.batch_size, -1)


def _train(
    adapter: PeftModel, batches: Tensor, budget: ProbeBudget, on_step: OnStep, check: Callable[[], None]
) -> None:
    schedule = Schedule(budget.steps, budget.batch_size, budget.learning_rate, _WARMUP_FRACTION)
    trained = [weight for weight in adapter.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0, fused=True)
    model = adapter.train().get_base_model()
    objective = NextToken(head_of(model))
    for step, batch in enumerate(batches):
        optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(model, objective, batch, check)
        torch.nn.utils.clip_grad_norm_(trained, _GRADIENT_NORM)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        optimizer.step()
        on_step(step + 1, loss)
