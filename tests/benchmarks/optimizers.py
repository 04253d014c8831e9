"""The recipe's optimizers side by side: held-out perplexity, tokens per second, bytes of the optimizer's state.

    python -m tests.benchmarks.optimizers --base FOLDER --pruned FOLDER --corpora sea.jsonl land.jsonl \\
        [--optimizers adamw muon] [--rates 1e-4 3e-4] [--objective language_model] [--tokens 200000]

`--base` and `--pruned` are a model and its structured pruning (a build's `model` folder), best one with reconstructed
layers (of a build with `"tokens": 0`), which training starts from by default; nothing is rounded to 4 bits. The first
corpus is trained on, all are measured, on their held-out documents. Every optimizer runs with each rate, and its best
is repeated in the end: one rate does not fit all, since Adafactor's is relative to the weights and projected updates
are smaller. Runs are the align stage itself, one after the other in this process.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from publisher.corpus.source import CorpusSource, Split
from publisher.recipe import Objective, Optimizer, Recipe, Trainable
from worker.context import RecordingContext
from worker.evaluation.perplexity import cut_windows, perplexity
from worker.models.causal import load_causal
from worker.request import BaseModelSource, BuildRequest
from worker.stages.align import stage as align
from worker.stages.inputs import AlignInputs


@dataclass(frozen=True)
class Row:
    optimizer: str
    rate: float
    perplexities: tuple[float, ...]
    tokens_per_second: float
    state_bytes: int

    def __str__(self) -> str:
        perplexities = " ".join(f"{value:9.2f}" for value in self.perplexities)
        return (
            f"{self.optimizer:18} {self.rate:8.0e} {perplexities} {self.tokens_per_second:8.0f} tokens/s "
            f"{self.state_bytes / 2**20:9.1f} MiB"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    corpora = [CorpusSource(name=f"corpus-{n}", path=path) for n, path in enumerate(options.corpora)]
    for name, folder in (("base", options.base), ("pruned", options.pruned)):
        print(name, " ".join(f"{value:.2f}" for value in _perplexities(folder, corpora, options)), flush=True)
    rows = list(_rows(corpora, options))
    print("\nbest rate of each:")
    for optimizer in options.optimizers:
        print(min((row for row in rows if row.optimizer == optimizer), key=_first_perplexity))


def _first_perplexity(row: Row) -> float:
    return math.inf if math.isnan(row.perplexities[0]) else row.perplexities[0]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pruned", type=Path, required=True)
    parser.add_argument("--masks", type=Path, help="where they are not beside the folder --pruned")
    parser.add_argument("--corpora", type=Path, nargs="+", required=True)
    parser.add_argument("--optimizers", nargs="+", choices=list(Optimizer), default=list(Optimizer))
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--objective", choices=list(Objective), default=Objective.LANGUAGE_MODEL)
    parser.add_argument("--trainable", choices=list(Trainable), default=Trainable.ALL)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence")
    parser.add_argument("--held-out-tokens", type=int, default=16_384)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "optimizers")
    return parser.parse_args(arguments)


def _rows(corpora: list[CorpusSource], options: argparse.Namespace) -> Iterator[Row]:
    for optimizer in options.optimizers:
        for rate in options.rates:
            row = _run(Optimizer(optimizer), rate, corpora, options)
            print(row, flush=True)
            yield row


def _run(optimizer: Optimizer, rate: float, corpora: list[CorpusSource], options: argparse.Namespace) -> Row:
    shutil.rmtree(options.work, ignore_errors=True)
    masks = options.masks or options.pruned.parent / "pruning_masks.safetensors"
    inputs = AlignInputs(base=options.base, pruned=options.pruned, masks=masks)
    request = BuildRequest(
        base=BaseModelSource(str(options.base), "0", options.base),
        recipe=_recipe(optimizer, rate, corpora[0].name, options),
        corpora={corpus.name: corpus for corpus in corpora},
        device=options.device,
    )
    align.run(request, inputs, options.work, RecordingContext(), save_seconds=3600)
    report = json.loads((options.work / align.REPORT).read_bytes())
    perplexities = _perplexities(options.work / "model", corpora, options)
    return Row(optimizer, rate, perplexities, report["tokens_per_second"], report["optimizer_state_bytes"])


def _recipe(optimizer: Optimizer, rate: float, corpus: str, options: argparse.Namespace) -> Recipe:
    alignment = {
        "corpora": [{"name": corpus}],
        "tokens": options.tokens,
        "batch_tokens": options.batch_tokens,
        "sequence_length": options.length,
        "learning_rate": rate,
        "optimizer": optimizer,
        "objective": options.objective,
        "trainable": options.trainable,
        "rank": options.rank,
        "reconstruction_tokens": 0,
        "quantization_aware": False,
        "gradient_matching": 0,
    }
    return Recipe.model_validate({"pruning": {"ratio": 0.5, "criterion": "random"}, "alignment": alignment})


def _perplexities(folder: Path, corpora: list[CorpusSource], options: argparse.Namespace) -> tuple[float, ...]:
    """On each corpus, of fp32 weights."""
    model = load_causal(folder, options.device, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    return tuple(
        perplexity(
            model,
            cut_windows(corpus.documents(Split.HELD_OUT), tokenizer, options.length, options.held_out_tokens),
            lambda windows: None,
        )
        for corpus in corpora
    )


if __name__ == "__main__":
    main()
