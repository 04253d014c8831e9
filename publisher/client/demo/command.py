"""`publisher demo`: register a model, plan, make a variant, use it as a downstream user would, print one table."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from publisher.client.exit_codes import Exit
from publisher.client.extras import require


@click.command()
@click.option(
    "--data",
    "data_dir",
    default=Path("data/demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder that keeps the model, the text and the service's data",
)
@click.option("--prepare", is_flag=True, help="only make the model and the text, and stop")
@click.option("--keep", is_flag=True, help="leave the service running at the end, until Ctrl-C")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="what the worker and the downstream user compute on; auto: a GPU if there is one",
)
def demo(data_dir: Path, prepare: bool, keep: bool, device: str) -> None:
    """The product's main job on a real model (SmolLM2-135M-Instruct), start to finish, on this machine."""
    # a stop that is asked for, by whatever signal, takes the service along
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    for extra in ("train", "service", "demo"):
        require(extra)
    try:
        from publisher.client.demo.run import run

        run(data_dir.absolute(), console, prepare=prepare, keep=keep, device=device)
    except KeyboardInterrupt:  # by now the service and whoever was at work are gone
        console.print("\nStopped. The same command goes on from what is finished.")
        sys.exit(Exit.STOPPED)
