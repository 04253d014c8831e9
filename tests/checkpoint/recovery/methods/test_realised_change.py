"""A realised change ends as what was asked for, says what it lost, and refuses files that are not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig

from publisher.checkpoint.recovery import RecoveryReport, recover_adapter
from publisher.errors import RequestFault
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders
from tests.checkpoint.recovery.methods.peft_configs import tuned

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UP = "base_model.model.model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders(LlamaConfig(**SIZES), tmp_path_factory.mktemp("realised"), aligned=True)


def recover(given: Folders, adapter: Path, output: Path, **options: Any) -> RecoveryReport:
    return recover_adapter(adapter, given.checkpoint, output, base_model=str(given.base), **options)


@pytest.mark.parametrize("case", ["OFT", "LORA use_dora", "LORA", "LOHA"])
@pytest.mark.parametrize("rank", [1, 3])
def test_error_of_a_rank_is_the_best_possible_and_stated(tmp_path: Path, given: Folders, case: str, rank: int) -> None:
    adapted = tuned(given.trainable(), case)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = given.expected(adapted)
    report = recover(given, tmp_path / "adapter", tmp_path / "out", rank=rank)

    found = given.recovered(tmp_path / "out")
    matrices = {name: change for name, change in expected.items() if change.ndim == 2 and change.any()}
    best = {name: float(torch.linalg.svdvals(change.double())[rank:].norm()) for name, change in matrices.items()}
    for name, change in matrices.items():
        assert float((found[name] - change).norm()) == pytest.approx(best[name], rel=1e-4, abs=1e-5)
    whole = torch.tensor([float(change.norm()) for change in matrices.values()]).norm()
    share = float(torch.tensor(list(best.values())).norm() / whole)
    stated = next(note for note in report.notes if f"rank {rank}" in note)
    assert f"{share:.2%}" in stated or (share < 1e-4 and "0" in stated)
    assert json.loads((tmp_path / "out" / CONFIG).read_text())["peft_type"] == "LORA"


def test_what_depends_on_the_weights_is_said_and_refused_when_strict(tmp_path: Path, given: Folders) -> None:
    tuned(given.trainable(), "HRA").save_pretrained(tmp_path / "adapter")
    report = recover(given, tmp_path / "adapter", tmp_path / "out")
    assert any(note.startswith("What HRA does depends on the weights it was trained on") for note in report.notes)
    with pytest.raises(RequestFault, match="HRA depends on the weights"):
        recover(given, tmp_path / "adapter", tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_lora_that_leaves_something_out_is_said_and_refused_when_strict(tmp_path: Path, given: Folders) -> None:
    tuned(given.trainable(), "C3A").save_pretrained(tmp_path / "adapter")
    report = recover(given, tmp_path / "adapter", tmp_path / "out", rank=1)
    assert any("is lost in this LoRA" in note for note in report.notes)
    with pytest.raises(RequestFault, match="would leave out"):
        recover(given, tmp_path / "adapter", tmp_path / "strict", rank=1, strict=True)
    recover(given, tmp_path / "adapter", tmp_path / "merged", merge=True, strict=True)


@pytest.mark.parametrize("merge", [False, True])
def test_strength_multiplies_the_realised_change(tmp_path: Path, given: Folders, merge: bool) -> None:
    adapted = tuned(given.trainable(), "OFT")
    adapted.save_pretrained(tmp_path / "adapter")
    expected = {name: 1.5 * change for name, change in given.expected(adapted).items()}
    options: dict[str, Any] = {"merge": True} if merge else {"rank": 24}
    recover(given, tmp_path / "adapter", tmp_path / "out", strength=1.5, **options)
    found = given.merged(tmp_path / "out") if merge else given.recovered(tmp_path / "out")
    assert error(found, expected) < 2e-6


def test_modules_and_layers_that_were_chosen_stay_the_only_ones(tmp_path: Path, given: Folders) -> None:
    changed: dict[str, Any] = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    adapted = tuned(given.trainable(), "LORA use_dora", modules_to_save=["lm_head"], **changed)
    adapted.save_pretrained(tmp_path / "adapter")
    recover(given, tmp_path / "adapter", tmp_path / "out")
    names = load_file(tmp_path / "out" / WEIGHTS)
    assert {name.removeprefix("base_model.model.") for name in names} == {
        "lm_head.weight",
        "model.layers.1.self_attn.q_proj.lora_A.weight",
        "model.layers.1.self_attn.q_proj.lora_B.weight",
    }


def test_checkpoint_in_16_bits_gives_the_change_of_its_own_weights(tmp_path: Path) -> None:
    given = folders(LlamaConfig(**SIZES), tmp_path, aligned=True, dtype=torch.bfloat16)
    tuned(given.trainable(), "HIRA").save_pretrained(tmp_path / "adapter")
    expected = given.expected(tuned(given.trainable().float(), "HIRA"))
    recover(given, tmp_path / "adapter", tmp_path / "out", rank=24)
    assert error(given.recovered(tmp_path / "out"), expected) < 1e-4


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def changed(adapter: Path, change: Change) -> None:
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state | {f"{UP}.oft_R.weight": state[f"{UP}.oft_R.weight"] * torch.nan}, "holds NaN"),
        (lambda state: {n: t for n, t in state.items() if n != f"{UP}.oft_R.weight"}, r"no .*up_proj\.oft_R\.weight"),
        (lambda state: state | {f"{UP}.oft_S.weight": torch.ones(2)}, r"up_proj\.oft_S\.weight has no place"),
        (lambda state: state | {"base_model.oft_shared": torch.ones(2)}, r"oft_shared has no place"),
        (
            lambda state: state | {f"{UP}.oft_R.weight": torch.ones(3, 1)},
            r"does not fit model\.layers\.1\.mlp",
        ),
    ],
    ids=["nan", "missing", "unknown part", "unknown module", "shape"],
)
@pytest.mark.parametrize("merge", [False, True])
def test_file_that_peft_would_load_wrongly_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, given: Folders, change: Change, named: str, merge: bool
) -> None:
    tuned(given.trainable(), "OFT").save_pretrained(tmp_path / "adapter")
    changed(tmp_path / "adapter", change)
    with pytest.raises(RequestFault, match=named):
        recover(given, tmp_path / "adapter", tmp_path / "out", merge=merge)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rank": 0}, "no rank 0"),
        ({"rank": -3}, "no rank -3"),
        ({"rank": 4, "merge": True}, "A merged model has no rank"),
    ],
    ids=str,
)
def test_rank_that_is_none_is_refused(tmp_path: Path, given: Folders, options: dict[str, Any], named: str) -> None:
    tuned(given.trainable(), "OFT").save_pretrained(tmp_path / "adapter")
    with pytest.raises(RequestFault, match=named):
        recover(given, tmp_path / "adapter", tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("peft_type", ["PREFIX_TUNING", "CARTRIDGE", "ADAPTION_PROMPT", "XLORA", "LILY", "SHADOW"])
def test_method_without_a_recovery_is_refused_with_its_reason(tmp_path: Path, given: Folders, peft_type: str) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps({"peft_type": peft_type}))
    with pytest.raises(RequestFault, match=r"The adapter was trained with .+: .{40,}") as refused:
        recover(given, tmp_path / "adapter", tmp_path / "out")
    assert refused.value.way_out
