from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from publisher.errors import RequestFault
from publisher.plan.align import AlignMemory
from publisher.plan.several import refuse_for_several
from publisher.recipe import Quantization, Recipe
from publisher.recipe.stages import Stage
from tests.devices import each_device
from tests.worker.alignment.builds import inputs_in, prepare, request
from worker.alignment.rounding import Rounding, nf4_rounding
from worker.context import RecordingContext
from worker.quantization.nf4 import NF4, quantize_nf4
from worker.quantization.packing import round_trip
from worker.quantization.streamed import four_bit_names
from worker.request import BuildRequest
from worker.stages.align import stage as align

GIB = 2**30


def test_training_sees_what_is_published(tmp_path: Path) -> None:
    """The very values of each weight in the published file, and no other weight is touched."""
    folder = prepare(tmp_path).pruned
    quantize_nf4(folder, tmp_path / "published", "cpu")
    file = load_file(tmp_path / "published" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    rounding = nf4_rounding(model, four_bit_names(folder, NF4))
    with rounding.rounded():
        found = {name: weight for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert found.keys() == {name for name in before if f"{name}.absmax" in file}
        for name, weight in found.items():
            torch.testing.assert_close(weight.detach(), _unpacked(name, file).view_as(weight), rtol=2**-7, atol=1e-6)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def _unpacked(name: str, file: Mapping[str, Tensor]) -> Tensor:
    """By the format (QLoRA, arXiv 2305.14314, section 3): two values a byte, scales of 64 in 8 bits with their own."""
    note = json.loads(bytes(file[f"{name}.quant_state.bitsandbytes__nf4"].tolist()))
    scales = file[f"{name}.nested_quant_map"][file[f"{name}.absmax"].long()]
    scales = scales * file[f"{name}.nested_absmax"].repeat_interleave(256)[: len(scales)] + note["nested_offset"]
    packed = file[name].flatten()
    values = file[f"{name}.quant_map"][torch.stack([packed >> 4, packed & 15], 1).flatten().long()]
    return (values * scales.repeat_interleave(64)[: len(values)])[: prod(note["shape"])]


def test_masters_come_back_whatever_happens() -> None:
    weight = nn.Parameter(torch.linspace(-1, 1, 64).view(1, 64))
    master = weight.detach().clone()
    rounding = Rounding({"weight": weight}, lambda name, weight: round_trip(weight))
    with pytest.raises(KeyError), rounding.rounded():
        _raise_when_rounded(weight, master)
    assert torch.equal(weight, master)
    with rounding.rounded():
        weight.square().sum().backward()
        rounding.restore()  # as when a state is saved in the middle of a step
        assert torch.equal(weight, master)
    assert torch.equal(weight, master)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * round_trip(master).float())


def _raise_when_rounded(weight: Tensor, master: Tensor) -> None:
    if not torch.equal(weight, master):
        raise KeyError


@pytest.mark.parametrize("bf16_share", [0, 0.3])
def test_the_loss_is_that_of_rounded_weights(tmp_path: Path, bf16_share: float) -> None:
    """As of a model whose weights are rounded already, but those that stay; with scheme none nothing is rounded."""
    inputs = prepare(tmp_path, dropout=0)
    build = _quantized(tmp_path, Quantization(bf16_share=bf16_share))
    aware, plain = _first_loss(tmp_path, build), _first_loss(tmp_path, _unquantized(tmp_path))
    assert aware != plain
    reports = [json.loads(path.read_bytes()) for path in tmp_path.glob("out-*/alignment.json")]
    whole = {f"{name}.weight" for report in reports for name in report["bf16_modules"]}
    assert bool(whole) == bool(bf16_share)
    weights, names = load_file(inputs.pruned / "model.safetensors"), four_bit_names(inputs.pruned, NF4) - whole
    rounded = {
        name: round_trip(weight).to(weight.dtype) if name in names else weight for name, weight in weights.items()
    }
    save_file(rounded, inputs.pruned / "model.safetensors", {"format": "pt"})
    assert _first_loss(tmp_path, _unquantized(tmp_path)) == pytest.approx(aware, rel=1e-6)


def _unquantized(folder: Path) -> BuildRequest:
    return _quantized(folder, Quantization(scheme="none"))


def _quantized(folder: Path, quantization: Quantization) -> BuildRequest:
    build = request(folder)
    return replace(build, recipe=build.recipe.model_copy(update={"quantization": quantization}))


def _first_loss(folder: Path, build: BuildRequest) -> float:
    context, output = RecordingContext(), folder / f"out-{len(list(folder.iterdir()))}"
    align.run(build, inputs_in(folder), output, context)
    return next(value for name, _, value in context.metrics if name == "loss")


@pytest.mark.parametrize(
    ("alignment", "quantization", "said"),
    [
        ({"trainable": "low_rank"}, {}, "with trainable low_rank they are frozen"),
        ({}, {"scheme": "none"}, "quantization_aware true is for quantization.scheme nf4; leave it out with none"),
    ],
)
def test_what_cannot_be_is_refused(alignment: Mapping[str, str], quantization: Mapping[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _recipe({"quantization_aware": True, **alignment}, quantization)


def test_several_devices_do_without_unless_asked() -> None:
    refuse_for_several(_recipe({}), 2)
    with pytest.raises(RequestFault, match="each of 2 devices holds a part of them"):
        refuse_for_several(_recipe({"quantization_aware": True}), 2)


@pytest.mark.parametrize(
    ("alignment", "quantization", "rounded"),
    [
        ({}, {}, True),
        ({"quantization_aware": False}, {}, False),
        ({"trainable": "low_rank"}, {}, False),
        ({}, {"scheme": "none"}, False),
    ],
)
def test_by_default_it_is_where_it_can_be(
    alignment: Mapping[str, object], quantization: Mapping[str, str], rounded: bool
) -> None:
    recipe = _recipe(alignment, quantization)
    assert recipe.trains_quantized == rounded


def test_what_is_rounded_to_decides_what_comes_out(tmp_path: Path) -> None:
    """So the stage is not taken from another recipe's build."""
    prepare(tmp_path)
    build = request(tmp_path)
    before = {Stage.FETCH: "fetched", Stage.PRUNE: "pruned"}
    digests = {
        align.digest(replace(build, recipe=build.recipe.model_copy(update={"quantization": quantization})), before)
        for quantization in (Quantization(), Quantization(include_embeddings=True), Quantization(scheme="none"))
    }
    assert len(digests) == 3


def test_masters_are_one_gpus_alone() -> None:
    memory = AlignMemory(states=60 * GIB, teacher=4 * GIB, activations=2 * GIB, masters=20 * GIB)
    assert memory.total == 86 * GIB
    assert [memory.gpus(gib) for gib in (141, 80, 48)] == [1, 2, 2]


def _recipe(alignment: Mapping[str, object], quantization: Mapping[str, str] | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "pruning": {"ratio": 0.5, "criterion": "random"},
            "alignment": {"corpora": [{"name": "sea"}], **alignment},
            "quantization": quantization or {},
        }
    )


@each_device
def test_weights_are_rounded_as_on_a_cpu(device: str) -> None:
    weight = torch.randn(96, 80, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(round_trip(weight.to(device)).cpu(), round_trip(weight), rtol=2**-7, atol=1e-3)
