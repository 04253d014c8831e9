"""The publisher's side: seconds, memory and tokens per second of each stage, on a device, and what stands beside them.

    python -m tests.benchmarks.gpu_publisher --work FOLDER --out FILE [--device cuda] [--sizes 1B 3B 7B] [--tiny]
        [--llm-compressor PYTHON] [--no-sides]

Random weights of TinyLlama-1.1B's, Sheared-LLaMA-2.7B's and LLaMA-2-7B's widths, in bf16; what weights are does not
change what stages cost. Every build is a process of its own, with stages of its own, deleted when it is measured:

- pruning by Taylor, and of single weights by Wanda and SparseGPT, as far as prune;
- alignment by next token, by distillation alone, and with gradient matching, after reconstruction, whose seconds are
  said as well; then NF4.

Beside them (gpu_publisher_sides.py): alignment's loop and a plain Trainer, which train the pruned model by next token
on the same batches; Taylor and one forward and backward of the whole model; and llm-compressor's Wanda, SparseGPT and
GPTQ by the Python of an environment that has it. Trainer and Taylor's sides are timed without loading the model.

"waits" is the share of its time in which a stage stood still for data: of align, for its batches; of the others, for
weights or hidden states out of files. The GPU may still have had work meanwhile, so it is a bound from above.

MFU counts 6 operations a weight and token of the pruned model alone, at 989 TFLOP/s (H100, H200): what distillation and
gradient matching do besides lowers it, and shows as time. Floors are the least time of an H200 for the arithmetic and
for AdamW's reading and writing (`floor_of`). Gradient matching computes the pruned model in TF32, which an H200 does at
494.5 TFLOP/s: by the arithmetic its step cannot take twice the time of next token's there, but about 6 times at half
the parameters.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from publisher.architecture.widths import pruned_widths
from publisher.base_model.facts import inspect_folder
from publisher.corpus.source import CorpusSource
from publisher.families.describe import describe
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.benchmarks.gpu_models import LLAMA_2_7B, TINY, write_random
from tests.benchmarks.gpu_publisher_goals import floor_of, judge, tokens_per_second
from tests.benchmarks.gpu_publisher_sides import Sides
from tests.benchmarks.gpu_report import MIB, PEAK_FLOPS, Goals, parser, peak_heading, title, write_results
from tests.benchmarks.sides import asked_side, resident, run_module
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.align.stage import REPORT
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.streaming.model import LayerStream
from worker.streaming.states import StateStore

ONE_B: dict[str, Any] = LLAMA_2_7B | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_hidden_layers": 22,
}

THREE_B = LLAMA_2_7B | {
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
}
SIZES = {"1B": ONE_B, "3B": THREE_B, "7B": LLAMA_2_7B}
#: the recipe whose pruned model the sides train
_KEPT = "taylor"


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
    """Seconds, peaks and waiting of the stages of one build, from one stage's beginning to the next."""

    device: str
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    waited: float = 0.0
    _running: str | None = None
    _since: float = 0.0

    def begin(self, stage: str | None) -> RecordingContext:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._running is not None:
            seconds = now - self._since
            self.stages[self._running] = {"seconds": seconds, "peak": self._peak(), "waits": self.waited / seconds}
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        self._running, self._since, self.waited = stage, time.perf_counter(), 0.0
        return RecordingContext()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within, whatever waits for a layer's weights, or for hidden states out of files, is counted."""
        with ExitStack() as stack:
            for owner, name in ((LayerStream, "_fetch"), (StateStore, "get")):
                stack.enter_context(mock.patch.object(owner, name, self._timed(getattr(owner, name))))
            yield

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            begun = time.perf_counter()
            try:
                return work(*given)
            finally:
                self.waited += time.perf_counter() - begun

        return timed

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.startswith("cuda") else resident("VmHWM")


def main() -> None:
    options = _options()
    lengths = Lengths(samples=4, sequence=32, batch=128, tokens=1024) if options.tiny else Lengths()
    rows: list[dict[str, Any]] = []
    print(
        f"{title(options.device, tiny=options.tiny)}; {lengths}; memory is {peak_heading(options.device)}", flush=True
    )
    for name in ["tiny"] if options.tiny else options.sizes:
        base = options.work / f"{name}-base"
        write_random(base, TINY if options.tiny else SIZES[name], options.device)
        for row in [*_built(base, lengths, options), *([] if options.no_sides else _beside(base, lengths, options))]:
            rows.append({"model": name} | row)
            print(f"{name:5} {row['recipe']:24} {_line(row, lengths.tokens)}", flush=True)
            write_results(options.out, "publisher", options.device, rows, tiny=options.tiny)
        judge(name, {row["recipe"]: row for row in rows if row["model"] == name}, lengths.tokens, Goals(options.tiny))


