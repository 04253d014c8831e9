"""Oracle: the base model with the removed heads and neurons silenced, in float64."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from publisher.architecture.structure import Unit
from publisher.checkpoint.pruning_masks import KeptIndices
from publisher.checkpoint.recovery import recover_adapter, recover_state
from publisher.checkpoint.recovery.methods.lora_placement import recovered_shape
from publisher.checkpoint.recovery.scatter import put_back
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS, PROJECTIONS, SIZES, lora, make_pair, masks_of, save_checkpoint, zero_removed

TOKENS = torch.arange(40).reshape(2, 20) % 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), make_pair().pruned)


def saved(folder: Path, **config: object) -> Path:
    """An adapter on the pruned model, as PEFT saves it."""
    lora(make_pair().pruned, **config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 5, "layers.1.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 11}},
        {"target_modules": ["q_proj", "o_proj"]},
        {"layers_to_transform": [1, 2]},
        {"target_modules": [*PROJECTIONS, "lm_head", "embed_tokens"]},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": r".*layers\.[12]\.mlp\..*_proj"},
    ],
    ids=lambda config: "-".join(config) or "plain",
)
@pytest.mark.parametrize("strength", [1, 1.3])
def test_recovered_adapter_on_the_silenced_base_equals_the_adapter_on_the_checkpoint(
    tmp_path: Path, checkpoint: Path, config: dict[str, object], strength: float
) -> None:
    pair = make_pair()
    tuned = lora(pair.pruned, **config)
    tuned.save_pretrained(tmp_path / "adapter")
    for module in tuned.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= strength
    expected = tuned(TOKENS).logits

    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "recovered", strength=strength)
    zero_removed(pair.base)
    recovered = PeftModel.from_pretrained(pair.base, str(tmp_path / "recovered"), autocast_adapter_dtype=False)

    torch.testing.assert_close(recovered(TOKENS).logits, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_strength_that_is_no_positive_number_is_refused(tmp_path: Path, checkpoint: Path, strength: float) -> None:
    with pytest.raises(RequestFault, match="multiplied by"):
        recover_adapter(saved(tmp_path / "adapter"), checkpoint, tmp_path / "out", strength=strength)
    assert not (tmp_path / "out").exists()


def test_merged_update_is_the_same_at_kept_rows_and_columns_and_zero_elsewhere(
    tmp_path: Path, checkpoint: Path
) -> None:
    pair = make_pair()
    tuned = lora(pair.pruned)
    tuned.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "recovered")
    recovered = PeftModel.from_pretrained(pair.base, str(tmp_path / "recovered"), autocast_adapter_dtype=False)

    wide = {name: m.get_delta_weight("default") for name, m in recovered.named_modules() if hasattr(m, "lora_A")}
    narrow = {name: m.get_delta_weight("default") for name, m in tuned.named_modules() if hasattr(m, "lora_A")}
    assert len(wide) == len(narrow) == SIZES["num_hidden_layers"] * len(PROJECTIONS)
    for name, delta in wide.items():
        found = MASKS.parameter(f"{name}.weight")
        assert found is not None
        rows, columns = found.along(0), found.along(1)
        r = torch.arange(delta.shape[0]) if rows is None else rows.indices
        c = torch.arange(delta.shape[1]) if columns is None else columns.indices
        torch.testing.assert_close(delta[r][:, c], narrow[name], rtol=0, atol=0)
        elsewhere = torch.ones_like(delta, dtype=torch.bool)
        elsewhere[r[:, None], c] = False
        assert not delta[elsewhere].any()


def test_recovered_adapter_is_one_that_stock_peft_loads_with_its_base(tmp_path: Path) -> None:
    pair = make_pair()
    pair.base.save_pretrained(tmp_path / "base")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned, base=str(tmp_path / "base"))
    report = recover_adapter(saved(tmp_path / "adapter"), checkpoint, tmp_path / "recovered")

    assert sorted(path.name for path in (tmp_path / "recovered").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "recovered", dtype=torch.float64)
    assert model.peft_config["default"].task_type == TaskType.CAUSAL_LM
    assert model.peft_config["default"].inference_mode
    assert report.widened == 7 + 3  # layer 1: each projection; layer 2: gate, up and down
    assert report.parameters_after > report.parameters_before


def test_recovered_config_names_the_pinned_base_and_keeps_the_rest(tmp_path: Path, checkpoint: Path) -> None:
    adapter = saved(tmp_path / "adapter", use_rslora=True, rank_pattern={"q_proj": 5}, lora_dropout=0.25)
    recover_adapter(adapter, checkpoint, tmp_path / "out")
    before, after = (json.loads((folder / "adapter_config.json").read_text()) for folder in (adapter, tmp_path / "out"))
    assert (after["base_model_name_or_path"], after["revision"]) == ("org/base", "c" * 40)
    changed = {"base_model_name_or_path", "revision", "init_lora_weights", "auto_mapping"}
    assert {key: after[key] for key in after if key not in changed} == {
        key: before[key] for key in before if key not in changed
    }


def test_recovered_weights_keep_their_dtype(tmp_path: Path, checkpoint: Path) -> None:
    adapter = saved(tmp_path / "adapter")
    state = load_file(adapter / "adapter_model.safetensors")
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    mixed = {name: tensor.to(dtypes[i % 4]) for i, (name, tensor) in enumerate(state.items())}
    save_file(mixed, adapter / "adapter_model.safetensors")
    recover_adapter(adapter, checkpoint, tmp_path / "out")
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    expected = recover_state(mixed, MASKS)
    assert written.keys() == expected.keys()
    assert all(written[n].dtype == mixed[n].dtype and torch.equal(written[n], expected[n]) for n in expected)
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_unpruned_masks_change_nothing() -> None:
    whole = replace(MASKS, kept={})
    name = "base_model.model.model.layers.3.mlp.down_proj.lora_A.weight"
    assert recovered_shape(name, (3, 20), whole) == (3, 20)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), full=st.integers(1, 40), other=st.integers(1, 5), axis=st.integers(0, 1))
def test_put_back_and_take_again_is_the_same(data: st.DataObject, full: int, other: int, axis: int) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, full - 1), min_size=1)))
    shape = [other, other]
    shape[axis] = len(kept)
    tensor = torch.randn(shape)
    wide = put_back(tensor, KeptIndices(torch.tensor(kept), full), axis)
    assert wide.shape[axis] == full
    assert torch.equal(wide.index_select(axis, torch.tensor(kept)), tensor)
    assert wide.count_nonzero() == tensor.count_nonzero()


@settings(deadline=None, max_examples=60)
@given(
    heads=st.sets(st.integers(0, 2), min_size=1), neurons=st.sets(st.integers(0, 19), min_size=1), r=st.integers(1, 4)
)
def test_every_projection_gets_the_base_models_shape(heads: set[int], neurons: set[int], r: int) -> None:
    masks = replace(MASKS, kept={(0, Unit.KV_HEADS): sorted(heads), (0, Unit.NEURONS): sorted(neurons)})
    for parameter, spec in masks.kind(0).parameters.items():
        if not spec.parts:
            continue
        left_out, left_in = spec.pruned_shape(masks.counts(0))
        name = f"base_model.model.model.layers.0.{parameter.removesuffix('.weight')}"
        assert recovered_shape(f"{name}.lora_A.weight", (r, left_in), masks) == (r, spec.shape[1])
        assert recovered_shape(f"{name}.lora_B.weight", (left_out, r), masks) == (spec.shape[0], r)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"modules_to_save": ["down_proj"], "target_modules": ["q_proj"]}, r"layers\.1\.mlp\.down_proj\.weight"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
    ],
    ids=["whole pruned matrix", "random pissa"],
)
def test_variants_without_exact_recovery_are_refused_by_name(
    tmp_path: Path, checkpoint: Path, config: dict[str, object], named: str
) -> None:
    pruned = make_pair().pruned.float()  # pissa decomposes in float32 only
    settings = {"r": 3, "target_modules": PROJECTIONS} | config
    get_peft_model(pruned, LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(RequestFault, match=named):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_pissa_that_peft_converted_to_plain_lora_is_recovered(tmp_path: Path, checkpoint: Path) -> None:
    pair = make_pair()
    tuned = lora(pair.pruned.float(), init_lora_weights="pissa")
    tuned.peft_config["default"].init_lora_weights = True
    tuned.save_pretrained(tmp_path / "start")
    tuned.peft_config["default"].init_lora_weights = "pissa"
    tuned.base_model.model.model.layers[1].mlp.up_proj.lora_B["default"].weight.data += 0.5
    tuned.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    zero_removed(pair.base)
    recovered = PeftModel.from_pretrained(pair.base.float(), str(tmp_path / "out"))
    torch.testing.assert_close(recovered(TOKENS).logits, tuned(TOKENS).logits, rtol=1e-3, atol=1e-3)


def test_biases_are_carried_over_only_where_no_row_was_cut(tmp_path: Path) -> None:
    pair = make_pair(attention_bias=True)
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned, masks=masks_of(pair.base))
    uncut = lora(pair.pruned, bias="lora_only", target_modules=["o_proj"])
    uncut.save_pretrained(tmp_path / "uncut")
    recover_adapter(tmp_path / "uncut", checkpoint, tmp_path / "out")
    names = load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
    assert sum(name.endswith("o_proj.base_layer.bias") for name in names) == SIZES["num_hidden_layers"]

    cut = lora(make_pair(attention_bias=True).pruned, bias="lora_only", target_modules=["q_proj"])
    cut.save_pretrained(tmp_path / "cut")
    with pytest.raises(RequestFault, match=r"layers\.1\.self_attn\.q_proj\.base_layer\.bias"):
        recover_adapter(tmp_path / "cut", checkpoint, tmp_path / "other")


def test_adapter_of_another_checkpoint_is_refused_with_the_first_tensor_that_differs(
    tmp_path: Path, checkpoint: Path
) -> None:
    adapter = tmp_path / "adapter"
    lora(make_pair().base).save_pretrained(adapter)
    with pytest.raises(RequestFault) as caught:
        recover_adapter(adapter, checkpoint, tmp_path / "out")
    assert "layers.1.mlp.down_proj.lora_A.weight has shape (3, 20), (3, 6) would fit" in str(caught.value)


def test_adapter_of_a_deeper_model_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    adapter = saved(tmp_path / "adapter")
    state = load_file(adapter / "adapter_model.safetensors")
    deeper = {name.replace("layers.3.", "layers.7."): tensor for name, tensor in state.items()}
    save_file(deeper, adapter / "adapter_model.safetensors")
    with pytest.raises(RequestFault, match="layer 7, the checkpoint has layers 0 … 3"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")


def test_peft_types_that_nothing_is_known_of_are_refused_by_name(tmp_path: Path, checkpoint: Path) -> None:
    saved(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LATER"}))
    with pytest.raises(RequestFault, match="PEFT type LATER"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")


def test_pickled_adapter_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter", safe_serialization=False)
    with pytest.raises(RequestFault, match="is a pickle"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")


def test_damaged_adapter_is_refused_and_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    weights = saved(tmp_path / "adapter") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(RequestFault, match="not a whole safetensors file"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_folder_with_a_named_adapter_says_where_it_is(tmp_path: Path, checkpoint: Path) -> None:
    model = get_peft_model(make_pair().pruned, LoraConfig(target_modules=["q_proj"]), adapter_name="mine")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(RequestFault, match="There are adapters in its folders mine"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")


def test_occupied_output_is_refused_and_kept(tmp_path: Path, checkpoint: Path) -> None:
    adapter = saved(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RequestFault, match="already holds something"):
        recover_adapter(adapter, checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_empty_output_folder_is_used(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").mkdir()
    recover_adapter(saved(tmp_path / "adapter"), checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": "(("},
        {"exclude_modules": "["},
        {"modules_to_save": ["("]},
        {"rank_pattern": {"(": 3}},
        {"alpha_pattern": {"(": 3}},
        {"bias": "some"},
        {"lora_alpha": 10**400},
        {"r": 10**12},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_values_that_peft_cannot_take_are_refused(tmp_path: Path, checkpoint: Path, changed: dict[str, Any]) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(RequestFault, match=r"adapter_config\.json"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "recovered")


def test_the_first_pattern_that_fits_stays_the_first(tmp_path: Path, checkpoint: Path) -> None:
    """PEFT takes the first of them for a module: in another order it scales otherwise, without a word."""
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    alphas = {"q_proj": 2, r"layers\.1\..*": 16}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alpha_pattern": alphas}))

    def scaling(model: PeftModel) -> dict[str, float]:
        return {name: part.scaling["default"] for name, part in model.named_modules() if isinstance(part, LoraLayer)}

    trained = scaling(PeftModel.from_pretrained(make_pair().pruned, str(tmp_path / "adapter")))
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "recovered", strength=1)
    assert scaling(PeftModel.from_pretrained(make_pair().base, str(tmp_path / "recovered"))) == trained


def test_output_that_cannot_be_made_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    with pytest.raises(RequestFault, match="cannot be made"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "adapter" / "adapter_config.json" / "out")
