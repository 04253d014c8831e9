from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from tests.worker.alignment.optimizers.adam import Adam
from worker.alignment.optimizers.apollo import Apollo, random_projection

RATE, RANK, BETAS = 0.1, 4, (0.9, 0.95)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)], ids=["wide", "tall"])
def test_updates_are_those_of_algorithm_1(shape: tuple[int, int]) -> None:
    """R = P G; s_j = ‖R̃_j‖ / ‖R_j‖; G diag(s), whose norm may grow by 1 % from step to step."""
    generator = torch.Generator().manual_seed(0)
    weight = Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer, adam, expected = Apollo([weight], lr=RATE, rank=RANK, betas=BETAS), Adam(BETAS), torch.zeros(shape)
    last = None
    for step in range(5):
        gradient = (step + 1) * torch.randn(shape, generator=generator, dtype=torch.float64)
        weight.grad = gradient
        optimizer.step()
        wide = gradient if shape[0] < shape[1] else gradient.T
        projected = random_projection(gradient, RANK, optimizer.state[weight]["seed"]).T @ wide
        scaling = adam.direction(projected).norm(dim=0) / projected.norm(dim=0)
        update = wide * scaling
        if last is not None and update.norm() > 1.01 * last:
            update *= 1.01 * last / update.norm()
        last = update.norm()
        expected = expected - RATE * (update if shape[0] < shape[1] else update.T)
    torch.testing.assert_close(weight.data, expected)


def test_the_projection_keeps_lengths_on_average_and_is_drawn_anew_every_200_steps() -> None:
    weight = Parameter(torch.zeros(8, 12))
    optimizer, seeds = Apollo([weight], lr=RATE, rank=RANK, gap=3), []
    for _ in range(7):
        weight.grad = torch.randn(8, 12)
        optimizer.step()
        seeds.append(optimizer.state[weight]["seed"])
    assert seeds[0] == seeds[2] != seeds[3] == seeds[5] != seeds[6]
    vector = torch.nn.functional.normalize(torch.randn(64, 1), dim=0)
    lengths = [
        float((random_projection(vector.expand(64, 80), 16, seed).T @ vector).norm() ** 2) for seed in range(300)
    ]
    assert sum(lengths) / len(lengths) == pytest.approx(1.0, abs=0.1)