def _built(base: Path, lengths: Lengths, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    text = _text(options.work / "text.jsonl", lengths.tokens)
    for kind, recipe in lengths.recipes().items():
        asked = {"base": str(base), "text": str(text), "recipe": recipe, "device": options.device}
        keep = {"keep": str(_pruned(base))} if kind == _KEPT and not options.no_sides else {}
        yield {"recipe": kind} | _tried(
            lambda asked=asked | keep: json.loads(  # type: ignore[misc]
                run_module("tests.benchmarks.gpu_publisher", asked, threads=options.threads)
            )
        )


def _beside(base: Path, lengths: Lengths, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    sides = Sides(
        base,
        _pruned(base),
        options.device,
        options.threads,
        lengths.samples,
        lengths.sequence,
        lengths.batch // lengths.sequence,
        lengths.tokens // lengths.batch,
        options.llm_compressor,
    )
    for name in sides.names:
        yield {"recipe": name} | _tried(lambda name=name: asdict(sides.run(name)))  # type: ignore[misc]
    shutil.rmtree(_pruned(base), ignore_errors=True)


def _pruned(base: Path) -> Path:
    return base.with_name(f"{base.name}-pruned")


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a process found; one that failed, for lack of memory perhaps, has said why on stderr."""
    try:
        return work()
    except (subprocess.CalledProcessError, SystemExit) as fault:
        return {"refused": str(fault).partition("\n")[0][:200]}


def _line(row: dict[str, Any], tokens: int) -> str:
    if "refused" in row:
        return f"failed: {row['refused']}"
    if "stages" not in row:
        return f"{row['seconds']:.1f} s {row['peak'] / MIB:,.0f} MiB"
    parts = [
        f"{stage} {said['seconds']:.1f} s {said['peak'] / MIB:,.0f} MiB, waits {said['waits']:.1%}"
        for stage, said in row["stages"].items()
    ]
    if speed := tokens_per_second(row):
        parts.append(f"reconstruction {row['reconstruction']:.1f} s")
        parts.append(f"{speed:,.0f} tokens/s, MFU {6 * row['parameters'] * speed / PEAK_FLOPS:.1%}")
    least = floor_of(row, tokens)
    return "; ".join([*parts, *([f"floor {least:.2f} s"] if least else [])])


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
    """One recipe as far as it leads: to prune, or by alignment to the 4-bit files; `keep`: where the pruned model is
    left."""
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
        with watch.reading():
            found = run_pipeline(request, StageStore(folder), lambda stage: watch.begin(stage.value), until)
            watch.begin(None)
        told = _of_alignment(watch, found.get(Stage.ALIGN))
        if "keep" in asked:
            shutil.rmtree(asked["keep"], ignore_errors=True)
            shutil.move(found[Stage.PRUNE] / "model", asked["keep"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    geometry = describe(json.loads((base / "config.json").read_text()))
    parameters = geometry.parameters(pruned_widths(geometry, recipe.pruning))
    return {"stages": watch.stages, "parameters": parameters, "base_parameters": geometry.parameters(), **told}


def _of_alignment(watch: Watch, folder: Path | None) -> dict[str, float]:
    """What the stage says of itself: seconds of its steps and of reconstruction; its share of waiting is of steps."""
    if folder is None:
        return {}
    said = json.loads((folder / REPORT).read_text())
    watch.stages[Stage.ALIGN.value]["waits"] = said["data_wait_share"]
    reconstruction = (said["reconstruction"] or {}).get("seconds", 0.0)
    return {"training": said["seconds"], "tokens": said["tokens"], "reconstruction": reconstruction}


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", default=["1B", "7B"], choices=list(SIZES))
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--llm-compressor", help="the Python of an environment that has it")
    options.add_argument("--no-sides", action="store_true")
    return options.parse_args()


if __name__ == "__main__":
    side = asked_side()
    if side is None:
        main()
    else:
        print(json.dumps(build(side)))
