"""Adapters as PEFT, Trainer and transformers save them say which checkpoint they were trained on."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from publisher.architecture.structure import Unit
from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.provenance import Provenance, Tie, trained_on
from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.tying import tie_of
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest
from tests.checkpoint.pruned import MASKS, describe_again, lora, make_pair, save_checkpoint
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.loading.test_loader import Repeated

#: what another seed keeps: as many neurons, not the same
OTHER = replace(MASKS, kept={**MASKS.kept, (1, Unit.NEURONS): (0, 1, 2, 3, 4, 5)})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), make_pair().pruned.float())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same widths."""
    return save_checkpoint(tmp_path_factory.mktemp("other"), make_pair().pruned.float(), masks=OTHER)


def loaded(checkpoint: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint)
    return model


def stated(adapter: Path) -> Tie | None:
    return trained_on(json.loads((adapter / "adapter_config.json").read_text()))


def tie(checkpoint: Path) -> Tie:
    found = Tie.of(Manifest.read(checkpoint))
    assert found is not None
    return found


def trained(checkpoint: Path, output: Path, **config: Any) -> Path:
    lora(loaded(checkpoint), **config).save_pretrained(output)
    return output


def test_adapter_of_a_loaded_checkpoint_is_verified_and_of_another_is_refused_with_both_named(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    adapter = trained(checkpoint, tmp_path / "adapter")
    assert stated(adapter) == tie(checkpoint) != tie(other)
    assert recover_adapter(adapter, checkpoint, tmp_path / "out").provenance is Provenance.VERIFIED
    named = f"{tie(checkpoint).checkpoint[:12]}.*{tie(other).checkpoint[:12]}"
    with pytest.raises(RequestFault, match=f"trained on checkpoint {named}"):
        recover_adapter(adapter, other, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    assert recover_adapter(adapter, other, tmp_path / "forced", force=True).provenance is Provenance.FORCED


def test_the_same_masks_with_other_weights_are_another_checkpoint_and_the_refusal_says_so(
    checkpoint: Path, tmp_path: Path
) -> None:
    aligned = make_pair().pruned.float()
    aligned.lm_head.weight.data += 1
    save_checkpoint(tmp_path / "aligned", aligned)
    with pytest.raises(RequestFault, match="Their masks are equal, their weights are not"):
        recover_adapter(trained(checkpoint, tmp_path / "adapter"), tmp_path / "aligned", tmp_path / "out")


def test_a_copy_of_the_checkpoint_in_another_folder_is_the_same_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    adapter = trained(save_checkpoint(tmp_path / "copy", make_pair().pruned.float()), tmp_path / "adapter")
    assert recover_adapter(adapter, checkpoint, tmp_path / "out").provenance is Provenance.VERIFIED


def test_adapter_that_says_nothing_is_unverified_and_recovered(checkpoint: Path, tmp_path: Path) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    assert stated(tmp_path / "adapter") is None
    assert recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out").provenance is Provenance.UNVERIFIED


@pytest.mark.parametrize("garbage", ["text", {"loram": "text"}, {"loram": {"trained_on": {"checkpoint": 3}}}])
def test_what_others_write_there_counts_as_nothing(checkpoint: Path, tmp_path: Path, garbage: object) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_mapping": garbage}))
    assert recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out").provenance is Provenance.UNVERIFIED


def test_tie_survives_loading_on_the_checkpoint_and_saving_again(checkpoint: Path, tmp_path: Path) -> None:
    adapter = trained(checkpoint, tmp_path / "adapter")
    PeftModel.from_pretrained(loaded(checkpoint), str(adapter), is_trainable=True).save_pretrained(tmp_path / "again")
    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "again").save_pretrained(tmp_path / "auto")
    copy.deepcopy(lora(loaded(checkpoint))).save_pretrained(tmp_path / "copied")
    assert {stated(tmp_path / name) for name in ("again", "auto", "copied")} == {tie(checkpoint)}


def test_tie_survives_saving_again_in_a_process_without_this_package(checkpoint: Path, tmp_path: Path) -> None:
    adapter = trained(checkpoint, tmp_path / "adapter")
    code = (
        f"from peft import PeftConfig\nPeftConfig.from_pretrained({str(adapter)!r}).save_pretrained({str(adapter)!r})"
    )
    subprocess.run([sys.executable, "-W", "error:Unexpected", "-c", code], check=True)
    assert stated(adapter) == tie(checkpoint)


def test_named_adapters_and_those_without_a_task_say_it_too(checkpoint: Path, tmp_path: Path) -> None:
    model = get_peft_model(loaded(checkpoint), LoraConfig(target_modules=["q_proj"]), adapter_name="mine")
    model.save_pretrained(tmp_path)
    assert stated(tmp_path / "mine") == tie(checkpoint)
    mapping = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())["auto_mapping"]
    assert mapping["base_model_class"] == "LlamaForCausalLM"


def test_adapters_that_transformers_itself_adds_and_saves_say_it_too(checkpoint: Path, tmp_path: Path) -> None:
    model = loaded(checkpoint)
    model.add_adapter(LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path)
    assert stated(tmp_path) == tie(checkpoint)


