"""Taylor importance layer by layer beside one forward and backward of the whole model in memory.

    python -m tests.benchmarks.taylor_streaming [--work FOLDER] [--runs 3]

The target is a ratio of at most 1.5: doing each layer's forward twice costs a third. The time of the in-memory side
leaves out loading and scoring; that of the streaming side has both. CPU
time is shown as well, for machines that do something else beside. Both sides have the same samples and two threads;
runs alternate and medians count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from publisher.families.introspection import geometry_of
from tests.benchmarks.random_models import random_llama
from tests.benchmarks.sides import Cost, asked_side, report_side, run_side, sequences
from worker.models.head import head_of
from worker.models.measure import compute_dtype
from worker.pruning.scores import is_scored
from worker.pruning.taylor import taylor_importance
from worker.streaming.model import LayerStream
from worker.streaming.weights import read_config
from worker.training.batch_loss import NextToken

SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_hidden_layers": 12,
    "vocab_size": 32000,
    "tie_word_embeddings": True,
}
SAMPLES, LENGTH = 8, 256
_BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "taylor-streaming")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    base = random_llama(options.work / "base", torch.float32, **SIZES)
    costs: dict[str, list[Cost]] = {"in memory": [], "streaming": []}
    for _ in range(options.runs):
        for side, found in costs.items():
            found.append(compared(side, base, SAMPLES, LENGTH, "cpu"))
            print(f"{side:10} {found[-1]}", flush=True)
    for clock in ("seconds", "cpu_seconds"):
        whole, streamed = (statistics.median(getattr(cost, clock) for cost in found) for found in costs.values())
        print(
            f"median {clock} of {options.runs}: in memory {whole:.1f}, streaming {streamed:.1f}, "
            f"ratio {streamed / whole:.2f} (target: at most 1.5)"
        )


def compared(side: str, base: Path, samples: int, length: int, device: str, threads: int = 2) -> Cost:
    """`side`: "in memory" or "streaming"; each in the type that `device` computes in."""
    asked = {"side": side, "base": str(base), "samples": samples, "length": length, "device": device}
    return run_side("tests.benchmarks.taylor_streaming", asked, threads)


def in_memory(base: Path, tokens: Tensor, device: str) -> None:
    """One forward and backward of all samples, for gradients of what Taylor scores."""
    dtype = compute_dtype(device)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, device_map={"": device}).eval()
    model.requires_grad_(False)
    geometry = geometry_of(read_config(base))
    for layer in range(geometry.layers):
        for name, spec in geometry.kind(layer).parameters.items():
            if is_scored(spec):
                model.get_parameter(f"{geometry.layer_prefix}{layer}.{name}").requires_grad_()
    for parameter in model.parameters():
        parameter.sum()  # read from disk before the clock starts
    report_side(lambda: _forward_and_backward(model, tokens.to(device)), device)


def _forward_and_backward(model: Any, tokens: Tensor) -> None:
    objective = NextToken(head_of(model))
    for batch in torch.split(tokens, _BATCH):
        (objective(model, batch) / objective.positions(tokens)).backward()


def streaming(base: Path, tokens: Tensor, device: str) -> None:
    geometry = geometry_of(read_config(base))

    def work() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            stream = LayerStream(base, device, compute_dtype(device))
            taylor_importance(stream, geometry, tokens, scratch=Path(scratch), report=lambda done, total: None)

    report_side(work, device)


if __name__ == "__main__":
    side = asked_side()
    if side is None:
        main()
    else:
        base = Path(side["base"])
        tokens = sequences(side["samples"], side["length"], read_config(base)["vocab_size"])
        {"in memory": in_memory, "streaming": streaming}[side["side"]](base, tokens, side["device"])
