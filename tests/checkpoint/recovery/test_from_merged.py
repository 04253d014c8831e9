"""A fine-tuned copy of the checkpoint: its difference to that, on the base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config

from publisher.checkpoint.recovery.from_merged import recover_merged
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.client.recover import recover
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders
from tests.checkpoint.recovery.test_merging import prepared
from tests.checkpoint.test_masked import SIZES as SPARSE

State = dict[str, Tensor]
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("copies")
    return folders(Qwen2Config(**SIZES), root, aligned=True, dtype=request.param)


def saved(given: Folders, folder: Path, change: Callable[[State], State]) -> Path:
    given.trainable().save_pretrained(folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def trained(state: State) -> State:
    """Every tensor moved, as full fine-tuning does."""
    torch.manual_seed(5)
    return {name: tensor + (torch.randn(tensor.shape) * 0.02).to(tensor.dtype) for name, tensor in state.items()}


def difference(given: Folders, tuned: Path) -> State:
    before, after = (load_file(folder / "model.safetensors") for folder in (given.checkpoint, tuned))
    return {name: given.scattered(name, after[name].float() - before[name].float()) for name in before}


def test_difference_is_added_at_kept_places_and_nothing_elsewhere(tmp_path: Path, given: Folders) -> None:
    tuned, told = saved(given, tmp_path / "tuned", trained), list[tuple[int, int]]()
    report = recover_merged(
        tuned,
        given.checkpoint,
        tmp_path / "out",
        base_model=str(given.base),
        progress=lambda done, total: told.append((done, total)),
    )
    size = sum(entry.size for entry in StoredWeights(given.base).entries.values())
    assert told == sorted(told)
    assert told[-1] == (size, size)
    found = {name: change.float() for name, change in given.merged(tmp_path / "out").items()}
    rounding = 2e-6 if load_file(tuned / "model.safetensors")[NAME].dtype is torch.float32 else 0.02
    assert error(found, difference(given, tuned)) < rounding
    assert report.merged
    assert report.tensors == len(found)


@pytest.mark.parametrize("rank", [2, 24])
def test_lora_of_the_difference_is_the_nearest_and_says_what_is_not_in_it(
    tmp_path: Path, given: Folders, rank: int
) -> None:
    tuned = saved(given, tmp_path / "tuned", trained)
    report = recover_merged(tuned, given.checkpoint, tmp_path / "out", base_model="org/base", rank=rank)
    found, expected = given.recovered(tmp_path / "out"), difference(given, tuned)
    for name, change in expected.items():
        if "proj.weight" in name:
            best = float(torch.linalg.svdvals(change.double())[rank:].norm())
            assert float((found[name].float() - change).norm()) == pytest.approx(best, rel=1e-3, abs=2e-3)
    assert any(f"rank {rank}" in note for note in report.notes)
    assert any("no linear layers of the decoder and not in the LoRA" in note for note in report.notes)


def test_tensors_that_were_not_trained_stay_the_base_model_s_own(tmp_path: Path, given: Folders) -> None:
    def one(state: State) -> State:
        return state | {NAME: state[NAME] + 0.125}

    tuned = saved(given, tmp_path / "tuned", one)
    report = recover_merged(tuned, given.checkpoint, tmp_path / "out", base_model=str(given.base))
    assert {name for name, change in given.merged(tmp_path / "out").items() if change.any()} == {NAME}
    assert (report.tensors, report.widened) == (1, 1)


def _other_seed(state: State) -> State:
    torch.manual_seed(9)
    return {name: torch.randn(tensor.shape).to(tensor.dtype) for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state, "nothing was trained"),
        (lambda state: state | {NAME: state[NAME][:4].clone()}, rf"{NAME} has shape \(4, 24\)"),
        (lambda state: {name: t for name, t in state.items() if name != NAME}, f"lacks 1 tensors .*{NAME}"),
        (lambda state: state | {NAME: state[NAME] * torch.nan}, f"{NAME} of .* holds NaN"),
        (lambda state: state | {"model.extra.weight": torch.ones(2)}, r"has model\.extra\.weight"),
        (lambda state: state | {f"{NAME}.quant_state.bitsandbytes__nf4": torch.ones(2)}, "in 4 bits"),
        (_other_seed, "trained from another model"),
    ],
    ids=["untrained", "shape", "missing", "nan", "extra", "4 bits", "another checkpoint"],
)
@pytest.mark.parametrize("rank", [None, 4])
def test_copy_of_something_else_is_refused_by_name(
    tmp_path: Path, given: Folders, change: Callable[[State], State], named: str, rank: int | None
) -> None:
    tuned = saved(given, tmp_path / "tuned", change)
    with pytest.raises(RequestFault, match=named):
        recover_merged(tuned, given.checkpoint, tmp_path / "out", base_model=str(given.base), rank=rank)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_copy_that_is_far_away_is_taken_by_force(tmp_path: Path, given: Folders) -> None:
    tuned = saved(given, tmp_path / "tuned", _other_seed)
    recover_merged(tuned, given.checkpoint, tmp_path / "out", base_model=str(given.base), force=True)


def test_adapters_are_no_copies(tmp_path: Path, given: Folders) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RequestFault, match="is an adapter, no model"):
        recover_merged(tmp_path, given.checkpoint, tmp_path / "out", base_model=str(given.base))


def test_weights_that_were_pruned_one_by_one_stay_the_base_model_s_own(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path, Qwen2Config(**SPARSE), torch.float32)
    given: Any = Folders(base, checkpoint, None)  # type: ignore[arg-type]
    tuned = saved(given, tmp_path / "tuned", trained)
    recover_merged(tuned, checkpoint, tmp_path / "out", base_model=str(base))
    masks, before = WeightMasks(checkpoint / "pruning_masks.safetensors"), load_file(checkpoint / "model.safetensors")
    after = load_file(tuned / "model.safetensors")
    expected = {name: after[name] - tensor for name, tensor in before.items()}
    expected = {name: change * masks.mask(name) if name in masks else change for name, change in expected.items()}
    assert error(given.merged(tmp_path / "out"), expected) < 2e-6


def test_command_takes_a_copy_in_place_of_an_adapter(tmp_path: Path, given: Folders) -> None:
    tuned = saved(given, tmp_path / "tuned", trained)
    common = ["--checkpoint", str(given.checkpoint), "--base", str(given.base), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(recover, ["--from-merged", str(tuned), *common])
    assert result.exit_code == 0, result.output
    assert "Merged the update of" in result.stdout
    copy = ["--from-merged", str(tuned)]
    for wrong in (common, [str(tuned), *copy, *common], [*copy, "--strict", *common]):
        assert CliRunner().invoke(recover, wrong).exit_code == 2
