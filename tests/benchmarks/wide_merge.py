"""A LoRA trained on a pruned 70B: recovered, and merged into layers of the whole one's widths, beside `cp` of those.

    python -m tests.benchmarks.wide_merge --work FOLDER [--layers 4] [--runs 3] [--threads 2] [--tiny]

Random weights of LLaMA-2-70B's widths in bf16, `--layers` of its 80, pruned at 0.85, with a LoRA of rank 8 on every
linear layer. "merge" is `publisher merge` with the recovered adapter. The target is that of merge_speed: 0.5 or more of
cp's speed, in bytes of the base model per second, page cache warm. No GPU takes part. The least time: every byte is
read once and written once, as cp does.
Disk: twice 1.7 GB a layer and 1 GB.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.recovery import recover_folder
from publisher.checkpoint.recovery.merge_adapter import merge_adapter
from tests.benchmarks.copy_speed import alternate, show
from tests.benchmarks.gpu_models import LLAMA_2_70B, TINY, geometry_of, widths_at, write_random
from tests.benchmarks.gpu_report import Goals

RATIO, RANK, TARGET = 0.85, 8, 0.5


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    config = (TINY if options.tiny else LLAMA_2_70B) | {"num_hidden_layers": options.layers}
    base = options.work / "base"
    write_random(base, config, "cpu")
    sides = sides_of(base, config, options.work)
    found = alternate(sides, options.work, options.runs)
    show(found, sum(path.stat().st_size for path in base.glob("*.safetensors")))
    Goals(options.tiny).say("speed of merge, of cp's", median(found["cp"]) / median(found["merge"]), least=TARGET)


def sides_of(base: Path, config: Mapping[str, Any], work: Path) -> dict[str, Callable[[Path], object]]:
    """What is done to `base`, by name; each takes the folder that it may write into."""
    geometry = geometry_of(config)
    widths = widths_at(geometry, RATIO, protect_first=0, protect_last=0)
    masks, adapter, recovered = _masks(geometry, widths), work / "adapter", work / "recovered"
    _write_adapter(adapter, geometry, widths)
    if not recovered.is_dir():
        recover_folder(adapter, recovered, masks, str(base), None)
    return {
        "cp": lambda output: subprocess.run(["cp", "-r", str(base), str(output / "copy")], check=True),
        "recover": lambda output: recover_folder(adapter, output / "recovered", masks, str(base), None),
        "merge": lambda output: merge_adapter(base, recovered, output / "merged"),
    }


def _masks(geometry: Geometry, widths: Sequence[LayerWidths]) -> Masks:
    """Of units chosen at random."""
    chance = torch.Generator().manual_seed(0)
    kept: dict[tuple[int, Unit], list[int]] = {}
    for layer, width in enumerate(widths):
        for unit, count in ((Unit.KV_HEADS, width.kv_heads), (Unit.NEURONS, width.neurons)):
            every = torch.randperm(geometry.kind(layer).units[unit], generator=chance)
            kept[layer, unit] = every[:count].sort().values.tolist()
    return Masks(geometry.kinds, geometry.kind_of, kept, geometry.layer_prefix)


def _write_adapter(folder: Path, geometry: Geometry, widths: Sequence[LayerWidths]) -> None:
    """As PEFT saves a LoRA of the pruned model."""
    shapes = geometry.tensor_shapes(widths)
    linear = {
        name.removesuffix(".weight"): shape for name, shape in shapes.items() if _is_linear(geometry, name, shape)
    }
    targets = sorted({name.rpartition(".")[2] for name in linear})
    LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=targets).save_pretrained(folder)
    tensors = {}
    for name, (rows, columns) in linear.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(RANK, columns) / columns**0.5
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, RANK) / 100
    save_file(tensors, folder / "adapter_model.safetensors")


def _is_linear(geometry: Geometry, name: str, shape: tuple[int, ...]) -> bool:
    return name.startswith(geometry.layer_prefix) and len(shape) == 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
