"""Alignment's training loop beside a plain transformers Trainer: tokens per second and peak memory.

    python -m tests.benchmarks.align_speed [--model FOLDER] [--steps 10] [--runs 3]

`--model` is a pruned checkpoint (a build's `model` folder); without it one of SmolLM2-135M's sizes is made, with random
weights, and pruned at 0.65. Targets: at least 1.15 × the Trainer's tokens per second, at no higher a peak. Both sides
train all weights but the LM head by next token with fused AdamW, on the same batches of whole sequences, in a
process of their own with as many threads; weights are fp32, and so are products, on a GPU bf16 by autocast; loading the
model is not counted. Runs alternate and medians count; CPU time
is shown as well, for machines that do something else beside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from publisher.recipe import Alignment
from tests.benchmarks.builds import build_until_prune
from tests.benchmarks.random_models import random_llama
from tests.benchmarks.sides import Cost, asked_side, report_side, run_side, sequences
from worker.alignment.optimizers import make_optimizer
from worker.alignment.trainable import load_trainable
from worker.alignment.training import Training
from worker.context import RecordingContext
from worker.models.head import head_of
from worker.training.batch_loss import NextToken
from worker.training.schedule import Schedule

#: SmolLM2-135M
SIZES: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
PRUNING = {"criterion": "random", "ratio": 0.65, "protect_first": 3, "protect_last": 2}
TARGET, RATE = 1.15, 1e-4
ALIGNMENT = Alignment.model_validate({"corpora": [{"name": "text"}], "learning_rate": RATE})


def main() -> None:
    options = _options()
    model = options.model or _pruned(options.work)
    costs: dict[str, list[Cost]] = {"Trainer": [], "alignment": []}
    for _ in range(options.runs):
        for side, found in costs.items():
            arguments = {
                "side": side,
                "model": str(model),
                "steps": options.steps,
                "batch": options.batch,
                "length": options.length,
                "compile": options.compile,
                "device": options.device,
            }
            found.append(run_side("tests.benchmarks.align_speed", arguments, options.threads))
            print(f"{side:9} {found[-1]}", flush=True)
    _compare(costs, options.steps * options.batch * options.length)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "align-speed")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="with the recipe's compile; compiling is not counted")
    return parser.parse_args()


def _pruned(work: Path) -> Path:
    folder = work / "pruned"
    if not (folder / "model").exists():
        build_until_prune(random_llama(work / "base", torch.float32, **SIZES), folder, PRUNING)
    return folder / "model"


def _compare(costs: dict[str, list[Cost]], tokens: int) -> None:
    for clock in ("seconds", "cpu_seconds"):
        theirs, ours = (statistics.median(getattr(cost, clock) for cost in found) for found in costs.values())
        print(
            f"tokens per {clock.removesuffix('s')}: Trainer {tokens / theirs:.0f}, alignment {tokens / ours:.0f}, "
            f"ratio {theirs / ours:.2f} (target: at least {TARGET})"
        )
    theirs, ours = (statistics.median(cost.peak for cost in found) for found in costs.values())
    print(f"peak: {ours / 2**20:,.0f} MiB : {theirs / 2**20:,.0f} MiB = {ours / theirs:.2f} (target: at most 1)")


def align_side(model: PreTrainedModel, batches: Tensor, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Training(
            model,
            make_optimizer(model, ALIGNMENT),
            NextToken(head_of(model)),
            batches,
            schedule=Schedule(steps, len(batches) // steps, RATE, warmup_fraction=0.1),
            context=RecordingContext(),
            state_file=Path(folder) / "training.safetensors",
            save_seconds=3600,
        ).run()


def trainer_side(model: PreTrainedModel, batches: Tensor, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=len(batches) // steps,
            learning_rate=RATE,
            weight_decay=0.0,
            optim="adamw_torch_fused",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=model.device.type == "cpu",
            bf16=model.device.type == "cuda",
            dataloader_pin_memory=False,
        )
        rows = [{"input_ids": row, "labels": row} for row in batches.long()]
        Trainer(model=model, args=arguments, train_dataset=rows).train()  # type: ignore[arg-type]


def run_asked(arguments: dict[str, Any]) -> None:
    device = torch.device(arguments["device"])
    ours = arguments["side"] == "alignment"
    alignment = ALIGNMENT.model_copy(update={"compile": ours and arguments["compile"]})
    model = load_trainable(alignment, Path(arguments["model"]), device, None).model
    steps = arguments["steps"]
    batches = sequences(steps * arguments["batch"], arguments["length"], model.config.vocab_size)
    work = align_side if ours else trainer_side
    if device.type == "cuda":  # whose first step loads kernels
        work(model, batches[: arguments["batch"]], 1)
    elif alignment.compile:
        align_side(model, batches[:1], 1)
    report_side(lambda: work(model, batches, steps), str(device))


if __name__ == "__main__":
    asked = asked_side()
    if asked is None:
        main()
    else:
        run_asked(asked)
