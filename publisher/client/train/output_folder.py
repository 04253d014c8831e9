"""The folder of a training: what it is of, what it has logged, and the last state that it can be resumed from.

OUTPUT/run.json       checkpoint, data and settings, which --resume compares
OUTPUT/checkpoints/   Trainer's, to resume from: adapter, optimizer, random states
OUTPUT/log.jsonl      what Trainer logs, a line each, and OUTPUT/loss.png of it
OUTPUT/adapter/       what was trained, there when it is whole
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from publisher.checkpoint.recovery.folder import refuse_occupied
from publisher.errors import RequestFault

CHECKPOINTS, LOG, RUN, PLOT, ADAPTER = "checkpoints", "log.jsonl", "run.json", "loss.png", "adapter"


def refuse_begun(output: Path) -> None:
    if (output / RUN).is_file():
        raise RequestFault(
            f"{output} holds a training already.", way_out="--resume goes on with it; or name another folder."
        )
    refuse_occupied(output)


def write_run(output: Path, run: Mapping[str, Any]) -> None:
    """At once, so that who is killed here is either resumed or has begun nothing."""
    output.mkdir(parents=True, exist_ok=True)
    partial = output / f".{RUN}"
    partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    partial.replace(output / RUN)


def state_to_resume(output: Path, run: Mapping[str, Any]) -> Path | None:
    """The last state in `output` that was saved whole, None without any. RequestFault if it is of another run."""
    if (output / ADAPTER).exists():
        raise RequestFault(f"{output / ADAPTER} is there: this training has ended.", way_out="Recover it.")
    if not (output / RUN).is_file():
        raise RequestFault(
            f"{output} holds no training to resume: it has no {RUN}.",
            way_out="Leave out --resume, with a folder that does not exist yet.",
        )
    before = json.loads((output / RUN).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(run))
    for key in now:
        if before.get(key) != now[key]:
            raise RequestFault(
                f"The training in {output} is of another {key.replace('_', ' ')}: {before.get(key)}, not {now[key]}.",
                way_out="Give the same options and data to resume it, or another --output.",
            )
    saved = sorted((output / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return next((path for path in reversed(saved) if _is_whole(path)), None)


def _is_whole(saved: Path) -> bool:
    """Trainer writes trainer_state.json last: without it, or with half of it, it was killed while saving."""
    try:
        json.loads((saved / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def logged(path: Path) -> list[dict[str, Any]]:
    """A line that was cut off when a process was killed is the last one, and left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def forget_after(path: Path, step: int) -> None:
    """What was logged of steps that a resumed training takes again."""
    kept = [line for line in logged(path) if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    for name, style in (("loss", "-"), ("eval_loss", "o")):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " ")) if points else None
    axes.set(xlabel="step", ylabel="nats per token")
    axes.legend()
    figure.savefig(path)
