"""Benchmarks, each a command: `python -m tests.benchmarks.NAME`."""

import logging

# bitsandbytes says in every process, when it is imported, that it found no kernels from elsewhere for the CPU
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
