"""The publisher's side: seconds, memory and tokens per second of each stage, on a device.

    python -m tests.benchmarks.gpu_publisher --work FOLDER --out FILE [--device cuda] [--sizes 1B 7B] [--tiny]

Random weights of TinyLlama-1.1B's and LLaMA-2-7B's widths, in bf16; what weights are does not change what stages cost.
Every build is a process of its own, with stages of its own, deleted when it is measured:

- pruning by Taylor, and of single weights by Wanda and SparseGPT, as far as prune;
- alignment by next token, by distillation alone, and with gradient matching, after reconstruction, whose seconds are
  within align's; then NF4.

MFU counts 6 operations a weight and token of the pruned model alone, at 989 TFLOP/s (H100, H200): what distillation and
gradient matching do besides lowers it, and shows as time. Goals: distillation with gradient matching at most twice the
time of next token; MFU of next token at least 35 %; 7B pruned and reconstructed within ten minutes. Beside a plain
Trainer: tests.benchmarks.align_speed, on the same device.

The least time, from the arithmetic alone: Taylor's 32 sequences of 512 tokens on 7B take 6 operations a weight and
token, 0.7 s, and reading 13.5 GB twice; aligning 1B at 0.5 by 131,072 tokens 0.5 s, 7B 2.7 s.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from publisher.architecture.widths import pruned_widths
from publisher.base_model.facts import inspect_folder
from publisher.corpus.source import CorpusSource
from publisher.families.describe import describe
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.benchmarks.gpu_models import LLAMA_2_7B, TINY, write_random
from tests.benchmarks.gpu_report import MIB, device_name, write_results
from tests.benchmarks.sides import asked_side, resident, run_module
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

PEAK_FLOPS = 989e12
ONE_B: dict[str, Any] = LLAMA_2_7B | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_hidden_layers": 22,
}


@dataclass(frozen=True)
class Lengths:
    """Tokens and sequences of every build."""

    samples: int = 32
    sequence: int = 512
    batch: int = 8192
    tokens: int = 131_072

    def recipes(self) -> dict[str, dict[str, Any]]:
        calibration = {"corpus": "text", "samples": self.samples, "sequence_length": self.sequence}
        pruning = {"ratio": 0.5, "calibration": calibration}
        single = {"method": "unstructured", "ratio": 0.5, "calibration": calibration}
        align = {
            "corpora": [{"name": "text"}],
            "tokens": self.tokens,
            "sequence_length": self.sequence,
            "batch_tokens": self.batch,
        }
        return {
            "taylor": {"pruning": pruning},
            "wanda": {"pruning": single | {"criterion": "wanda"}},
            "sparsegpt": {"pruning": single | {"criterion": "sparsegpt"}},
            "next token": {"pruning": pruning, "alignment": align | {"objective": "language_model"}},
            "distillation": {"pruning": pruning, "alignment": align | {"gradient_matching": 0}},
            "gradient matching": {"pruning": pruning, "alignment": align},
        }


@dataclass
class Watch:
    """Seconds and peaks of the stages of one build, from one stage's beginning to the next."""

    device: str
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    _running: str | None = None
    _since: float = 0.0

    def begin(self, stage: str | None) -> RecordingContext:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._running is not None:
            self.stages[self._running] = {"seconds": now - self._since, "peak": self._peak()}
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        self._running, self._since = stage, time.perf_counter()
        return RecordingContext()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.startswith("cuda") else resident("VmHWM")


def main() -> None:
    options = _options()
    lengths = Lengths(samples=4, sequence=32, batch=128, tokens=1024) if options.tiny else Lengths()
    models = {"tiny": TINY} if options.tiny else {"1B": ONE_B, "7B": LLAMA_2_7B}
    rows: list[dict[str, Any]] = []
    print(f"{device_name(options.device)}, torch {torch.__version__}; {lengths}")
    for name in models if options.tiny else options.sizes:
        base = options.work / f"{name}-base"
        write_random(base, models[name], options.device)
        text = _text(options.work / "text.jsonl", lengths.tokens)
        for kind, recipe in lengths.recipes().items():
            asked = {"base": str(base), "text": str(text), "recipe": recipe, "device": options.device}
            found = json.loads(run_module("tests.benchmarks.gpu_publisher", asked, threads=options.threads))
            rows.append({"model": name, "recipe": kind} | found)
            print(f"{name:5} {kind:18} {_line(found, lengths.tokens)}", flush=True)
            write_results(options.out, "publisher", options.device, rows)


def _line(found: dict[str, Any], tokens: int) -> str:
    parts = [
        f"{stage} {said['seconds']:.1f} s {said['peak'] / MIB:,.0f} MiB" for stage, said in found["stages"].items()
    ]
    if "align" in found["stages"]:
        speed = tokens / found["stages"]["align"]["seconds"]
        parts.append(f"{speed:,.0f} tokens/s, MFU {6 * found['parameters'] * speed / PEAK_FLOPS:.1%}")
    return "; ".join(parts)


def _text(path: Path, tokens: int) -> Path:
    """Enough for every build; the tokenizer has one token a byte. A tenth is held out."""
    lines = (
        json.dumps({"text": f"chapter {number}: the whale swims, the sea is wide. " * 20}) for number in range(2000)
    )
    if not path.exists():
        found, size = [], 0
        for line in lines:
            found.append(line)
            size += len(line)
            if size > 2 * tokens:
                break
        path.write_text("\n".join(found) + "\n")
    return path


def build(asked: dict[str, Any]) -> dict[str, Any]:
    """One recipe as far as it leads: to prune, or by alignment to the 4-bit files."""
    defaults = {"alignment": None, "evaluation": None, "quantization": {"scheme": "nf4"}}
    recipe = Recipe.model_validate(defaults | asked["recipe"])
    base, text = Path(asked["base"]), Path(asked["text"])
    facts = inspect_folder(base)
    request = BuildRequest(
        base=BaseModelSource(facts.repo_id, facts.revision, facts.path),
        recipe=recipe,
        corpora={"text": CorpusSource(name="text", path=text)},
        device=asked["device"],
    )
    folder, watch = base.parent / "stages", Watch(asked["device"])
    until = Stage.PRUNE if recipe.alignment is None else Stage.QUANTIZE
    try:
        run_pipeline(request, StageStore(folder), lambda stage: watch.begin(stage.value), until)
        watch.begin(None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    geometry = describe(json.loads((base / "config.json").read_text()))
    return {"stages": watch.stages, "parameters": geometry.parameters(pruned_widths(geometry, recipe.pruning))}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", nargs="+", default=["1B", "7B"], choices=["1B", "7B"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    side = asked_side()
    if side is None:
        main()
    else:
        print(json.dumps(build(side)))
