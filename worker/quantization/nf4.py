"""NF4 with double quantization, as QLoRA has it (arXiv 2305.14314, section 3), through bitsandbytes."""

from __future__ import annotations

from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from worker.causal import load_causal
from worker.measure import compute_dtype

NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)


def quantize_nf4(model_folder: Path, output: Path, device: torch.device | str) -> None:
    """Write `model_folder` to `output` with its linear layers in 4 bits; embeddings, norms and LM head in bf16.

    `output` loads with `AutoModelForCausalLM.from_pretrained` alone: config.json says how it is quantized.
    """
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        quantization_config=NF4,
        dtype=torch.bfloat16,
        device_map={"": torch.device(device)},
        local_files_only=True,
    )
    model.save_pretrained(output)


def load_published(folder: Path, device: torch.device | str) -> PreTrainedModel:
    """A checkpoint as published, quantized or not, computing in the dtype that is best on this device."""
    model = load_causal(folder, device)
    if getattr(model, "is_loaded_in_4bit", False):
        _compute_in(model, compute_dtype(device))
    return model


def _compute_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """transformers leaves a quantized model's other weights in the dtype that they were saved in.

    On CPUs with bf16 instructions bitsandbytes repacks 4-bit weights at the first inference, and fails for widths
    that are not a multiple of 64, as pruned ones seldom are (537 of 1,536 neurons): its plain path takes any width.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = dtype
            module.support_avx512bf16_for_cpu = False
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
