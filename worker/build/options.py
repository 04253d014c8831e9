"""Options that `publisher build` and `publisher rebuild` have in common: the text, and what computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from publisher.configuration.workers import device_names

P = ParamSpec("P")
R = TypeVar("R")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Means:
    """What a build has to work with, as it was typed. `work`: the folder that keeps its stages, None for one in OUT."""

    corpora: tuple[str, ...]
    device: str
    devices: tuple[str, ...]
    tasks: Path | None
    work: Path | None


def _known_device(context: click.Context, parameter: click.Parameter, device: str) -> str:
    if not _DEVICE.fullmatch(device):
        raise click.BadParameter(f"{device!r} is none of auto, cpu, cuda, cuda:N.")
    return device


def _known_devices(context: click.Context, parameter: click.Parameter, devices: str) -> tuple[str, ...]:
    try:
        return device_names(devices)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


def means_options(command: Callable[P, R]) -> Callable[..., R]:
    """The command gets them as `means`."""

    @click.option(
        "--corpus",
        "corpora",
        multiple=True,
        metavar="NAME=PATH",
        help="Text that the recipe names; repeatable: NAME=PATH[?text_field=…&held_out_fraction=…], quoted for the "
        "shell. A dataset: NAME=hf://owner/name[@revision][?config=…&split=…].",
    )
    @click.option(
        "--device", default="auto", show_default=True, callback=_known_device, help="auto, cpu, cuda or cuda:N."
    )
    @click.option(
        "--devices",
        default="",
        metavar="cuda:0,cuda:1",
        callback=_known_devices,
        help="Devices that align together, when one has too little memory; all else runs on --device.",
    )
    @click.option(
        "--tasks",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="PUBLISHER_LM_EVAL_TASKS",
        help="Folder of lm-evaluation-harness tasks of your own that the recipe names. They may run Python.",
    )
    @click.option(
        "--work",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder that keeps finished stages for other builds. Without it they lie in OUT/.stages until OUT is "
        "whole.",
    )
    @wraps(command)
    def with_means(
        *args: Any,
        corpora: tuple[str, ...],
        device: str,
        devices: tuple[str, ...],
        tasks: Path | None,
        work: Path | None,
        **kwargs: Any,
    ) -> R:
        return command(*args, means=Means(corpora, device, devices, tasks, work), **kwargs)  # type: ignore[arg-type]

    return with_means
