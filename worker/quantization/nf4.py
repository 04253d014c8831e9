"""NF4 with double quantization, as QLoRA has it (arXiv 2305.14314, section 3), through bitsandbytes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.utils import logging as transformers_logging

from publisher.loading.four_bit_everywhere import FourBitEverywhereConfig
from publisher.loading.four_bit_modules import FourBitTable, dense, is_misread
from publisher.loading.notice import with_notice
from worker.context import RecordingContext, StageContext
from worker.models.causal import load_causal
from worker.models.measure import compute_dtype
from worker.quantization.streamed import targets_of, write_quantized
from worker.storage.folder import write_json
from worker.streaming.model import empty_model
from worker.streaming.weights import read_config

_GENERATION = "generation_config.json"

NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)


def scheme_of(model_folder: Path, *, include_embeddings: bool = False, bf16: Sequence[str] = ()) -> BitsAndBytesConfig:
    """For the model in `model_folder`, whose linear layers named in `bf16` stay in bf16."""
    if include_embeddings:
        return FourBitEverywhereConfig(llm_int8_skip_modules=list(bf16))
    if not bf16:
        return NF4
    # who names modules has to name those as well that transformers leaves alone when none are named
    model = empty_model(AutoConfig.from_pretrained(model_folder, local_files_only=True), torch.bfloat16)
    skipped = [*sorted(get_keys_to_not_convert(model)), *bf16]
    return BitsAndBytesConfig(**NF4.to_dict() | {"llm_int8_skip_modules": skipped})


def quantize_nf4(
    model_folder: Path,
    output: Path,
    device: torch.device | str,
    context: StageContext | None = None,
    *,
    include_embeddings: bool = False,
    bf16: Sequence[str] = (),
) -> None:
    """Write `model_folder` to `output` with its linear layers in 4 bits; in bf16 those named in `bf16`, norms, and
    embeddings and LM head, unless they are included.

    `output` loads with `AutoModelForCausalLM.from_pretrained`: config.json says how it is quantized. With 4-bit
    embeddings only after `import publisher.checkpoint`. The memory of a few blocks of a tensor is enough, but for
    families whose linear layers are stored otherwise than they are computed: those are loaded whole.
    """
    context = context or RecordingContext()
    scheme = scheme_of(model_folder, include_embeddings=include_embeddings, bf16=bf16)
    targets = targets_of(model_folder, scheme)
    if targets is None:
        context.log("This family's linear layers are put together when they are loaded: quantizing the model whole.")
        quantize_whole(model_folder, output, device, scheme)
        return
    output.mkdir(exist_ok=True)
    write_quantized(targets, output, torch.device(device), context)
    _write_configs(model_folder, output, scheme)


def _write_configs(model_folder: Path, output: Path, scheme: BitsAndBytesConfig) -> None:
    """config.json that says how the weights are quantized, and the generation config where there is one."""
    config = read_config(model_folder)
    config.pop("torch_dtype", None)  # what `dtype` was called
    quantized = config | {"dtype": "bfloat16", "quantization_config": scheme.to_dict()}
    write_json(output / "config.json", with_notice(quantized))
    if (model_folder / _GENERATION).exists():
        shutil.copyfile(model_folder / _GENERATION, output / _GENERATION)


def quantize_whole(
    model_folder: Path, output: Path, device: torch.device | str, scheme: BitsAndBytesConfig = NF4
) -> None:
    """The same by transformers' own loading and saving, which holds the whole model in memory."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        quantization_config=scheme,
        dtype=torch.bfloat16,
        device_map={"": torch.device(device)},
        local_files_only=True,
    )
    model.save_pretrained(output)


def _forward(module: Linear4bit, states: Tensor) -> Tensor:
    """In place of bitsandbytes', which would compute with other values (`is_misread`)."""
    return functional.linear(states, dense(module.weight, states.dtype), module.bias)


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
            if is_misread(module.weight):
                module.forward = partial(_forward, module)
        elif isinstance(module, FourBitTable):
            module.table_dtype = dtype
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
