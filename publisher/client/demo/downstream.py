"""The downstream user: trains an adapter on a published checkpoint and takes it to the large model.

Nothing but public tools (huggingface_hub, transformers, PEFT, PyTorch) and `publisher.checkpoint`, so that it reads
as an example. It runs in a process of its own (`python -m publisher.client.demo.downstream …`), which makes the
peak memory that it prints that of the training alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import publisher.checkpoint  # noqa: F401  lets transformers load layers of different widths
from publisher.checkpoint.framing import Framing
from publisher.checkpoint.recovery import recover_adapter

Report = Callable[[float, float, str], None]


def train(
    repo_id: str, text: Path, output: Path, *, steps: int, batch: int, length: int, device: str, report: Report
) -> dict[str, Any]:
    """Download `repo_id` from HF_ENDPOINT, train a LoRA on the documents of `text`, save it in `output`."""
    checkpoint = snapshot_download(repo_id)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, device_map={"": device})
    model = prepare_model_for_kbit_training(model)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sequences = packed(tokenizer, documents(text), length)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0))
    adapted.train()
    started = time.perf_counter()
    for step in range(steps):
        chosen = sequences[order[torch.arange(step * batch, (step + 1) * batch) % len(order)]].to(device)
        loss = adapted(input_ids=chosen, labels=chosen).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report(step + 1, steps, f"loss {loss.item():.3f}")
    seconds = time.perf_counter() - started
    adapted.save_pretrained(output / "adapter")
    recovered = recover_adapter(output / "adapter", Path(checkpoint), output / "recovered")
    report(steps, steps, f"recovered, adapter and checkpoint {recovered.provenance}")
    return {
        "loss": loss.item(),
        "tokens": steps * batch * length,
        "seconds": seconds,
        "device": device_name(device),
        "provenance": recovered.provenance,
    }


def measure(
    base: Path, adapter: Path, text: Path, *, limit: int, length: int, device: str, report: Report
) -> dict[str, Any]:
    """Perplexity on the documents of `text` of the large model, alone and with the recovered adapter: plain PEFT."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, device_map={"": device})
    windows = list(scored_windows(tokenizer, documents(text), length, limit))
    alone = perplexity(model, windows, lambda done: report(done, 2 * len(windows), "base alone"))
    adapted = PeftModel.from_pretrained(model, adapter)
    recovered = perplexity(
        adapted, windows, lambda done: report(len(windows) + done, 2 * len(windows), "base + recovered adapter")
    )
    return {"base": alone, "recovered": recovered}


def documents(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def packed(tokenizer: Any, texts: list[str], length: int) -> Tensor:
    """(sequences, length) token ids of documents joined; each sequence begins as the tokenizer begins a text."""
    return torch.tensor(list(Framing.of(tokenizer).packed((plain_ids(tokenizer, text) for text in texts), length)))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def scored_windows(tokenizer: Any, texts: list[str], length: int, limit: int) -> Iterator[Tensor]:
    """Consecutive windows of each document, (1, ≤ length) each, until `limit` tokens are scored.

    Each begins as the tokenizer begins a text (a BOS, where the family has one).
    """
    scored, framing = 0, Framing.of(tokenizer)
    before, room = list(framing.before), framing.room(length)
    for text in texts:
        ids = plain_ids(tokenizer, text)
        for start in range(0, len(ids), room):
            window = torch.tensor([(before + ids[start : start + room])[: limit - scored + 1]])
            if window.shape[1] > 1:
                scored += window.shape[1] - 1
                yield window
            if scored >= limit:
                return


@torch.inference_mode()
def perplexity(model: PreTrainedModel | PeftModel, windows: list[Tensor], report: Callable[[float], None]) -> float:
    """exp of the mean negative log-likelihood over every token of every window but its first."""
    model.eval()
    total, scored = 0.0, 0
    for number, window in enumerate(windows, 1):
        ids = window.to(model.device)
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        scored += window.shape[1] - 1
        report(number)
    return math.exp(total / scored)


def chosen_device(setting: str) -> str:
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return setting


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device == "cuda" else "the CPU"


def peak_memory_bytes(device: str) -> int:
    """The most that tensors took on the GPU; on the CPU the largest resident size that this process ever had."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _report(done: float, total: float, note: str) -> None:
    _say(done=done, total=total, note=note)


def main() -> None:
    """Speak JSON lines: {done, total, note} while working, then {result}."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train")
    trainer.add_argument("repo_id")
    trainer.add_argument("text", type=Path)
    trainer.add_argument("output", type=Path)
    for command in (trainer, meter := commands.add_parser("measure")):
        command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    for name in ("steps", "batch", "length"):
        trainer.add_argument(f"--{name}", type=int, required=True)
    for name in ("base", "adapter", "text"):
        meter.add_argument(name, type=Path)
    for name in ("limit", "length"):
        meter.add_argument(f"--{name}", type=int, required=True)
    given = vars(parser.parse_args())
    run: Callable[..., dict[str, Any]] = train if given.pop("command") == "train" else measure
    device = chosen_device(given.pop("device"))
    result = run(**given, device=device, report=_report)
    _say(result={"peak_memory_bytes": peak_memory_bytes(device), **result})


if __name__ == "__main__":
    main()
