"""Which files hold a model's weights: one, or several with an index, as transformers names and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher.errors import RequestFault
from publisher.files.json_object import read_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def weight_map(index: Mapping[str, Any], where: str, fault: type[RequestFault] = RequestFault) -> dict[str, str]:
    """Tensor → file beside the index, of an index file's content. `where` names it for people; raises `fault`."""
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise fault(f"{where} is not an index of weights: it has no weight_map of tensor names to files.")
    outside = sorted(name for name in placed.values() if not _is_file_name(name))
    if outside:
        raise fault(
            f"{where} names {outside[0]!r}, which is not a file beside it.",
            way_out="Put every shard beside the index, and name it there without a folder.",
        )
    return placed


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..") and not {"\\", "\0"} & {*name}


def read_index(folder: Path) -> dict[str, str] | None:
    """Tensor → file; None where there is one file, which transformers prefers to an index. Raises RequestFault."""
    path = folder / INDEX_FILE
    if (folder / SINGLE_FILE).exists() or not path.exists():
        return None
    return weight_map(read_object(path), str(path))


def weight_files(folder: Path) -> list[Path]:
    """The shards in order of their names, or the single file, which need not be there. Raises RequestFault."""
    index = read_index(folder)
    return [folder / name for name in sorted(set(index.values()) if index is not None else {SINGLE_FILE})]
