"""A model's files into 4-bit files, one tensor at a time; which weights become 4-bit is transformers' own decision."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.core_model_loading import build_glob_alternation
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.weights.writing import Entry
from worker.context import StageContext
from worker.quantization.packing import STATE, pack, packed_entries
from worker.streaming.blocks import READERS, BlockReader
from worker.streaming.files import DTYPES, StoredTensor, TensorFiles
from worker.streaming.model import empty_model
from worker.streaming.placing import sources_of
from worker.streaming.shards import ShardWriter

#: bytes that are quantized at once: on a CPU bitsandbytes takes ten times as much besides
_AT_ONCE = 2**20
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Target:
    """What a stored tensor becomes: a weight in 4 bits, or the same values as `dtype`."""

    name: str
    stored: StoredTensor
    dtype: torch.dtype
    four_bit: bool

    def entries(self) -> list[Entry]:
        if self.four_bit:
            return packed_entries(self.name, self.stored.shape)
        return [Entry(self.name, _NAMES[self.dtype], self.stored.shape)]


def targets_of(folder: Path, quantization: QuantizationConfigMixin) -> list[Target] | None:
    """Every tensor of `folder` that the model has a use for, in the order of the files.

    None if a weight that transformers quantizes is not one tensor of the files (gate and up projections that are one
    there and two in the model, or two and one), or files hold two of what the config says is one: transformers sees to
    that when it loads the model. Raises RequestFault if a file is missing or damaged.
    """
    files = TensorFiles.open(folder)
    model = empty_model(AutoConfig.from_pretrained(folder, local_files_only=True), torch.bfloat16)
    sources = sources_of(model, files.tensors)
    if any(name in sources and tied_to in sources for name, tied_to in _tied(model).items()):
        return None
    dtypes = _dtypes(model)
    four_bit = _four_bit_parameters(model, quantization) & sources.keys()
    users = _users(sources)
    if any(len(sources[name]) > 1 or len(users[sources[name][0]]) > 1 for name in four_bit):
        return None
    names = sorted(users, key=files.place)
    return [Target(name, files.tensors[name], dtypes[users[name][0]], users[name][0] in four_bit) for name in names]


def write_quantized(targets: list[Target], output: Path, device: torch.device, context: StageContext) -> None:
    """Write `targets` to files of the same names in `output`. Progress in tensors; a cancelled job ends between two."""
    entries: dict[str, list[Entry]] = {}
    late: dict[str, list[str]] = {}
    for target in targets:
        entries.setdefault(target.stored.path.name, []).extend(target.entries())
        late.setdefault(target.stored.path.name, []).extend([f"{target.name}.{STATE}"] if target.four_bit else [])
    files = TensorFiles({target.name: target.stored for target in targets})
    with (
        BlockReader(files, _AT_ONCE) as reader,
        ShardWriter(output, entries, late) as shards,
        ThreadPoolExecutor(READERS) as threads,
    ):

        def write(target: Target) -> None:
            blocks = reader.blocks(target.name)
            if target.four_bit:
                _write_four_bit(target, (block for _, block in blocks), shards, device)
            else:
                for rows, block in blocks:
                    shards.write_rows(target.name, rows.start, block.to(target.dtype))

        for done, _ in enumerate(threads.map(write, targets), 1):
            context.progress(done, len(targets), "tensors")


def _write_four_bit(target: Target, blocks: Iterable[Tensor], shards: ShardWriter, device: torch.device) -> None:
    def write(first: int, rows: Tensor) -> None:
        shards.write_rows(target.name, first, rows)

    for key, value in pack(blocks, target.stored.shape, device, write).items():
        if key == STATE:
            shards.append(f"{target.name}.{key}", value)
        else:
            shards.write(f"{target.name}.{key}", value)


def four_bit_names(folder: Path, quantization: QuantizationConfigMixin) -> set[str]:
    """Names of the parameters of the model in `folder` that from_pretrained with `quantization` would quantize."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return _four_bit_parameters(empty_model(config, torch.bfloat16), quantization)


def _four_bit_parameters(model: PreTrainedModel, quantization: QuantizationConfigMixin) -> set[str]:
    """Names of the parameters that from_pretrained with `quantization` would quantize; replaces modules of `model`."""
    quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
    quantizer.preprocess_model(model=model, dtype=torch.bfloat16, device_map={"": "cpu"})
    names = [name for name, _ in model.named_parameters()]
    return {name for name in names if quantizer.param_needs_quantization(model, name)}


def _dtypes(model: PreTrainedModel) -> dict[str, torch.dtype]:
    """What from_pretrained in bf16 makes of each parameter and buffer: some families keep a few in fp32."""
    plan = model._get_dtype_plan(torch.bfloat16)
    pattern = build_glob_alternation(list(plan))[0] if plan else None
    found: dict[str, torch.dtype] = {}
    for name, tensor in model.state_dict().items():
        found[name] = torch.float32 if pattern is not None and pattern.search(name) else tensor.dtype
    return found


def _tied(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that are other ones, which alone are saved."""
    return getattr(model, "all_tied_weights_keys", None) or {}


def _users(sources: dict[str, list[str]]) -> dict[str, list[str]]:
    """Stored tensor → the parameters that it is part of."""
    users: dict[str, list[str]] = {}
    for parameter, stored in sources.items():
        for name in stored:
            users.setdefault(name, []).append(parameter)
    return users
