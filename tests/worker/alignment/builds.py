"""A tiny alignment to run: in this process, or as a program of its own that can be killed.

    python -m tests.worker.alignment.builds FOLDER OUTPUT [ALIGNMENT]

prints a line after each step. ALIGNMENT is JSON: what differs from the recipe below.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import publisher.checkpoint  # noqa: F401 - layers of different widths
from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks, save_masks
from publisher.corpus.source import CorpusSource
from publisher.errors import JobCancelled
from publisher.recipe import Recipe
from tests.models import tiny_llama
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.align import stage as align
from worker.stages.inputs import AlignInputs
from worker.streaming.weights import read_geometry

#: what the narrower model would have kept
KEPT = {(1, Unit.NEURONS): tuple(range(4, 28)), (2, Unit.KV_HEADS): (1,)}
#: what goes on one device alone, left out
AS_SEVERAL_DEVICES = {"quantization_aware": False, "gradient_matching": 0}
STEPS, BATCH_TOKENS, LENGTH = 12, 64, 32


@dataclass
class PrintingContext(RecordingContext):
    def progress(self, done: float, total: float, unit: str) -> None:
        super().progress(done, total, unit)
        print(f"{done:.0f}/{total:.0f} {unit}", flush=True)


@dataclass
class CancellingContext(RecordingContext):
    """Cancels at a check after `steps` steps: the first is between steps, the next ones before micro-batches."""

    steps: int = 0
    checks: int = 0

    def check(self) -> None:
        if sum(name == "loss" for name, _, _ in self.metrics) < self.steps:
            return
        self.checks -= 1
        if self.checks < 0:
            raise JobCancelled("cancelled by the test.")


def prepare(folder: Path, *, tied: bool = False, dropout: float = 0.1) -> AlignInputs:
    """A base model, a narrower one in its place of the pruned one, and a corpus. Dropout makes chance matter."""
    common = {"tie_word_embeddings": tied, "attention_dropout": dropout}
    tiny_llama(folder / "base", **common)
    narrow = {"1": {"intermediate_size": 24}, "2": {"num_attention_heads": 2, "num_key_value_heads": 1}}
    tiny_llama(folder / "pruned", seed=1, per_layer_config=narrow, head_dim=8, **common)
    geometry = read_geometry(folder / "base")
    save_masks(Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix), inputs_in(folder).masks)
    lines = (json.dumps({"text": f"chapter {number}: " + "the whale swims " * (number % 70)}) for number in range(200))
    (folder / "sea.jsonl").write_text("\n".join(lines))
    return inputs_in(folder)


def inputs_in(folder: Path) -> AlignInputs:
    return AlignInputs(base=folder / "base", pruned=folder / "pruned", masks=folder / "pruning_masks.safetensors")


def request(folder: Path, **alignment: object) -> BuildRequest:
    recipe = {
        "pruning": {"ratio": 0.5, "criterion": "random"},
        "alignment": {
            "corpora": [{"name": "sea"}],
            "tokens": STEPS * BATCH_TOKENS,
            "batch_tokens": BATCH_TOKENS,
            "sequence_length": LENGTH,
            "learning_rate": 1e-3,
            "reconstruction_tokens": 0,
        }
        | alignment,
    }
    return BuildRequest(
        base=BaseModelSource(repo_id=str(folder / "base"), revision="0", path=folder / "base"),
        recipe=Recipe.model_validate(recipe),
        corpora={"sea": CorpusSource(name="sea", path=folder / "sea.jsonl")},
    )


def main(folder: Path, output: Path, alignment: str = "{}") -> None:
    torch.set_num_threads(1)
    align.run(request(folder, **json.loads(alignment)), inputs_in(folder), output, PrintingContext(), save_seconds=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
