"""Of the publisher's stages: the least time that an H200 needs, and whether goals were met by a run's own figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.gpu_publisher_sides import IN_MEMORY, NEXT_TOKEN, STREAMING, TRAINER
from tests.benchmarks.gpu_report import PEAK_FLOPS, Goals, floor

#: of an H200 (and H100) in TF32, dense, by its data sheet; in units of bf16 operations
_TF32 = PEAK_FLOPS / 494.5e12
#: bytes of AdamW a weight and step: fp32 weight and two moments read and written, the gradient read and clipped
_ADAMW = 6 * 4 + 3 * 4

Rows = Mapping[str, Mapping[str, Any]]


def tokens_per_second(row: Mapping[str, Any]) -> float | None:
    """Of the steps of alignment."""
    return row["tokens"] / row["training"] if row.get("training") else None


def floor_of(row: Mapping[str, Any], tokens: int, batch: int = 8192) -> float | None:
    """Seconds for the steps of an alignment of `tokens` at the least; None of what is not trained.

    2 operations a weight and token forward and 4 backward. By next token the pruned model goes through that once, by
    distillation the base model forward as well; matching gradients takes the base model backward, too, and the pruned
    model twice, in TF32.
    """
    if not row.get("training"):
        return None
    pruned, base = row["parameters"] * tokens, row["base_parameters"] * tokens
    operations = {
        "next token": 6 * pruned,
        "distillation": 6 * pruned + 2 * base,
        "gradient matching": 2 * 6 * pruned * _TF32 + 6 * base,
    }[row["recipe"]]
    return floor(operations, row["parameters"] * _ADAMW * max(1, tokens // batch))


def judge(name: str, rows: Rows, tokens: int, goals: Goals) -> None:
    """`rows` of one model by recipe or side."""
    whole: Rows = {recipe: {} if "refused" in row else row for recipe, row in rows.items()}
    _trainer(name, whole, goals)
    _alignment(name, whole, tokens, goals)
    _pruning(name, whole, goals)


def _trainer(name: str, rows: Rows, goals: Goals) -> None:
    ours, theirs = rows.get(NEXT_TOKEN), rows.get(TRAINER)
    if not ours or not theirs:
        goals.missing(f"{name}: next token beside a Trainer")
        return
    goals.say(
        f"{name}: tokens a second by next token, of the Trainer's", theirs["seconds"] / ours["seconds"], least=1.3
    )
    goals.say(f"{name}: peak by next token, of the Trainer's", ours["peak"] / theirs["peak"], most=0.5)


def _alignment(name: str, rows: Rows, tokens: int, goals: Goals) -> None:
    plain, matched = rows.get("next token"), rows.get("gradient matching")
    if not plain or not matched:
        goals.missing(f"{name}: gradient matching beside next token")
        return
    speed = tokens_per_second(plain) or 0.0
    if name != "7B":
        goals.say(f"{name}: MFU by next token", 6 * plain["parameters"] * speed / PEAK_FLOPS, least=0.35)
    step = speed / (tokens_per_second(matched) or 1.0)
    floors = floor_of(matched, tokens), floor_of(plain, tokens)
    possible = floors[0] / floors[1] if floors[0] and floors[1] else None
    goals.say(f"{name}: time of a step with gradient matching, of next token's", step, most=2, possible=possible)


def _pruning(name: str, rows: Rows, goals: Goals) -> None:
    pruned, matched, gptq = rows.get("taylor"), rows.get("gradient matching"), rows.get("llm-compressor's gptq")
    if pruned and matched:
        seconds = sum(stage["seconds"] for stage in pruned["stages"].values()) + matched["reconstruction"]
        goals.say(f"{name}: minutes to prune and reconstruct", seconds / 60, most=10)
    if gptq and matched:
        share = matched["reconstruction"] / gptq["seconds"]
        goals.say(f"{name}: time to reconstruct and round by GPTQ, of llm-compressor's GPTQ", share, most=1)
    for criterion in ("wanda", "sparsegpt"):
        ours, theirs = rows.get(criterion), rows.get(f"llm-compressor's {criterion}")
        if ours and theirs:
            seconds = sum(stage["seconds"] for stage in ours["stages"].values())
            print(f"{name}: {criterion} takes {seconds / theirs['seconds']:.2f} of llm-compressor's time")
    streaming, in_memory = rows.get(STREAMING), rows.get(IN_MEMORY)
    if streaming and in_memory:
        goals.say(f"{name}: time of Taylor, of that in memory", streaming["seconds"] / in_memory["seconds"], most=1.5)
