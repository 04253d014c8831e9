from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.second_device import second_device
from worker.alignment.gradient_matching import relative_step
from worker.models.device import fp32_products, is_gpu


@pytest.fixture(params=["highest", "high", "medium"])
def allowed(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of whoever uses this process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_products_of_fp32_are_exact_on_a_cpu_and_of_tf32_on_a_gpu_whatever_is_allowed(allowed: str) -> None:
    with second_device() as gpu:
        for device, precision in ((torch.device("cpu"), "highest"), (gpu, "high")):
            with fp32_products(device):
                assert torch.get_float32_matmul_precision() == precision
            assert torch.get_float32_matmul_precision() == allowed


def test_differences_are_taken_over_a_longer_way_where_products_are_rounded() -> None:
    with second_device() as gpu:
        assert is_gpu(gpu)
        assert relative_step(gpu) > relative_step(torch.device("cpu"))
