"""One LoRA training on one device, in a process of its own: what gpu_headline, gpu_table8 and gpu_user compare.

What a user does after `import publisher.checkpoint`: from_pretrained, PEFT, AdamW over the LoRA alone. Steps are timed
between synchronisations, after two that warm up; peaks are the allocator's (of the process where there is no GPU). On a
GPU whose memory does not hold it the side answers with the error instead of figures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import publisher.checkpoint  # noqa: F401  lets transformers load layers of different widths
from tests.benchmarks.sides import asked_side, resident, run_module

_WARM_UP = 2


@dataclass(frozen=True)
class Setup:
    """`micro` sequences of `length` tokens at once, `micros` of them a step. `checkpointing`: activations are computed
    again in the backward pass. `autocast`: in bf16, as a Trainer trains with `bf16=True`."""

    model: str
    device: str
    length: int
    micro: int = 1
    micros: int = 1
    steps: int = 8
    rank: int = 8
    checkpointing: bool = True
    autocast: bool = False


@dataclass(frozen=True)
class Trained:
    """Bytes and seconds; `seconds` of the median step. `refused`: why there are no figures."""

    parameters: int = 0
    loaded: int = 0
    peak: int = 0
    reserved: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    load_seconds: float = 0.0
    refused: str | None = None


def train_lora(setup: Setup) -> Trained:
    """In a process of its own, so that its peak is its own."""
    return Trained(**json.loads(run_module("tests.benchmarks.gpu_lora", asdict(setup))))


def _train(setup: Setup) -> Trained:
    torch.manual_seed(0)
    begun = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        setup.model, dtype=torch.bfloat16, device_map={"": setup.device}, attn_implementation="sdpa"
    )
    _synchronize(setup.device)
    load_seconds, loaded = time.perf_counter() - begun, _allocated(setup.device)
    parameters = _parameters(model)
    step = training_step(with_lora(model, setup), setup, _random_tokens(model.config.vocab_size, setup))
    seconds = [_timed(step, setup.device) for _ in range(_WARM_UP + setup.steps)][_WARM_UP:]
    tokens = setup.length * setup.micro * setup.micros
    return Trained(
        parameters=parameters,
        loaded=loaded,
        peak=_peak(setup.device),
        reserved=_reserved(setup.device),
        seconds=median(seconds),
        tokens_per_second=tokens / median(seconds),
        load_seconds=load_seconds,
    )


def with_lora(model: PreTrainedModel, setup: Setup) -> nn.Module:
    """As a user makes it, on all linear layers."""
    linear = {name.rpartition(".")[2] for name, one in model.base_model.named_modules() if isinstance(one, nn.Linear)}
    lora = LoraConfig(task_type="CAUSAL_LM", r=setup.rank, lora_alpha=2 * setup.rank, target_modules=sorted(linear))
    adapted: Any = get_peft_model(model, lora)  # of a class of its own for each task
    if setup.checkpointing:
        adapted.enable_input_require_grads()
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    adapted.train()
    return adapted


def training_step(
    model: nn.Module, setup: Setup, draw: Callable[[], Tensor], *, fused: bool = True
) -> Callable[[], None]:
    """One optimizer step by AdamW on what `draw` gives, (micro, length) each time."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=fused)
    device = torch.device(setup.device).type

    def step() -> None:
        for _ in range(setup.micros):
            tokens = draw()
            with torch.autocast(device, torch.bfloat16) if setup.autocast else nullcontext():
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            (loss / setup.micros).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _random_tokens(vocabulary: int, setup: Setup) -> Callable[[], Tensor]:
    generator = torch.Generator(setup.device).manual_seed(1)
    shape = (setup.micro, setup.length)
    return lambda: torch.randint(0, vocabulary, shape, generator=generator, device=setup.device)


def _timed(step: Callable[[], None], device: str) -> float:
    begun = time.perf_counter()
    step()
    _synchronize(device)
    return time.perf_counter() - begun


def _parameters(model: PreTrainedModel) -> int:
    """Of the model, those in 4 bits by their number and not by their bytes."""
    return sum(
        weight.quant_state.shape.numel() if getattr(weight, "quant_state", None) is not None else weight.numel()
        for weight in model.parameters()
    )


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _allocated(device: str) -> int:
    return torch.cuda.memory_allocated(device) if device.startswith("cuda") else resident("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else resident("VmHWM")


def _reserved(device: str) -> int:
    return torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else resident("VmHWM")


def main() -> None:
    asked = asked_side()
    assert asked is not None, "a side of gpu_headline, gpu_table8 and gpu_user"
    setup = Setup(**asked)
    try:
        trained = _train(setup)
    except torch.cuda.OutOfMemoryError as fault:
        trained = Trained(refused=str(fault).partition(". ")[0])
    print(json.dumps(asdict(trained)))


if __name__ == "__main__":
    main()
