"""Supervised fine-tuning of a checkpoint with TRL's SFTTrainer, from top to bottom: copy it and change what you like.

What is not plain TRL and PEFT has a comment: `import publisher.checkpoint`, which lets layers of different widths load
and an adapter say what it was trained on; the mask of a checkpoint that lost single weights; an LM head in 4 bits; and
texts longer than a sequence. What is in the folder that it writes says output_folder.py.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

import publisher.checkpoint  # noqa: F401  lets transformers load layers of different widths
from publisher.checkpoint.folder import commit_of, open_checkpoint
from publisher.checkpoint.framing import Framing
from publisher.checkpoint.integrity import checked
from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.provenance import Tie
from publisher.checkpoint.recovery.folder import renamed_when_whole
from publisher.client.progress import Shown, loss_note
from publisher.client.train.examples import Examples, Kind, Row
from publisher.client.train.output_folder import (
    ADAPTER,
    CHECKPOINTS,
    LOG,
    PLOT,
    forget_after,
    logged,
    plot,
    refuse_begun,
    state_to_resume,
    write_run,
)
from publisher.client.train.refusals import linear_targets, refuse_several, refuse_too_long, refuse_unreadable
from publisher.client.train.settings import Settings, refuse_no_numbers
from publisher.errors import RequestFault, listed


@dataclass(frozen=True)
class Trained:
    """Losses are means of nats per token: `training_loss` of all steps, the others over the examples that are held out,
    None without any."""

    adapter: Path
    steps: int
    training_loss: float
    eval_loss_before: float | None
    eval_loss_after: float | None
    #: of the checkpoint: it lost single weights, so that recovery merges; its base model has a name for everybody
    merges: bool
    base_is_public: bool


def train(
    checkpoint: str,
    examples: Examples,
    output: Path,
    settings: Settings,
    shown: Shown,
    *,
    revision: str | None = None,
    save_every: int = 50,
    device: str = "auto",
    resume: bool = False,
) -> Trained:
    """Train a LoRA on `checkpoint` (a folder or repository) with `examples` (examples.py).

    `save_every`: steps from one saved state to the next. `resume`: go on from the last one, with the same batches as if
    nothing had happened. Raises RequestFault before anything is written, naming the example's line, the option or the
    folder that is wrong.
    """
    # --- everything that can be wrong, before anything is loaded or written
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    refuse_several(device)
    refuse_no_numbers(settings)
    if not resume:
        refuse_begun(output)
    folder = open_checkpoint(checkpoint, revision)
    manifest, masks = checked(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    refuse_unreadable(examples, tokenizer)
    refuse_too_long(folder, settings.length)
    run = {
        "checkpoint": asdict(tie) if (tie := Tie.of(manifest)) else str(checkpoint),
        "data": examples.sha256,
        **asdict(settings),
    }
    resumed = state_to_resume(output, run) if resume else None
    if examples.left_out:
        shown.say(f"Not used of the examples: {listed(examples.left_out)}.")

    # --- the data: TRL applies the chat template; texts are cut here, not truncated as TRL would
    _hide_bars()
    trained_on, held_out = _split(_learnable(examples, tokenizer, settings.length, shown), settings)
    if examples.kind is Kind.TEXT:
        trained_on, held_out = (list(_pieces(part, tokenizer, settings.length)) for part in (trained_on, held_out))

    # --- the model: an NF4 checkpoint loads in 4 bits by itself
    set_seed(settings.seed)
    name, commit = (checkpoint, None) if Path(checkpoint).is_dir() else (checkpoint, commit_of(folder) or revision)
    model = AutoModelForCausalLM.from_pretrained(name, revision=commit or "main", dtype="auto", device_map={"": device})
    packed_head = isinstance(model.get_output_embeddings(), Linear4bit)

    # --- the adapter
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=sorted(linear_targets(model, settings.targets)),
    )
    model = get_peft_model(model, lora)
    if masks.update_masks is not None:  # single weights were pruned: the update is zero where they were
        mask_adapter(model, folder)

    # --- the trainer, which makes its folder
    write_run(output, run)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(trained_on),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        args=SFTConfig(
            output_dir=str(output / CHECKPOINTS),
            max_length=settings.length,
            packing=settings.packing,
            per_device_train_batch_size=settings.batch,
            per_device_eval_batch_size=settings.batch,
            gradient_accumulation_steps=settings.accumulate,
            gradient_checkpointing=settings.gradient_checkpointing,
            num_train_epochs=settings.epochs,
            max_steps=settings.steps or -1,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            bf16=device == "cuda" and torch.cuda.is_bf16_supported(),
            use_cpu=device == "cpu",
            dataloader_pin_memory=device == "cuda",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=save_every,
            save_total_limit=2,
            seed=settings.seed,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    _train_in_fp32(model)
    if packed_head:  # TRL multiplies by lm_head.weight itself; of 4 bits only the module knows how
        trainer.compute_loss = MethodType(Trainer.compute_loss, trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Telling(output / LOG, shown))

    # --- train
    forget_after(output / LOG, -1 if resumed is None else int(resumed.name.rpartition("-")[2]))
    shown.started("train", time.monotonic())
    _begin(trainer, resumed, held_out, shown)
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    if held_out:
        trainer.evaluate()
    lines = logged(output / LOG)
    plot(lines, output / PLOT)
    if diverged := [line["step"] for line in lines if "loss" in line and line["loss"] is None]:
        raise RequestFault(
            f"The loss is no number since step {diverged[0]}: training diverged.",
            way_out="Train with a lower --learning-rate into another folder.",
        )
    with renamed_when_whole(output / ADAPTER) as partial:
        trainer.model.save_pretrained(partial)  # says which checkpoint it was trained on
    losses = [line["loss"] for line in lines if "loss" in line]
    eval_losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    shown.ended("train", "done")
    return Trained(
        adapter=output / ADAPTER,
        steps=trainer.state.global_step,
        training_loss=sum(losses) / len(losses),
        eval_loss_before=eval_losses[0] if held_out else None,
        eval_loss_after=eval_losses[-1] if held_out else None,
        merges=masks.update_masks is not None,
        base_is_public=manifest.base.is_public,
    )


def _hide_bars() -> None:
    """Of datasets and transformers: there is one for the whole training."""
    disable_progress_bars()
    disable_progress_bar()


def _begin(trainer: SFTTrainer, resumed: Path | None, held_out: list[Row], shown: Shown) -> None:
    """Says what takes long before the first step is there to be shown."""
    if resumed is not None:
        shown.say(f"Goes on after step {resumed.name.rpartition('-')[2]}.")
    elif held_out:
        shown.say(f"Before the first step the loss of {len(held_out)} held-out examples is measured.")
        trainer.evaluate()


def _train_in_fp32(model: nn.Module) -> None:
    """TRL makes bf16 of an adapter beside 4 bits, and resuming loads it in fp32: it would not go on as it began."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _learnable(examples: Examples, tokenizer: Any, length: int, shown: Shown) -> list[Row]:
    """Examples without those of whose completions nothing is within a sequence's `length`."""
    if examples.kind is not Kind.COMPLETION:
        return examples.rows
    prompts = (row["prompt"] for row in examples.rows)
    if examples.conversational:
        prompts = (tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts)
    lengths = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    kept = [row for row, tokens in zip(examples.rows, lengths, strict=True) if tokens < length]
    if not kept:
        raise RequestFault(
            f"All prompts have {min(lengths)} tokens and more: nothing of a completion is within {length}.",
            way_out="Make sequences longer (--length).",
        )
    if left_out := len(lengths) - len(kept):
        shown.say(f"{left_out} examples are left out: their prompts fill the {length} tokens of a sequence.")
    return kept


