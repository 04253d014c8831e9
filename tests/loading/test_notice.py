"""What config.json says to whoever has transformers alone, and that it is not in the way of who has this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from publisher.checkpoint.compression import METHOD as SPARSE
from publisher.checkpoint.compression import compress_folder
from publisher.loading.four_bit_everywhere import METHOD as EVERYWHERE
from publisher.loading.notice import ACCESS_KEY, FILE_KEY, NOTICE, with_notice, without_notice
from publisher.loading.transformers_features import SUPPORTED
from tests.checkpoint.pruned import SIZES, make_pair
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.models import byte_tokenizer
from worker.quantization.nf4 import quantize_nf4

NARROW = {"per_layer_config": {"1": {"intermediate_size": 6}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose layers differ, with a tokenizer, in bf16."""
    make_pair(vocab_size=260).pruned.bfloat16().save_pretrained(tmp_path / "pruned")
    byte_tokenizer().save_pretrained(tmp_path / "pruned")
    return tmp_path / "pruned"


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_bytes()))


def with_transformers_alone(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """`path` comes before everything else that can be imported."""
    places = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


def refusal(folder: Path) -> str:
    """The last line that loading with transformers alone says."""
    code = f"from transformers import AutoModelForCausalLM as A; A.from_pretrained({str(folder)!r})"
    done = with_transformers_alone(code)
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def test_a_config_that_transformers_reads_alone_has_no_notice() -> None:
    for config in (SIZES, {"quantization_config": {"quant_method": "bitsandbytes"}}, {"per_layer_config": {}}):
        assert with_notice(config) == config


def test_every_way_of_storing_that_is_this_package_s_own_has_the_notice() -> None:
    assert with_notice(NARROW) == NARROW | {FILE_KEY: NOTICE, ACCESS_KEY: True}
    for method in (SPARSE, EVERYWHERE):
        config = {"quantization_config": {"quant_method": method}}
        assert with_notice(config) == config | {FILE_KEY: NOTICE}
        assert without_notice(with_notice(config)) == config


def test_the_notice_goes_when_its_reason_does() -> None:
    told = with_notice(NARROW)
    del told["per_layer_config"]
    assert with_notice(told) == {}


def test_a_weights_file_that_others_named_is_left_as_it_is() -> None:
    config = {FILE_KEY: "other.safetensors", ACCESS_KEY: True}
    assert without_notice(config) == config


def test_the_tokenizer_of_such_a_checkpoint_loads_with_transformers_alone(folder: Path) -> None:
    code = (
        f"from transformers import AutoTokenizer as A; print(A.from_pretrained({str(folder)!r})('Ishmael').input_ids)"
    )
    done = with_transformers_alone(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == AutoTokenizer.from_pretrained(folder)("Ishmael").input_ids


@pytest.mark.parametrize("include_embeddings", [False, True])
def test_four_bits_are_refused_by_name(folder: Path, tmp_path: Path, include_embeddings: bool) -> None:
    quantize_nf4(folder, tmp_path / "nf4", "cpu", include_embeddings=include_embeddings)
    assert NOTICE in refusal(tmp_path / "nf4")


def test_compressed_weights_are_refused_by_name_and_saved_dense_without_the_notice(tmp_path: Path) -> None:
    make_pair().base.float().save_pretrained(tmp_path / "dense")
    masks = write_masks(tmp_path / "dense", tmp_path / "pruning_masks.safetensors")
    zero_pruned(tmp_path / "dense", masks)
    (tmp_path / "compressed").mkdir()
    compress_folder(tmp_path / "dense", masks, tmp_path / "compressed")
    assert NOTICE in refusal(tmp_path / "compressed")
    AutoModelForCausalLM.from_pretrained(tmp_path / "compressed").save_pretrained(tmp_path / "again")
    assert FILE_KEY not in config_of(tmp_path / "again")


def test_what_is_saved_of_a_loaded_checkpoint_has_the_notice_again(folder: Path, tmp_path: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert getattr(loaded.config, FILE_KEY, None) is None
    loaded.save_pretrained(tmp_path / "again")
    assert config_of(tmp_path / "again") == config_of(folder)
    assert NOTICE in refusal(tmp_path / "again")


def test_after_the_import_a_width_of_all_layers_is_still_nobody_s(folder: Path) -> None:
    """The notice lets others read base widths; here that would hide code that mistakes them for a layer's."""
    config = AutoConfig.from_pretrained(folder)
    with pytest.raises(RuntimeError, match="is a per-layer attribute"):
        _ = config.intermediate_size
    assert [layer.intermediate_size for layer in config.per_layer_config] == [20, 6, 8, 20]


def test_a_config_class_s_own_from_dict_leaves_it_out_too() -> None:
    config = LlamaConfig.from_dict(with_notice(SIZES | NARROW))
    assert not hasattr(config, FILE_KEY)
    assert config.allow_global_per_layer_attribute_access is False


def test_an_older_transformers_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A package of that name and version that has none of what is needed."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").touch()
    (tmp_path / "transformers" / "integrations").mkdir()
    (tmp_path / "transformers" / "integrations" / "__init__.py").touch()
    (tmp_path / "transformers-4.57.6.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: transformers\nVersion: 4.57.6\n"
    (tmp_path / "transformers-4.57.6.dist-info" / "METADATA").write_text(metadata)
    done = with_transformers_alone("import publisher.checkpoint", tmp_path)
    assert done.returncode != 0
    said = done.stderr.splitlines()[-1]
    assert f"works with {SUPPORTED}; 4.57.6 is installed" in said
    assert f"Run `pip install '{SUPPORTED}'`" in said


def test_logits_are_the_same_with_the_notice(folder: Path) -> None:
    tokens = torch.arange(12)[None]
    told = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
    (folder / "config.json").write_text(json.dumps(without_notice(config_of(folder))))
    assert torch.equal(told, AutoModelForCausalLM.from_pretrained(folder)(tokens).logits)
