"""Recovery of an adapter folder: reads what PEFT saved, writes a stock PEFT adapter for the base model.

The tensors themselves are placement.py's business; `recover_state` is it for adapters in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from publisher.checkpoint import masks as masks_file
from publisher.checkpoint.adapter_config import for_base_model, refuse_unrecoverable
from publisher.checkpoint.manifest import Manifest
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.placement import recover_state, recover_tensor, recovered_shape
from publisher.checkpoint.streaming import Entry, write_tensors
from publisher.errors import RequestFault

__all__ = ["RecoveryReport", "recover_adapter", "recover_folder", "recover_state", "recover_tensor"]

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


@dataclass(frozen=True)
class RecoveryReport:
    """`widened` of `tensors` got rows or columns back; `trained_on` is what the adapter's own config names."""

    output: Path
    base_model: str
    revision: str | None
    trained_on: str | None
    tensors: int
    widened: int
    parameters_before: int
    parameters_after: int


def recover_adapter(adapter: Path, checkpoint: Path, output: Path, *, base_model: str | None = None) -> RecoveryReport:
    """Make the LoRA in folder `adapter`, trained on `checkpoint`, into one for the base model, in `output`.

    The recovered adapter names `base_model` (a repository or folder) as its base, by default the one that the
    manifest names, pinned to its commit.

    Writes a stock PEFT adapter, one tensor in memory at a time, under a temporary name beside `output` and renames
    it when whole. Raises RequestFault, having written nothing, if the adapter does not fit the checkpoint, cannot be
    recovered exactly, or `output` already holds something.
    """
    manifest = Manifest.read(checkpoint)
    masks = masks_file.load_masks(checkpoint / masks_file.FILE_NAME)
    if base_model is not None:
        return recover_folder(adapter, output, masks, base_model, None)
    return recover_folder(adapter, output, masks, manifest.base.repo_id, manifest.base.commit)


def recover_folder(adapter: Path, output: Path, masks: Masks, base_model: str, revision: str | None) -> RecoveryReport:
    """`recover_adapter` for a checkpoint that has no manifest yet."""
    _refuse_occupied(output)
    config = _read_config(adapter)
    refuse_unrecoverable(config)
    with _renamed_when_whole(output) as folder:
        before, after = _recover_weights(_weights(adapter), folder / _WEIGHTS, masks)
        recovered_config = for_base_model(config, base_model, revision)
        (folder / _CONFIG).write_text(json.dumps(recovered_config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return RecoveryReport(
        output=output,
        base_model=base_model,
        revision=revision,
        trained_on=config.get("base_model_name_or_path"),
        tensors=len(before),
        widened=sum(before[name] != after[name] for name in before),
        parameters_before=sum(map(prod, before.values())),
        parameters_after=sum(map(prod, after.values())),
    )


def _recover_weights(
    source: Path, target: Path, masks: Masks
) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Stream the tensors; returns their shapes before and after, by name. All are checked before any is written."""
    with _opened(source) as file:
        names = sorted(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        before = {name: tuple(part.get_shape()) for name, part in slices.items()}
        if not any(".lora_" in name for name in names):
            raise RequestFault(f"{source} has no LoRA tensor.")
        after = {name: recovered_shape(name, shape, masks) for name, shape in before.items()}
        entries = [Entry(name, slices[name].get_dtype(), after[name]) for name in names]
        write_tensors(target, entries, lambda name: recover_tensor(name, file.get_tensor(name), masks))
    return before, after


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise RequestFault(f"{path} is not a whole safetensors file: {error}.") from error


def _read_config(adapter: Path) -> dict[str, Any]:
    path = adapter / _CONFIG
    if not path.is_file():
        raise RequestFault(f"{adapter} has no {_CONFIG}; it is not a PEFT adapter.{_named_adapters(adapter)}")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise RequestFault(f"{path} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise RequestFault(f"{path} is not a JSON object.")
    return config


def _named_adapters(folder: Path) -> str:
    """PEFT saves an adapter that is not named `default` in a folder of that name."""
    found = sorted(path.parent.name for path in folder.glob(f"*/{_CONFIG}"))
    return f" There are adapters in its folders {', '.join(found)}." if found else ""


def _weights(adapter: Path) -> Path:
    path = adapter / _WEIGHTS
    if path.is_file():
        return path
    if (adapter / _PICKLE).is_file():
        raise RequestFault(
            f"{adapter / _PICKLE} is a pickle, which can run code when it is read.",
            way_out=f"Save the adapter with safe_serialization=True, as {_WEIGHTS}.",
        )
    raise RequestFault(f"{adapter} has no {_WEIGHTS}.")


def _refuse_occupied(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestFault(f"{output} already holds something.", way_out="Name a folder that does not exist yet.")


@contextmanager
def _renamed_when_whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` (so on the same disk) that takes its name at the end, or vanishes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
