"""Benchmarks, each a command: `python -m tests.benchmarks.NAME`."""

import logging

# as worker and publisher.checkpoint do, which a side may import after bitsandbytes, or not have at all
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward from kernels-community" not in record.getMessage()
)