def test_configs_of_other_models_that_are_saved_later_say_nothing(checkpoint: Path, tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(loaded(checkpoint), config).save_pretrained(tmp_path / "tied")
    get_peft_model(make_pair().pruned, config).save_pretrained(tmp_path / "free")
    assert (stated(tmp_path / "tied"), stated(tmp_path / "free")) == (tie(checkpoint), None)


def test_every_checkpoint_of_a_trainer_and_of_the_run_that_it_resumes_says_it(checkpoint: Path, tmp_path: Path) -> None:
    for steps, resumed in ((2, False), (4, True)):
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            save_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model=lora(loaded(checkpoint)), args=arguments, train_dataset=Repeated())
        trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model(str(tmp_path / "final"))
    adapters = [tmp_path / "checkpoint-2", tmp_path / "checkpoint-4", tmp_path / "final"]
    assert [stated(adapter) for adapter in adapters] == [tie(checkpoint)] * 3


def test_model_that_is_saved_anew_is_no_longer_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    loaded(checkpoint).save_pretrained(tmp_path / "converted")
    assert stated(trained(tmp_path / "converted", tmp_path / "adapter")) is None


def test_recovered_adapter_says_from_what_it_came_and_is_not_recovered_twice(checkpoint: Path, tmp_path: Path) -> None:
    recover_adapter(trained(checkpoint, tmp_path / "adapter"), checkpoint, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["auto_mapping"]["loram"] == {
        "recovered_from": {"checkpoint": tie(checkpoint).checkpoint, "masks": tie(checkpoint).masks},
        "provenance": "verified",
        "base": {"repo_id": "org/base", "revision": "c" * 40},
    }
    PeftModel.from_pretrained(make_pair().base, str(tmp_path / "out")).save_pretrained(tmp_path / "saved again")
    for folder in ("out", "saved again"):
        with pytest.raises(RequestFault, match=r"recovered already from checkpoint .* for the base model org/base"):
            recover_adapter(tmp_path / folder, checkpoint, tmp_path / "twice", force=True)


def test_loading_a_checkpoint_with_a_damaged_masks_file_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, make_pair().pruned)
    flip_last_bit(folder / "pruning_masks.safetensors")
    with pytest.raises(RequestFault, match=r"pruning_masks\.safetensors has sha256"):
        loaded(folder)


def test_checkpoint_whose_weights_or_config_were_replaced_loads_with_a_warning_and_is_not_that_checkpoint(
    tmp_path: Path,
) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    LlamaForCausalLM.from_pretrained(folder).float().save_pretrained(folder)
    with pytest.warns(UserWarning, match=r"is not the checkpoint that its loram\.json tells of"):
        model = loaded(folder)
    assert tie_of(model) is None


def test_masks_of_another_checkpoint_or_damaged_ones_are_refused_for_training(tmp_path: Path) -> None:
    folders = []
    for seed in (0, 1):
        model = make_pair().base
        model.lm_head.weight.data += seed
        model.save_pretrained(tmp_path / f"dense{seed}")
        folder = save_checkpoint(tmp_path / f"sparse{seed}", model)
        part = "proj" if seed else "mlp"
        zero_pruned(folder, write_masks(tmp_path / f"dense{seed}", folder / "pruning_masks.safetensors", part))
        folders.append(describe_again(folder))
    tuned = lora(loaded(folders[0]))
    with pytest.raises(RequestFault, match="whose masks are others"):
        mask_adapter(tuned, folders[1])
    assert mask_adapter(tuned, folders[0]) > 0
    flip_last_bit(folders[0] / "pruning_masks.safetensors")
    with pytest.raises(RequestFault, match=r"pruning_masks\.safetensors has sha256"):
        mask_adapter(tuned, folders[0])
    flip_last_bit(folders[0] / "pruning_masks.safetensors")
    tuned.save_pretrained(tmp_path / "adapter")
    base = str(tmp_path / "dense0")
    report = recover_adapter(tmp_path / "adapter", folders[0], tmp_path / "merged", base_model=base)
    assert report.provenance is Provenance.VERIFIED


def test_models_of_no_checkpoint_are_loaded_as_ever(tmp_path: Path) -> None:
    make_pair().base.save_pretrained(tmp_path)
    assert tie_of(loaded(tmp_path)) is None
    assert torch.equal(loaded(tmp_path).lm_head.weight, make_pair().base.lm_head.weight)


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def test_adapter_on_a_checkpoint_of_other_masks_is_said_and_stays_of_its_own(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    trained(checkpoint, tmp_path / "adapter")
    with pytest.warns(UserWarning, match="whose masks are others"):
        model = PeftModel.from_pretrained(loaded(other), tmp_path / "adapter")
    model.save_pretrained(tmp_path / "again")
    assert stated(tmp_path / "again") == tie(checkpoint)
    with pytest.raises(RequestFault, match="was trained on checkpoint"):
        recover_adapter(tmp_path / "again", other, tmp_path / "out")


def test_adapter_that_was_saved_into_the_checkpoint_makes_it_another_model(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned.float())
    trained(checkpoint, checkpoint)
    with pytest.warns(UserWarning, match="adapter_config.json is not among the files"):
        assert tie_of(loaded(checkpoint)) is None
