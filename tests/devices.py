"""The devices that one test body runs on: the CPU everywhere, and CUDA where it is present.

Whatever is marked `gpu` is marked by this module: the check of a GPU (tests/benchmarks/gpu_check.py) knows by the
import which files to collect, and collects no others.
"""

from __future__ import annotations

import pytest

gpu = pytest.mark.gpu
CUDA = pytest.param("cuda", marks=gpu)
#: the test gets `device`, torch's name
each_device = pytest.mark.parametrize("device", ["cpu", CUDA])
