"""What is handed to layers is kept once, and layers are themselves again afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from worker.streaming.capture import Arguments, LayerInputs, Recorder, call_layer, sharing, standing_in


def inputs(mask: Tensor, rotary: tuple[Tensor, Tensor], **named: object) -> LayerInputs:
    return LayerInputs(torch.zeros(1), (Arguments((mask,), {"position_embeddings": rotary, **named}),))


def test_equal_tensors_of_an_earlier_batch_take_the_place_of_new_ones() -> None:
    earlier = inputs(torch.ones(2, 2), (torch.ones(3), torch.zeros(3)), cache=None)
    now = inputs(torch.ones(2, 2), (torch.ones(3), torch.ones(3)), cache=None)
    (shared,) = sharing(now, earlier).arguments
    assert shared.positional[0] is earlier.arguments[0].positional[0]
    cos, sin = shared.named["position_embeddings"]
    assert cos is earlier.arguments[0].named["position_embeddings"][0]
    assert sin is now.arguments[0].named["position_embeddings"][1], "another value stays"


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(2, 2, dtype=torch.float64), torch.full((2, 2), 2.0)])
def test_tensor_of_another_shape_type_or_value_stays(mask: Tensor) -> None:
    earlier = inputs(torch.ones(2, 2), (torch.ones(3), torch.ones(3)))
    (shared,) = sharing(inputs(mask, (torch.ones(3), torch.ones(3))), earlier).arguments
    assert shared.positional[0] is mask


def test_first_batch_has_nobody_to_share_with() -> None:
    first = inputs(torch.ones(2, 2), (torch.ones(3), torch.ones(3)))
    assert sharing(first, None) is first


def test_layers_are_themselves_again_after_an_error() -> None:
    layers = [nn.Identity(), nn.Identity()]

    def call_within() -> None:
        with standing_in(layers, [lambda x: x + 1, lambda x: x + 2]):
            assert [layer(1) for layer in layers] == [2, 3]
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        call_within()
    assert [layer(1) for layer in layers] == [1, 1]


@pytest.mark.parametrize("as_tuple", [True, False])
def test_recorder_notes_hidden_states_however_they_are_given(as_tuple: bool) -> None:
    recorder, states, mask = Recorder(as_tuple), torch.ones(1, 2), torch.zeros(1)
    for given in (recorder(states, mask, position=3), recorder(hidden_states=states, position=3)):
        assert (given[0] if as_tuple else given) is states
    assert recorder.hidden == [states, states]
    assert [each.positional for each in recorder.arguments] == [(mask,), ()]
    assert all(each.named == {"position": 3} for each in recorder.arguments)


def test_call_takes_the_states_out_of_a_tuple() -> None:
    class Layer(nn.Module):
        def forward(self, states: Tensor, add: int, *, times: int) -> tuple[Tensor, str]:
            return (states + add) * times, "attention"

    assert torch.equal(call_layer(Layer(), torch.ones(2), Arguments((1,), {"times": 3})), torch.full((2,), 6.0))
