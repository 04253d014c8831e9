"""NF4 layers of any width on a CPU that can be trained after inference, and saved again after they were loaded.

On CPUs with bf16 instructions bitsandbytes 0.50 repacks a 4-bit weight at its first inference, for a kernel that has no
backward: who evaluates and then trains gets the gradients of another model without a word (relative error about 1 in
every layer), or, where layers have biases, "a view of a leaf Variable that requires grad is being used in an in-place
operation". Repacking also rounds the scales, so that what is saved or merged afterwards is not what was loaded, and
fails for a shape that its blocks do not divide, as pruned ones seldom do (537 of 1,536 neurons). So layers keep the
plain path, which is exact and slower.

transformers 5.23 reverts on saving what it did on loading, and has no way back for 4-bit weights that came from files
(`Bnb4bitDeserialize.reverse_op`), although the layers themselves write what the files hold: so nothing is reverted.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

_MARK = "_prepared_for_loram"


def hide_advice() -> None:
    """bitsandbytes advises, when it is imported, to install a package that would download code from a hub."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_advice)


def prepare() -> None:
    """Called before a model of 4-bit layers is built; idempotent. Imports bitsandbytes, which takes seconds."""
    _never_repack()
    _allow_saving()


def _allow_saving() -> None:
    from transformers.integrations.bitsandbytes import Bnb4bitDeserialize
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    original = Bnb4BitHfQuantizer._process_model_after_weight_loading
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def process(self: Any, model: Any, **kwargs: Any) -> Any:
        used = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            conversion
            for conversion in used
            if not any(isinstance(done, Bnb4bitDeserialize) for done in getattr(conversion, "operations", ()))
        ]
        return original(self, model, **kwargs)

    setattr(process, _MARK, True)
    Bnb4BitHfQuantizer._process_model_after_weight_loading = process


def _never_repack() -> None:
    from bitsandbytes.nn import Linear4bit

    original = Linear4bit.__init__
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.support_avx512bf16_for_cpu = False

    setattr(init, _MARK, True)
    Linear4bit.__init__ = init


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward from kernels-community" not in record.getMessage()
