"""`publisher train`: options of sft.py, which is the example to copy."""

from __future__ import annotations

import os
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.client.extras import require
from publisher.client.progress import shown_on
from publisher.client.train.examples import read_examples

if TYPE_CHECKING:
    from publisher.client.train.sft import Trained

_POSITIVE = click.IntRange(min=1)


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--data", required=True, metavar="FILE", type=click.Path(path_type=Path), help="JSON Lines to train on.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder that does not exist yet.")
@click.option("--revision", help="Commit, branch or tag of the checkpoint's repository.")
@click.option("--rank", type=_POSITIVE, default=16, show_default=True, help="Rank of the LoRA.")
@click.option("--alpha", type=float, default=32, show_default=True, help="Its alpha: the update is times alpha / rank.")
@click.option(
    "--target", "targets", multiple=True, metavar="NAME", help="A linear layer, as q_proj; may be repeated. [all]"
)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), help="Times through the examples. [1]")
@click.option("--steps", type=_POSITIVE, help="In place of --epochs: steps of the optimizer.")
@click.option("--batch", type=_POSITIVE, default=4, show_default=True, help="Sequences at a time.")
@click.option("--accumulate", type=_POSITIVE, default=4, show_default=True, help="Batches for one step.")
@click.option("--length", type=click.IntRange(min=2), default=512, show_default=True, help="Tokens of a sequence.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=2e-4, show_default=True)
@click.option("--packing", is_flag=True, help="Several examples in one sequence, none of which sees another.")
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing",
    default=True,
    show_default=True,
    help="Less memory, more time.",
)
@click.option(
    "--eval-split",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the examples to evaluate with, before and after; 0: none.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-every", type=_POSITIVE, default=50, show_default=True, metavar="STEPS", help="To resume from.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on in OUTPUT, where a training with these options was stopped.")
def train(
    *,
    checkpoint: str,
    data: Path,
    output: Path,
    revision: str | None,
    epochs: float | None,
    steps: int | None,
    save_every: int,
    device: str,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a LoRA on CHECKPOINT, a folder or repository, with the examples in FILE.

    FILE is .jsonl or .jsonl.gz, an object a line: "messages", "prompt" and "completion", or "text". Of prompts nothing
    is learned; texts that are longer than a sequence are cut, other examples truncated.

    It is TRL's SFTTrainer: publisher/client/train/sft.py shows how, for what these options do not say.
    """
    if epochs is not None and steps is not None:
        raise click.UsageError("--epochs and --steps both say when to stop: choose one.")
    require("train")
    # read when huggingface_hub is imported: TRL would count trainings there
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # of names that go with transformers 6, which TRL uses
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from rich.console import Console

    examples = read_examples(data)  # before what takes seconds to import
    from publisher.client.train import sft
    from publisher.client.train.output_folder import RUN
    from publisher.client.train.settings import Settings

    chosen = Settings(epochs=1.0 if epochs is None else epochs, steps=steps, **settings)
    try:
        with shown_on(Console(stderr=True)) as shown:
            trained = sft.train(
                checkpoint,
                examples,
                output,
                chosen,
                shown,
                revision=revision,
                save_every=save_every,
                device=device,
                resume=resume,
            )
    except KeyboardInterrupt as stopped:
        if (output / RUN).is_file():
            click.echo("The same command with --resume goes on from what was saved.", err=True)
        raise click.Abort from stopped
    click.echo(_account(trained, checkpoint, revision, output))


def _account(trained: Trained, checkpoint: str, revision: str | None, output: Path) -> str:
    """What was learned, and the command that comes next."""
    held_out = ""
    if trained.eval_loss_before is not None:
        held_out = (
            f"Loss on what was held out: {trained.eval_loss_before:.3f} before, {trained.eval_loss_after:.3f} after\n"
        )
    options = ["--revision", revision] if revision else []
    recover = ["publisher", "recover", str(trained.adapter), "--checkpoint", checkpoint, *options]
    base = " --base DIR" if trained.merges else "" if trained.base_is_public else " --base DIR_OR_REPO"
    return (
        f"Trained {trained.steps} steps, mean loss {trained.training_loss:.3f}\n{held_out}"
        f"Adapter: {trained.adapter}\n\n"
        f"{shlex.join([*recover, '--output', str(output / 'recovered')])}{base}"
    )
