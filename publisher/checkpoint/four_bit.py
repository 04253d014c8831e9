"""NF4 layers of any width on a CPU.

On CPUs with bf16 instructions bitsandbytes 0.50 repacks a 4-bit weight at its first inference and fails for a shape
that its blocks do not divide, as pruned ones seldom do (537 of 1,536 neurons). Such layers keep its plain path.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

#: rows and columns (one quantization block) that bitsandbytes packs together
_ROWS, _COLUMNS = 32, 64
_MARK = "_takes_any_width"


def hide_advice() -> None:
    """bitsandbytes advises, when it is imported, to install a package that would download code from a hub."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_advice)


def allow_any_width() -> None:
    """Called before a model of 4-bit layers is built; idempotent. Imports bitsandbytes, which takes seconds."""
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
