"""What each matrix of a layer is multiplied with, by what the layer makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.worker.streaming.families import save_tiny
from worker.streaming.capture import call_layer
from worker.streaming.model import LayerStream
from worker.streaming.products import watched_inputs

TOKENS = torch.randint(3, 320, (2, 7), generator=torch.Generator().manual_seed(0))

Seen = dict[tuple[str, int | None], list[Tensor]]


@torch.no_grad()
def watched(stream: LayerStream, layer: nn.Module, index: int) -> tuple[Seen, Tensor]:
    seen: Seen = {}
    inputs = stream.inputs(TOKENS)
    with watched_inputs(stream, layer, lambda name, expert, x: seen.setdefault((name, expert), []).append(x.clone())):
        output = call_layer(layer, inputs.hidden, inputs.arguments[index])
    return seen, output


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma2"])
def test_every_linear_layer_tells_what_it_reads(tmp_path: Path, family: str) -> None:
    stream = LayerStream(save_tiny(family, tmp_path), "cpu")
    with stream.layer(0) as layer:
        outputs: dict[str, Tensor] = {}
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _, __, y, name=name: outputs.update({f"{name}.weight": y}))
        seen, _ = watched(stream, layer, 0)
        assert {name for name, _ in seen} == outputs.keys() == {n for n, p in layer.named_parameters() if p.dim() == 2}
        for (name, expert), (x,) in seen.items():
            assert expert is None
            torch.testing.assert_close(x @ layer.get_parameter(name).T, outputs[name], rtol=1e-5, atol=1e-5)


def test_every_expert_tells_the_tokens_that_it_was_chosen_for(tmp_path: Path) -> None:
    stream = LayerStream(save_tiny("mixtral", tmp_path), "cpu")
    with stream.layer(0) as layer:
        seen, _ = watched(stream, layer, 0)
        (router,) = [x[0] for (name, _), x in seen.items() if name == "mlp.gate.weight"]
        states = router.reshape(-1, router.shape[-1])  # what the experts read, too
        chosen = (states @ layer.get_parameter("mlp.gate.weight").T).topk(2, dim=-1).indices
    for expert in range(4):
        (x,) = seen["mlp.experts.gate_up_proj", expert] if (chosen == expert).any() else [states[:0]]
        wanted = states[(chosen == expert).any(-1)]
        assert sorted(map(tuple, x.reshape(-1, x.shape[-1]).tolist())) == sorted(map(tuple, wanted.tolist()))
        if len(wanted):
            (between,) = seen["mlp.experts.down_proj", expert]
            assert between.shape == (len(wanted), 48)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_watching_changes_nothing_and_ends(tmp_path: Path, family: str) -> None:
    stream = LayerStream(save_tiny(family, tmp_path), "cpu")
    implementation = stream.skeleton.get_experts_implementation()
    with stream.layer(0) as layer:
        seen, while_watched = watched(stream, layer, 0)
        heard = sum(map(len, seen.values()))
        assert heard
        inputs = stream.inputs(TOKENS)
        with torch.no_grad():
            after = call_layer(layer, inputs.hidden, inputs.arguments[0])
        torch.testing.assert_close(while_watched, after, rtol=1e-5, atol=1e-5)
    assert sum(map(len, seen.values())) == heard
    assert stream.skeleton.get_experts_implementation() == implementation
