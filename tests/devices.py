"""The devices that one test body runs on: the CPU everywhere, and CUDA where it is present."""

from __future__ import annotations

import pytest

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
#: the test gets `device`, torch's name
each_device = pytest.mark.parametrize("device", ["cpu", CUDA])
