"""Peak memory and time of NF4: tensor by tensor, beside loading the whole model with transformers, in one run.

    python -m tests.benchmarks.quantize_memory [--work FOLDER] [--layers 16]

Each way is a process of its own; the files that both wrote are compared, tensor by tensor.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tests.benchmarks.random_models import random_llama

SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "quantize-memory")
    parser.add_argument("--layers", type=int, default=16)
    options = parser.parse_args()
    base = random_llama(
        options.work / f"base-{options.layers}", torch.bfloat16, num_hidden_layers=options.layers, **SIZES
    )
    print(f"{sum(path.stat().st_size for path in base.iterdir()) / 2**20:,.0f} MiB of files", flush=True)
    folders = [options.work / way for way in ("streamed", "whole")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        print(measured(folder.name, base, folder), flush=True)
    print(f"the same tensors: {tensors(folders[0]) == tensors(folders[1])}")


def measured(way: str, base: Path, output: Path) -> str:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        before, peak, seconds = process.submit(_quantize, way, base, output).result()
    return f"{way:9} {seconds:6.1f} s, peak {peak / 2**20:7,.0f} MiB, {(peak - before) / 2**20:7,.0f} above the start"


def _quantize(way: str, base: Path, output: Path) -> tuple[int, int, float]:
    """Resident bytes before, at the peak, and seconds."""
    from worker.models.measure import current_peak, peak_memory
    from worker.quantization.nf4 import quantize_nf4, quantize_whole

    cpu = torch.device("cpu")
    with peak_memory(cpu):
        before = current_peak(cpu)
    started = time.perf_counter()
    with peak_memory(cpu) as peak:
        (quantize_nf4 if way == "streamed" else quantize_whole)(base, output, "cpu")
    return before, peak.bytes, time.perf_counter() - started


def tensors(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Name → type and sha256 of the values."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: digest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def digest(tensor: Tensor) -> tuple[str, bytes]:
    return str(tensor.dtype), hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().data).digest()


if __name__ == "__main__":
    main()
