"""The folder that PEFT saves an adapter in, and the one that recovery writes: there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from publisher.checkpoint.provenance import KEY, PLACE
from publisher.checkpoint.recovery.written_by import without_unsaved_biases
from publisher.errors import RequestFault
from publisher.files.disk import full_disk_as_fault
from publisher.weights.folder import opened

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"

#: what to do about a full disk
OTHER_DISK = "Free space there, or name a folder on a larger disk; nothing was written."


def read_config(adapter: Path) -> dict[str, Any]:
    path = adapter / CONFIG
    if not path.is_file():
        raise RequestFault(f"{adapter} has no {CONFIG}; it is not a PEFT adapter.{_named_adapters(adapter)}")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RequestFault(
            f"{path} is not JSON: {error}.", way_out="Save the adapter with model.save_pretrained."
        ) from error
    if not isinstance(config, dict):
        raise RequestFault(f"{path} is not a JSON object.")
    if config.get("bias") == "lora_only" and (adapter / WEIGHTS).is_file():
        return without_unsaved_biases(config, opened(adapter / WEIGHTS).keys())
    return config


def write_config(adapter: Path, config: Mapping[str, Any]) -> None:
    """Patterns of ranks and alphas keep their order: the first that fits a module is its own."""
    (adapter / CONFIG).write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n", encoding="utf-8")


def _named_adapters(folder: Path) -> str:
    """PEFT saves an adapter that is not named `default` in a folder of that name."""
    found = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    return f" There are adapters in its folders {', '.join(found)}." if found else ""


def weights_file(adapter: Path) -> Path:
    path = adapter / WEIGHTS
    if path.is_file():
        return path
    if (adapter / _PICKLE).is_file():
        raise RequestFault(
            f"{adapter / _PICKLE} is a pickle, which can run code when it is read.",
            way_out=f"Save the adapter with safe_serialization=True, as {WEIGHTS}.",
        )
    raise RequestFault(f"{adapter} has no {WEIGHTS}.")


def for_base_model(
    config: Mapping[str, Any], base_model: str, revision: str | None, record: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config of the same adapter on the base model.

    `record`: what it was recovered from, in place of what it was trained on (publisher.checkpoint.provenance).
    """
    return _recorded(dict(config) | {"base_model_name_or_path": base_model, "revision": revision}, record)


def _recorded(config: dict[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    place = config.get(PLACE)
    kept = {key: value for key, value in place.items() if key != KEY} if isinstance(place, dict) else {}
    mapping = kept if record is None else {**kept, KEY: dict(record)}
    return config | {PLACE: mapping or None}


def refuse_occupied(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestFault(f"{output} already holds something.", way_out="Name a folder that does not exist yet.")


def _made_beside(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.parent / f".{output.name}.{secrets.token_hex(8)}"
        partial.mkdir()  # with the mode that the umask gives, which tempfile's would not have
        return partial
    except OSError as error:
        raise RequestFault(
            f"{output} cannot be made: {error.strerror} ({error.filename}).", way_out="Name a folder that can be."
        ) from error


@contextmanager
def renamed_when_whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` (so on the same disk) that takes its name at the end, or vanishes: then what a full disk
    made libraries raise is OutOfDisk."""
    partial = _made_beside(output)
    try:
        with full_disk_as_fault(str(output), output.parent, OTHER_DISK):
            yield partial
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
