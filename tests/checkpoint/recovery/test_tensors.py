"""What an adapter's file may hold: what is no number, no training or no LoRA is refused or said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.checkpoint.recovery import recover_adapter, recover_state
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS, lora, make_pair, save_checkpoint
from tests.checkpoint.recovery.test_merging import prepared
from tests.checkpoint.recovery.test_merging import trained as trained_sparse
from tests.checkpoint.recovery.test_places import WEIGHTS, changed
from tests.devices import each_device

NAME = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, pair = tmp_path_factory.mktemp("tensors"), make_pair()
    checkpoint = save_checkpoint(root / "checkpoint", pair.pruned)
    lora(pair.pruned, modules_to_save=["lm_head"]).save_pretrained(root / "adapter")
    return checkpoint, root / "adapter"


def holding(name: str, value: float, dtype: torch.dtype) -> Change:
    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        state = {each: tensor.clone() for each, tensor in state.items()}
        state[name][-1, -1] = value
        return state | {name: state[name].to(dtype)}

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("name", [NAME, NAME.replace("lora_A", "lora_B"), "base_model.model.lm_head.weight"])
def test_what_is_not_finite_is_refused_by_name(
    tmp_path: Path, folders: tuple[Path, Path], name: str, dtype: torch.dtype, value: float
) -> None:
    checkpoint, adapter = folders
    kind = "NaN" if value != value else "infinity"
    with pytest.raises(RequestFault, match=f"{name} of the adapter holds {kind}"):
        recover_adapter(changed(adapter, tmp_path / "a", holding(name, value, dtype)), checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_infinity_that_casting_makes_is_refused(tmp_path: Path) -> None:
    """An update that a base model in fp16 cannot take."""
    base, checkpoint = prepared(tmp_path, dtype=torch.float16)
    trained_sparse(checkpoint, tmp_path / "adapter")
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    large = changed(tmp_path / "adapter", tmp_path / "a", lambda state: state | {name: state[name].float() * 1e7})
    with pytest.raises(RequestFault, match=r"layers\.1\.mlp\.down_proj\.weight, .*is no finite number in float16"):
        recover_adapter(large, checkpoint, tmp_path / "out", base_model=str(base))
    assert not (tmp_path / "out").exists()


def test_strength_that_makes_alpha_infinite_is_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    checkpoint, adapter = folders
    with pytest.raises(RequestFault, match="no finite number"):
        recover_adapter(adapter, checkpoint, tmp_path / "out", strength=1e308)


@each_device
def test_tensors_are_recovered_where_they_are(folders: tuple[Path, Path], device: str) -> None:
    state = {name: tensor for name, tensor in load_file(folders[1] / WEIGHTS).items() if ".lora_" in name}
    found = recover_state({name: tensor.to(device) for name, tensor in state.items()}, MASKS)
    for name, tensor in recover_state(state, MASKS).items():
        assert found[name].device.type == device
        assert torch.equal(found[name].cpu(), tensor)


def with_zeros(*parts: str) -> Change:
    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        zero = {name for name in state if any(part in name for part in parts)}
        return {name: tensor * 0 if name in zero else tensor for name, tensor in state.items()}

    return change


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_untrained_adapter_is_said(tmp_path: Path, folders: tuple[Path, Path], part: str) -> None:
    checkpoint, adapter = folders
    idle = changed(adapter, tmp_path / "a", with_zeros(part))
    assert any("not trained" in note for note in recover_adapter(idle, checkpoint, tmp_path / "out").notes)
    some = changed(adapter, tmp_path / "b", with_zeros(f"layers.2.mlp.up_proj.{part}"))
    notes = recover_adapter(some, checkpoint, tmp_path / "other").notes
    assert any("1 of 28 adapted modules have no update" in note and "layers.2.mlp.up_proj" in note for note in notes)
    assert not any("update" in note for note in recover_adapter(adapter, checkpoint, tmp_path / "whole").notes)


def test_update_of_biases_alone_is_training() -> None:
    """B = 0 beside a trained bias of B changes what the layer gives."""
    from publisher.checkpoint.recovery.methods.lora import LORA
    from publisher.checkpoint.recovery.tensors import AdapterTensors

    class File:
        tensors = {"m.lora_A.weight": torch.ones(2, 4), "m.lora_B.weight": torch.zeros(4, 2)}

        def get_tensor(self, name: str) -> Tensor:
            return self.tensors[name]

    file = File()
    assert LORA.idle(AdapterTensors(file, LORA.naming, {name: name for name in file.tensors}).finite()) == {"m"}
    file.tensors = file.tensors | {"m.lora_B.bias": torch.ones(4)}
    assert LORA.idle(AdapterTensors(file, LORA.naming, {name: name for name in file.tensors}).finite()) == set()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_floats_of_8_bits_are_put_back_bit_by_bit(
    tmp_path: Path, folders: tuple[Path, Path], dtype: torch.dtype
) -> None:
    checkpoint, adapter = folders

    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(dtype) if ".lora_" in name else tensor for name, tensor in state.items()}

    small = changed(adapter, tmp_path / "a", change)
    recover_adapter(small, checkpoint, tmp_path / "out")
    state = {name: tensor for name, tensor in load_file(small / WEIGHTS).items() if ".lora_" in name}
    expected = recover_state({name: tensor.float() for name, tensor in state.items()}, MASKS)
    found = load_file(tmp_path / "out" / WEIGHTS)
    assert all(found[name].dtype == dtype and torch.equal(found[name].float(), expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64], ids=str)
def test_what_is_no_float_is_refused_by_name(tmp_path: Path, folders: tuple[Path, Path], dtype: torch.dtype) -> None:
    checkpoint, adapter = folders
    integers = changed(adapter, tmp_path / "a", lambda state: state | {NAME: state[NAME].to(dtype)})
    with pytest.raises(RequestFault, match=f"{NAME} of the adapter holds [A-Z0-9]+, which is nothing that was trained"):
        recover_adapter(integers, checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 7, b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64], ids=len
)
def test_file_that_is_no_safetensors_is_refused(tmp_path: Path, folders: tuple[Path, Path], content: bytes) -> None:
    checkpoint, adapter = folders
    broken = changed(adapter, tmp_path / "a", dict)
    (broken / WEIGHTS).write_bytes(content)
    with pytest.raises(RequestFault, match=r"is not a whole safetensors file|is a Git LFS pointer"):
        recover_adapter(broken, checkpoint, tmp_path / "out")


@pytest.mark.parametrize("change", [lambda state: {}, lambda state: {"lm_head.weight": state[NAME]}])
def test_file_without_lora_is_refused(tmp_path: Path, folders: tuple[Path, Path], change: Change) -> None:
    checkpoint, adapter = folders
    with pytest.raises(RequestFault, match="has no LoRA tensor"):
        recover_adapter(changed(adapter, tmp_path / "a", change), checkpoint, tmp_path / "out")


@pytest.mark.parametrize("shape", [(0, 6), (3, 0), (6,), (3, 6, 1)], ids=str)
def test_rank_of_nothing_and_shards_are_refused(
    tmp_path: Path, folders: tuple[Path, Path], shape: tuple[int, ...]
) -> None:
    checkpoint, adapter = folders
    sharded = changed(adapter, tmp_path / "a", lambda state: state | {NAME: torch.ones(shape)})
    with pytest.raises(RequestFault, match=f"{NAME} has shape"):
        recover_adapter(sharded, checkpoint, tmp_path / "out")


def test_weights_in_4_bits_that_peft_saves_beside_the_adapter_are_left_out(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    checkpoint, adapter = folders
    packed = "base_model.model.model.embed_tokens.base_layer.weight"
    beside = {
        packed: torch.zeros(768, 1, dtype=torch.uint8),
        f"{packed}.absmax": torch.zeros(24, dtype=torch.uint8),
        f"{packed}.quant_map": torch.zeros(16),
        f"{packed}.quant_state.bitsandbytes__nf4": torch.zeros(80, dtype=torch.uint8),
    }
    report = recover_adapter(
        changed(adapter, tmp_path / "a", lambda state: state | beside), checkpoint, tmp_path / "out"
    )
    assert load_file(tmp_path / "out" / WEIGHTS).keys() == load_file(adapter / WEIGHTS).keys()
    assert any(packed in note and "4 bits" in note for note in report.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_config_with_a_byte_order_mark_is_read(tmp_path: Path, folders: tuple[Path, Path], encoding: str) -> None:
    checkpoint, adapter = folders
    marked = changed(adapter, tmp_path / "a", dict)
    text = (adapter / "adapter_config.json").read_text(encoding="utf-8")
    (marked / "adapter_config.json").write_text(text, encoding=encoding)
    recover_adapter(marked, checkpoint, tmp_path / "out")
    written = (tmp_path / "out" / "adapter_config.json").read_bytes()
    assert json.loads(written.decode("utf-8"))["r"] == 3
    assert not written.startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    "content", [b'{"r": "\xe9"}', b"", b"[" * 100_000, b'{"r": 1' + b"0" * 5000 + b"}", b"[]"], ids=len
)
def test_config_that_is_no_json_object_is_refused(tmp_path: Path, folders: tuple[Path, Path], content: bytes) -> None:
    checkpoint, adapter = folders
    broken = changed(adapter, tmp_path / "a", dict)
    (broken / "adapter_config.json").write_bytes(content)
    with pytest.raises(RequestFault, match=r"adapter_config\.json is not"):
        recover_adapter(broken, checkpoint, tmp_path / "out")


def test_adapter_that_was_not_masked_in_training_is_said(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    for masked in (True, False):
        trained_sparse(checkpoint, tmp_path / f"a{masked}", masked=masked)
        report = recover_adapter(tmp_path / f"a{masked}", checkpoint, tmp_path / f"out{masked}", base_model=str(base))
        assert any("masked in training" in note for note in report.notes) != masked
