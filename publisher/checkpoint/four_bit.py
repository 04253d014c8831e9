"""NF4 layers of any width on a CPU, and saved again after they were loaded.

On CPUs with bf16 instructions bitsandbytes 0.50 repacks a 4-bit weight at its first inference and fails for a shape
that its blocks do not divide, as pruned ones seldom do (537 of 1,536 neurons). Such layers keep its plain path.

transformers 5.23 reverts on saving what it did on loading, and has no way back for 4-bit weights that came from files
(`Bnb4bitDeserialize.reverse_op`), although the layers themselves write what the files hold: so nothing is reverted.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

#: rows and columns (one quantization block) that bitsandbytes packs together
_ROWS, _COLUMNS = 32, 64
_MARK = "_prepared_for_loram"


def hide_advice() -> None:
    """bitsandbytes advises, when it is imported, to install a package that would download code from a hub."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_advice)


def prepare() -> None:
    """Called before a model of 4-bit layers is built; idempotent. Imports bitsandbytes, which takes seconds."""
    _allow_any_width()
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


def _allow_any_width() -> None:
    from bitsandbytes.nn import Linear4bit

    original = Linear4bit.__init__
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def init(self: Any, input_features: int, output_features: int, *args: Any, **kwargs: Any) -> None:
        original(self, input_features, output_features, *args, **kwargs)
        if output_features % _ROWS or input_features % _COLUMNS:
            self.support_avx512bf16_for_cpu = False

    setattr(init, _MARK, True)
    Linear4bit.__init__ = init


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward from kernels-community" not in record.getMessage()
