"""What a GPU is predicted to need for each training of gpu_headline, gpu_table8 and gpu_user, worked out on a CPU.

    python -m tests.benchmarks.gpu_predicted --out predicted.json [--only headline table8 user] [--tiny]

The very step that gpu_lora times runs on tensors without contents ("meta"): transformers, PEFT, bitsandbytes and AdamW
ask for the memory that they always ask for, and all that is alive at once is added up; operations are PyTorch's own
count of every matrix product and attention. A 70B takes a minute and no memory. The others print it beside what they
measure (`--predicted predicted.json`). Of gpu_user's 7B, whole and pruned, a batch of one sequence is predicted as
well, which gpu_user does not run.

Attention is the flash kernel's, as on a GPU. Not counted is what kernels take inside (cuBLAS: up to 32 MiB), and the
allocator's own loss by fragments: what it reserves is more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from publisher.weights.writing import Entry
from tests.benchmarks import gpu_headline, gpu_table8, gpu_user
from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import training_step, with_lora
from tests.benchmarks.gpu_models import write_config
from tests.benchmarks.gpu_report import MIB, PEAK_FLOPS, TINY_SAYS, write_results
from worker.quantization.packing import BLOCK, NESTED_BLOCK, packed_entries


def _of_user(tiny: bool) -> list[Case]:
    """And its first two, base and pruned, by one sequence instead of its micro-batch."""
    found = gpu_user.cases(tiny)
    return [*found, *(replace(case, name=f"{case.name}, batch 1", micro=1) for case in found[:2])]


_CASES: dict[str, Callable[[bool], list[Case]]] = {
    "headline": gpu_headline.cases,
    "table8": gpu_table8.cases,
    "user": _of_user,
}
_TYPES = {"U8": torch.uint8, "F32": torch.float32}


@dataclass(frozen=True)
class Predicted:
    """Bytes of all tensors once the model is loaded, and at the most in a step; operations of a step."""

    loaded: int
    peak: int
    operations: float


class Counting(TorchDispatchMode):  # type: ignore[misc]
    """Within, `live` bytes of all tensors that operations made, their `peak`, and the `operations` of products."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.operations = 0.0
        self._sizes: dict[int, int] = {}

    def restart(self) -> None:
        self.peak, self.operations = self.live, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        self.operations += _operations(func, args, kwargs or {}, found)
        if func is torch.ops.bitsandbytes.gemm_4bit.default:  # where its fast kernel does not do, it unpacks the weight
            self.peak = max(self.peak, self.live + 2 * prod(args[2]))
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, number: int) -> None:
        self.live -= self._sizes.pop(number)


def _operations(func: Any, args: Any, kwargs: Any, found: Any) -> float:
    if func is torch.ops.bitsandbytes.gemm_4bit.default:
        return 2.0 * args[0].numel() * args[2][0]
    count = flop_registry.get(func._overloadpacket)
    return 0.0 if count is None else float(count(*args, **kwargs, out_val=found))


def predict(case: Case) -> Predicted:
    """Of the second step, which has the optimizer's states. All micro-batches but the first are alike: two are run."""
    micros = min(case.micros, 2)
    # autocast knows nothing of tensors without contents: _as_on_a_gpu does what it would do
    setup = replace(case.setup("", "meta", steps=1), micros=micros, autocast=False)
    with Counting() as counting, _as_on_a_gpu(autocast=case.autocast):
        model = _model(case)
        loaded = counting.live
        step = training_step(with_lora(model, setup), setup, partial(_tokens, case), fused=False)
        step()
        counting.restart()
        step()
        return Predicted(loaded, counting.peak, counting.operations * case.micros / micros)


def _tokens(case: Case) -> Tensor:
    return torch.zeros(case.micro, case.length, dtype=torch.int64, device="meta")


@contextmanager
def _as_on_a_gpu(*, autocast: bool) -> Iterator[None]:
    """What transformers asks about a tensor's contents is answered, and kernels are those of a GPU."""
    patches = {
        "torch.nn.functional.scaled_dot_product_attention": _flash,
        # no two texts lie in one sequence
        "transformers.masking_utils.find_packed_sequence_indices": lambda position_ids: None,
    }
    if autocast:
        linear = functional.linear
        patches["torch.nn.functional.linear"] = lambda x, weight, bias=None: linear(
            x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()
        )
    with ExitStack() as stack:
        for name, function in patches.items():
            stack.enter_context(mock.patch(name, function))
        yield


def _flash(query: Tensor, key: Tensor, value: Tensor, **named: Any) -> Tensor:
    assert named.get("attn_mask") is None, "a mask would take another kernel"
    assert named.get("is_causal"), "every position sees those before it"
    attention = torch.ops.aten._scaled_dot_product_flash_attention
    states: Tensor = attention(query, key, value, named["dropout_p"], True, scale=named.get("scale"))[0]
    return states


def _model(case: Case) -> PreTrainedModel:
    """As from_pretrained would load it from what write_random writes."""
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), case.config, widths=case.widths)
        config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        model.requires_grad_(False)
        if case.four_bit:
            _quantize(model)
    return model


def _quantize(model: PreTrainedModel) -> None:
    model.is_loaded_in_4bit = True  # PEFT asks
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _packed(module))


def _packed(module: nn.Linear) -> Linear4bit:
    shape = module.weight.shape
    layer = Linear4bit(
        module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
    )
    parts = {entry.name.partition(".")[2]: _empty(entry) for entry in packed_entries("weight", tuple(shape))}
    nested = QuantState(parts["nested_absmax"], blocksize=NESTED_BLOCK, code=parts["nested_quant_map"])
    nested.dtype = torch.float32
    layer.quant_state = QuantState(
        parts["absmax"],
        shape=shape,
        code=parts["quant_map"],
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=torch.bfloat16,
        offset=torch.empty(()),
        state2=nested,
    )
    layer.weight = Params4bit(
        parts[""],
        requires_grad=False,
        quant_state=layer.quant_state,
        bnb_quantized=True,
        quant_type="nf4",
        module=layer,
    )
    return layer


def _empty(entry: Entry) -> Tensor:
    return torch.empty(entry.shape, dtype=_TYPES[entry.dtype])


def main() -> None:
    asked = _options()
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' would bury the table
    rows: list[dict[str, Any]] = []
    note = f"; {TINY_SAYS}" if asked.tiny else ""
    print(f"predicted, not measured: torch {torch.__version__}, {torch.device('meta')} tensors{note}")
    print(f"{'':42} {'loaded MiB':>10} {'peak MiB':>9} {'TFLOP':>8} {'step s ≥':>8} {'floor s':>8}")
    for name in asked.only:
        for case in _CASES[name](asked.tiny):
            begun = time.perf_counter()
            found = predict(case)
            rows.append({"benchmark": name, "name": case.name} | asdict(found))
            print(
                f"{case.name:42} {found.loaded / MIB:10,.0f} {found.peak / MIB:9,.0f} {found.operations / 1e12:8.1f} "
                f"{found.operations / PEAK_FLOPS:8.3f} {case.floor:8.3f}   ({time.perf_counter() - begun:.0f} s)",
                flush=True,
            )
            write_results(asked.out, "predicted", "cpu", rows, tiny=asked.tiny)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path)
    options.add_argument("--only", nargs="+", default=list(_CASES), choices=list(_CASES))
    options.add_argument("--tiny", action="store_true")
    return options.parse_args()


if __name__ == "__main__":
    main()
