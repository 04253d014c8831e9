"""What stands beside the publisher's stages, with the same model, batches and device, each in a process of its own:
a plain transformers Trainer, Taylor's gradients by the whole model in memory, and llm-compressor where there is one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from tests.benchmarks.one_shot import llm_compressor
from tests.benchmarks.sides import Cost, run_side, sequences
from tests.benchmarks.taylor_streaming import compared
from worker.stages.calibrate import TOKENS
from worker.streaming.weights import read_config

NEXT_TOKEN, TRAINER = "next token alone", "Trainer"
STREAMING, IN_MEMORY = "Taylor alone", "Taylor in memory"


@dataclass(frozen=True)
class Sides:
    """`base` and what was `pruned` from it; `batch` sequences of `length` tokens in each of `steps`; Taylor and
    llm-compressor see `samples` sequences. `compressor`: the Python of its environment."""

    base: Path
    pruned: Path
    device: str
    threads: int
    samples: int
    length: int
    batch: int
    steps: int
    compressor: str | None = None

    def run(self, name: str) -> Cost:
        """One of `names`. Without loading the model, but for llm-compressor's."""
        if name in (NEXT_TOKEN, TRAINER):
            return self._trained("alignment" if name == NEXT_TOKEN else "Trainer")
        if name in (STREAMING, IN_MEMORY):
            side = "streaming" if name == STREAMING else "in memory"
            return compared(side, self.base, self.samples, self.length, self.device, self.threads)
        return self._compressed(name.rpartition(" ")[2])

    @property
    def names(self) -> list[str]:
        known = [NEXT_TOKEN, TRAINER, STREAMING, IN_MEMORY]
        return known + [f"llm-compressor's {each}" for each in ("wanda", "sparsegpt", "gptq") if self.compressor]

    def _trained(self, side: str) -> Cost:
        asked = {
            "side": side,
            "model": str(self.pruned),
            "steps": self.steps,
            "batch": self.batch,
            "length": self.length,
            "compile": False,
            "device": self.device,
        }
        return run_side("tests.benchmarks.align_speed", asked, self.threads)

    def _compressed(self, criterion: str) -> Cost:
        """Of the base; by GPTQ, which our reconstruction rounds by, of what was pruned."""
        assert self.compressor is not None, "is not among names"
        model = self.pruned if criterion == "gptq" else self.base
        work = self.pruned.parent / "llm-compressor"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        tokens = sequences(self.samples, self.length, read_config(model)["vocab_size"])
        save_file({"tokens": tokens.int()}, work / TOKENS)
        asked = {"model": str(model), "calibration": str(work), "criterion": criterion, "output": str(work)}
        try:
            return llm_compressor(self.compressor, asked, self.threads)
        finally:
            shutil.rmtree(work)
