from __future__ import annotations

import sys
from copy import deepcopy

import pytest
import torch

from publisher.errors import RequestFault
from publisher.recipe import Optimizer
from publisher.recipe.optimizers.register import optimizer_spec
from tests.worker.alignment.optimizers.nets import RANK, Net, alignment, train
from worker.alignment.optimizers import make_optimizer, require_packages
from worker.alignment.optimizers.galore import GaLoreAdamW8bit
from worker.alignment.optimizers.state import state_bytes

ALL = list(Optimizer)


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_of_the_recipe_trains(name: Optimizer) -> None:
    net = Net()
    losses = train(net, make_optimizer(net, alignment(name)), range(60))
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


@pytest.mark.parametrize("name", ALL)
def test_frozen_parameters_are_left_alone(name: Optimizer) -> None:
    net = Net()
    net.up.requires_grad_(False)
    before = net.up.weight.clone()
    train(net, make_optimizer(net, alignment(name)), range(2))
    assert torch.equal(net.up.weight, before)


@pytest.mark.parametrize("name", [name for name in ALL if name not in {Optimizer.ADAMW}])
def test_no_other_optimizer_takes_as_much_memory_as_adamw(name: Optimizer) -> None:
    sizes = {}
    for one in (Optimizer.ADAMW, name):
        net = Net()
        optimizer = make_optimizer(net, alignment(one))
        train(net, optimizer, range(2))
        sizes[one] = state_bytes(optimizer)
    assert sizes[Optimizer.ADAMW] == pytest.approx(8 * sum(weight.numel() for weight in Net().parameters()), rel=1e-3)
    assert sizes[name] < sizes[Optimizer.ADAMW]


@pytest.mark.parametrize("name", [name for name in ALL if optimizer_spec(name).has_rank])
def test_moments_of_matrices_have_the_recipe_s_rank(name: Optimizer) -> None:
    net = Net()
    optimizer = make_optimizer(net, alignment(name))
    train(net, optimizer, range(1))
    shapes = {tuple(part.shape) for part in optimizer.state[net.up.weight].values() if isinstance(part, torch.Tensor)}
    assert any(RANK in shape for shape in shapes)
    assert (192, 96) not in shapes


def test_a_rank_above_a_matrix_s_smaller_side_is_that_side() -> None:
    for name in [name for name in ALL if optimizer_spec(name).has_rank]:
        net = Net()
        optimizer = make_optimizer(net, alignment(name).model_copy(update={"rank": 4096}))
        assert train(net, optimizer, range(30))[-1] < 1.5


def test_setting_the_rate_of_a_group_reaches_every_part() -> None:
    net = Net()
    optimizer = make_optimizer(net, alignment(Optimizer.MUON))
    before = [weight.clone() for weight in net.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(net, optimizer, range(1))
    assert all(torch.equal(weight, old) for weight, old in zip(net.parameters(), before, strict=True))


def test_a_state_dict_of_a_combination_comes_back() -> None:
    nets = [Net(), Net()]
    first, second = (make_optimizer(net, alignment(Optimizer.MUON)) for net in nets)
    train(nets[0], first, range(3))
    nets[1].load_state_dict(nets[0].state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    assert train(nets[0], first, range(3, 6)) == train(nets[1], second, range(3, 6))


def test_galore_in_8_bits_goes_where_galore_torch_goes() -> None:
    moved = []
    for name in (Optimizer.GALORE_ADAMW, Optimizer.GALORE_ADAMW_8BIT):
        net = Net()
        before = net.up.weight.detach().clone()
        optimizer = make_optimizer(net, alignment(name))
        train(net, optimizer, range(5))
        moved.append((net.up.weight.detach() - before).flatten())
    assert isinstance(optimizer.parts[0], GaLoreAdamW8bit)  # type: ignore[attr-defined]
    assert optimizer.state[net.up.weight]["state1"].dtype == torch.uint8
    assert torch.cosine_similarity(moved[0], moved[1], dim=0) > 0.98
    assert float(moved[1].norm()) == pytest.approx(float(moved[0].norm()), rel=0.05)


def test_a_missing_package_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "galore_torch", None)
    with pytest.raises(RequestFault, match=r"galore_adamw needs the package galore-torch.*pip install galore-torch"):
        require_packages(Optimizer.GALORE_ADAMW)
    require_packages(Optimizer.LOTUS)