def _split(rows: list[Row], settings: Settings) -> tuple[list[Row], list[Row]]:
    """Trained on, and held out, chosen by the seed."""
    if not settings.eval_split:
        return rows, []
    if len(rows) < 2:
        raise RequestFault(
            "One example cannot be split into some to train on and some to evaluate with.",
            way_out="Give more, or --eval-split 0.",
        )
    number = min(max(1, round(len(rows) * settings.eval_split)), len(rows) - 1)
    chosen = set(random.Random(settings.seed).sample(range(len(rows)), number))
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


def _pieces(rows: list[Row], tokenizer: Any, length: int) -> Iterator[Row]:
    """Token ids of texts, cut where they are longer than a sequence; each begins as the tokenizer begins a text."""
    framing = Framing.of(tokenizer)
    room = framing.room(length)
    for row in rows:
        ids = [*tokenizer(row["text"], add_special_tokens=False).input_ids, *framing.close]
        for start in range(0, len(ids), room):
            yield {"input_ids": [*framing.before, *ids[start : start + room]]}


class _Telling(TrainerCallback):  # type: ignore[misc]
    """Writes what Trainer logs, and shows how far it is; stops when the loss is no number any more."""

    def __init__(self, log: Path, shown: Shown) -> None:
        self._log = log
        self._shown = shown

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **unused: Any) -> None:
        line = {"step": state.global_step, **{name: _finite(value) for name, value in logs.items()}}
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        if "loss" in line:
            self._shown.note("train", loss_note("loss", line["step"], line["loss"]) or "")
            control.should_training_stop = control.should_training_stop or line["loss"] is None

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._shown.progress("train", state.global_step, state.max_steps, "steps", time.monotonic())


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
