from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from publisher.recipe import Optimizer
from tests.devices import each_device
from tests.worker.alignment.optimizers.nets import Net, alignment, train
from worker.alignment.optimizers import make_optimizer
from worker.alignment.optimizers.state import pack_state, unpack_state
from worker.alignment.state import random_state, restore_random_state, save_tensors


@each_device
@pytest.mark.parametrize("name", list(Optimizer))
def test_a_state_from_a_file_steps_to_the_same_bits(tmp_path: Path, name: Optimizer, device: str) -> None:
    """And random projections to the same numbers: on a GPU they are drawn there."""
    first, second = Net().to(device), Net(seed=1).to(device)
    optimizer = make_optimizer(first, alignment(name))
    train(first, optimizer, range(5))
    tensors, layout = pack_state(optimizer)
    save_tensors(tmp_path / "state.safetensors", tensors, {"layout": layout})
    second.load_state_dict(first.state_dict())
    again = make_optimizer(second, alignment(name))
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        unpack_state(again, stored, file.metadata()["layout"])
    random = random_state(torch.device(device))
    losses = train(first, optimizer, range(5, 9))
    restore_random_state(torch.device(device), random)
    assert train(second, again, range(5, 9)) == losses
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


def test_tensors_that_parameters_share_are_stored_once_and_shared_again() -> None:
    net = Net()
    optimizer = make_optimizer(net, alignment(Optimizer.ADAMW_8BIT))
    train(net, optimizer, range(1))
    tensors, layout = pack_state(optimizer)
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)
    again = make_optimizer(net, alignment(Optimizer.ADAMW_8BIT))
    unpack_state(again, {name: tensor.clone() for name, tensor in tensors.items()}, layout)
    assert again.state[net.up.weight]["qmap1"] is again.state[net.down.weight]["qmap1"]


def test_a_state_of_unknown_objects_is_refused() -> None:
    net = Net()
    optimizer = make_optimizer(net, alignment(Optimizer.ADAMW))
    optimizer.state[net.up.weight]["odd"] = Path("odd")
    with pytest.raises(AssertionError, match="odd is a PosixPath"):
        pack_state(optimizer)
