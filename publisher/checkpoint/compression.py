"""`"storage": "compressed"`: of a weight that lost single entries, the files hold only those that were kept.

A kept weight is a 1-D tensor under the weight's own name, row by row. Which entries they are says the masks file,
which the index of the weights names as one more file of the model, so that whatever downloads the model gets it. At
ratio 0.5 and bf16 that is 0.5625 of the bytes. `publisher.checkpoint` teaches transformers to expand it
(sparse_loading.py); without it loading fails, and says why (notice.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from publisher.architecture.masks_file import FILE_NAME as MASKS_FILE
from publisher.checkpoint.weight_masks import WeightMasks, mask_name
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from publisher.weights.index import INDEX_FILE, SINGLE_FILE
from publisher.weights.writing import Entry, write_index, write_tensors

#: `quantization_config.quant_method` in config.json
METHOD = "loram_sparse"
#: Not model.safetensors, which transformers would take for the whole model.
_ONLY_FILE = "model-00001-of-00001.safetensors"
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: entries of a matrix that are looked at together: their indices take 8 bytes each
_CHUNK = 1 << 22


def compress(weight: Tensor, mask: Tensor) -> Tensor:
    """The kept entries (n,) of `weight` (out, in), on the CPU, row by row."""
    bits, kept = _bits(weight), mask.numpy()
    parts = [bits[rows].take(np.flatnonzero(kept[rows])) for rows in _row_chunks(weight.shape)]
    return torch.from_numpy(np.concatenate(parts)).view(weight.dtype)


def expand(kept: Tensor, mask: Tensor) -> Tensor:
    """The opposite of `compress`, on any device: (out, in) with zeros elsewhere.

    Raises ValueError if there are not as many kept entries as the mask says.
    """
    expected = int(mask.count_nonzero())
    if kept.numel() != expected:
        raise ValueError(f"{kept.numel()} kept weights for a mask that keeps {expected}")
    dense = kept.new_zeros(mask.shape)
    if not dense.is_cpu:
        return dense.masked_scatter_(mask, kept)
    source, target, where, done = _bits(kept), _bits(dense), mask.numpy(), 0
    for rows in _row_chunks(dense.shape):
        places = np.flatnonzero(where[rows])
        target[rows].reshape(-1)[places] = source[done : done + len(places)]
        done += len(places)
    return dense


def _bits(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as integers: numpy has no bf16, and is several times faster than torch here."""
    return tensor.contiguous().view(_INTEGERS[tensor.itemsize]).numpy()


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows whose indices are in memory at once."""
    step = max(1, _CHUNK // shape[1])
    return (slice(start, start + step) for start in range(0, shape[0], step))


def compress_folder(model_folder: Path, masks: WeightMasks, output: Path) -> None:
    """Write the model in `model_folder`, pruned by `masks`, to `output` (an empty folder) with its masks.

    One tensor is in memory at a time. Config, tokenizer and other files come along. Raises RequestFault if a masked
    weight is missing, has another shape, or is not zero where it was pruned.
    """
    stored = StoredWeights(model_folder)
    _refuse_unfitting(stored, masks)
    files: dict[str, list[Entry]] = {}
    for name, weights in stored.files.items():
        written = _ONLY_FILE if name == SINGLE_FILE else name
        files[written] = [_compressed_entry(stored.entries[weight], masks) for weight in weights]
        write_tensors(output / written, files[written], lambda weight: _compressed(stored, masks, weight))
    files[MASKS_FILE] = [_mask_entry(weight, masks) for weight in masks.weights]
    shutil.copyfile(masks.path, output / MASKS_FILE)
    write_index(output, files, count=False)
    _copy_others(model_folder, output)


def is_compressed(model_folder: Path) -> bool:
    """Whether config.json says that the weights are stored compressed."""

    config = json.loads((model_folder / "config.json").read_bytes())
    return bool((config.get("quantization_config") or {}).get("quant_method") == METHOD)


def _compressed_entry(entry: Entry, masks: WeightMasks) -> Entry:
    if entry.name not in masks:
        return entry
    return Entry(entry.name, entry.dtype, (masks.kept(entry.name),))


def _compressed(stored: StoredWeights, masks: WeightMasks, name: str) -> Tensor:
    weight = stored.read(name)
    if name not in masks:
        return weight
    mask = masks.mask(name)
    kept = compress(weight, mask)
    if _nonzeros(kept) != _nonzeros(weight):
        raise RequestFault(
            f"{name} is not zero everywhere it was pruned, so that leaving those entries out would change the model.",
            way_out="Store it dense, or mask it first.",
        )
    return kept


def _nonzeros(tensor: Tensor) -> int:
    """Without the sign: what was pruned may be -0. Comparing floats of 16 bits takes 15 times as long."""
    bits = tensor.view(_INTEGERS[tensor.itemsize])
    return int(bits.bitwise_left_shift(1).count_nonzero())


def _mask_entry(weight: str, masks: WeightMasks) -> Entry:
    return Entry(mask_name(weight), "U8", tuple(masks.packed(weight).shape))


def _refuse_unfitting(stored: StoredWeights, masks: WeightMasks) -> None:
    for weight in masks.weights:
        if weight not in stored.entries:
            raise RequestFault(f"{stored.folder} has no {weight}, which {masks.path} has a mask for.")
        if stored.entries[weight].shape != masks.shape(weight):
            raise RequestFault(
                f"{weight} has shape {stored.entries[weight].shape}, its mask is for {masks.shape(weight)}."
            )


def _copy_others(model_folder: Path, output: Path) -> None:
    """Everything but the weights; config.json says that they are compressed."""
    for path in sorted(model_folder.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.name not in (INDEX_FILE, "config.json"):
            shutil.copyfile(path, output / path.name)
    from publisher.loading.notice import with_notice  # which needs transformers, and expanding does not

    config = json.loads((model_folder / "config.json").read_bytes())
    compressed = with_notice(config | {"quantization_config": {"quant_method": METHOD}})
    text = json.dumps(compressed, indent=2, sort_keys=True)
    (output / "config.json").write_text(text + "\n", encoding="utf-8")
