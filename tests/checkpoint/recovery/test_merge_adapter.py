"""`publisher merge`: the base model with the adapter in it is what PEFT merges, and there whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config

from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.merge_adapter import merge_adapter
from publisher.client.merge import merge
from publisher.errors import OutOfDisk, RequestFault
from publisher.weights.folder import StoredWeights
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders
from tests.checkpoint.recovery.methods.peft_configs import tuned

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders(Qwen2Config(**SIZES), tmp_path_factory.mktemp("merge"), aligned=True)


def adapter(given: Folders, root: Path, case: str = "LORA", **changed: Any) -> Path:
    """Recovered, of the checkpoint of `given`."""
    tuned(given.trainable(), case, **changed).save_pretrained(root / "trained")
    recover_adapter(root / "trained", given.checkpoint, root / "adapter", base_model=str(given.base))
    return root / "adapter"


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        ("LORA", {}),
        ("LORA", {"modules_to_save": ["lm_head"], "use_rslora": True}),
        ("LORA", {"trainable_token_indices": [3, 5]}),
        ("LOHA", {}),
        ("IA3", {}),
        ("HRA", {}),
    ],
    ids=["lora", "whole head", "tokens", "loha", "ia3", "realised"],
)
def test_merged_model_is_what_peft_merges(tmp_path: Path, given: Folders, case: str, changed: dict[str, Any]) -> None:
    recovered = adapter(given, tmp_path, case, **changed)
    report = merge_adapter(given.base, recovered, tmp_path / "out")
    adapted = PeftModel.from_pretrained(given.base_model(), str(recovered)).merge_and_unload().state_dict()
    base = given.base_model().state_dict()
    expected = {name: adapted[name] - tensor for name, tensor in base.items()}
    found = given.merged(tmp_path / "out")
    assert error(found, {name: expected[name] for name in found}) < 2e-6
    assert report.weights > report.changed >= sum(bool(change.any()) for change in found.values())
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_what_the_adapter_does_not_change_is_copied_bit_by_bit(tmp_path: Path, given: Folders) -> None:
    recovered = adapter(given, tmp_path, target_modules=["q_proj"])
    merge_adapter(given.base, recovered, tmp_path / "out")
    before, after = StoredWeights(given.base), StoredWeights(tmp_path / "out")
    moved = {name for name in before.entries if not torch.equal(before.read(name), after.read(name))}
    assert moved == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    assert (tmp_path / "out/config.json").read_bytes() == (given.base / "config.json").read_bytes()


def test_progress_ends_with_the_whole_model(tmp_path: Path, given: Folders) -> None:
    seen: list[tuple[int, int]] = []
    merge_adapter(given.base, adapter(given, tmp_path), tmp_path / "out", progress=lambda *done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == sum(entry.size for entry in StoredWeights(given.base).entries.values())


def _not_a_number(folder: Path, root: Path) -> Path:
    state = load_file(folder / WEIGHTS)
    name = min(name for name in state if "lora_A" in name)
    save_file(state | {name: state[name] * torch.nan}, folder / WEIGHTS)
    return folder


def _unrecovered(folder: Path, root: Path) -> Path:
    return root / "trained"


def _of_a_wider_model(folder: Path, root: Path) -> Path:
    state = load_file(folder / WEIGHTS)
    name = min(name for name in state if "lora_A" in name)
    save_file(state | {name: torch.cat([state[name]] * 2, 1)}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("damaged", "named"),
    [
        (_not_a_number, "holds NaN"),
        (_unrecovered, "is not recovered"),
        (_of_a_wider_model, "does not fit its adapter_config.json|is for a weight of shape"),
    ],
)
def test_bad_adapter_is_refused_before_anything_is_written(
    tmp_path: Path, given: Folders, damaged: Any, named: str
) -> None:
    folder = damaged(adapter(given, tmp_path), tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RequestFault, match=named):
        merge_adapter(given.base, folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_output_that_holds_something_and_a_base_that_is_none_are_refused(tmp_path: Path, given: Folders) -> None:
    recovered = adapter(given, tmp_path)
    with pytest.raises(RequestFault, match="already holds something"):
        merge_adapter(given.base, recovered, recovered)
    with pytest.raises(RequestFault, match=r"it has no config\.json"):
        merge_adapter(tmp_path, recovered, tmp_path / "out")


def test_command_says_what_it_did_and_what_is_wrong_in_one_line(tmp_path: Path, given: Folders) -> None:
    recovered = adapter(given, tmp_path)
    arguments = [str(given.base), str(recovered), str(tmp_path / "out")]
    first, second = (CliRunner().invoke(merge, arguments) for _ in range(2))
    assert (first.exit_code, first.stdout.splitlines()[0]) == (0, f"Merged into 14 of 27 tensors: {tmp_path / 'out'}")
    assert (second.exit_code, second.stdout) == (4, "")
    assert "already holds something" in second.stderr


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond `size` bytes of a file, to every writer in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_in_words_and_nothing_stays(tmp_path: Path, given: Folders) -> None:
    recovered = adapter(given, tmp_path)
    (tmp_path / "to").mkdir()
    with files_of_at_most(1000), pytest.raises(OutOfDisk, match="merged: a file in"):
        merge_adapter(given.base, recovered, tmp_path / "to/merged")
    with files_of_at_most(1000), pytest.raises(OutOfDisk, match="again: a file in"):
        recover_adapter(tmp_path / "trained", given.checkpoint, tmp_path / "to/again", base_model=str(given.base))
    assert not [*(tmp_path / "to").iterdir()]
