"""Names that adapters are saved under, against what PEFT itself loads on the base model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.methods.lora import LORA
from publisher.checkpoint.recovery.places import AdapterPlaces, places
from publisher.checkpoint.weight_masks import open_masks
from publisher.errors import RequestFault
from tests.checkpoint.pruned import lora, make_pair, save_checkpoint
from tests.checkpoint.recovery.test_merging import prepared
from tests.checkpoint.recovery.test_merging import trained as trained_sparse
from tests.checkpoint.recovery.test_whole_parameters import loaded

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
FOREIGN: dict[str, Callable[[str], str]] = {
    "torch.compile outside": lambda name: f"_orig_mod.{name}",
    "torch.compile inside": lambda name: name.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "torch.compile of layers": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    "DDP": lambda name: f"module.{name}",
    "DDP inside": lambda name: name.replace(PREFIX, f"{PREFIX}module."),
    "FSDP": lambda name: name.replace(".mlp.", "._fsdp_wrapped_module.mlp._checkpoint_wrapped_module."),
    "no PEFT prefix": lambda name: name.removeprefix(PREFIX),
    "no inner model": lambda name: name.replace(f"{PREFIX}model.", PREFIX),
    "layers alone": lambda name: name.replace(f"{PREFIX}model.", ""),
    "language model": lambda name: name.replace(f"{PREFIX}model.", f"{PREFIX}model.language_model."),
    "language model outside": lambda name: name.replace(PREFIX, f"{PREFIX}language_model."),
    "adapter's name": lambda name: name.replace(".weight", ".default.weight") if ".lora_" in name else name,
    "another name": lambda name: name.replace(".weight", ".mine.weight") if ".lora_" in name else name,
    "modules_to_save": lambda name: name.replace("lm_head.weight", "lm_head.modules_to_save.default.weight"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and an adapter on it: LoRA in all layers, and a head that is saved whole."""
    root, pair = tmp_path_factory.mktemp("names"), make_pair()
    checkpoint = save_checkpoint(root / "checkpoint", pair.pruned)
    lora(pair.pruned, modules_to_save=["lm_head"]).save_pretrained(root / "adapter")
    return checkpoint, root / "adapter"


def changed(adapter: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    save_file(change(load_file(adapter / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def renamed(adapter: Path, folder: Path, rename: Callable[[str], str]) -> Path:
    return changed(adapter, folder, lambda state: {rename(name): tensor for name, tensor in state.items()})


def with_config(adapter: Path, folder: Path, **values: Any) -> Path:
    changed(adapter, folder, dict)
    config = json.loads((adapter / "adapter_config.json").read_text()) | values
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", FOREIGN)
def test_tensors_named_otherwise_are_recovered_under_the_names_that_peft_loads(
    tmp_path: Path, folders: tuple[Path, Path], kind: str
) -> None:
    checkpoint, adapter = folders
    foreign = renamed(adapter, tmp_path / "foreign", FOREIGN[kind])
    assert load_file(foreign / WEIGHTS).keys() != load_file(adapter / WEIGHTS).keys()
    report = recover_adapter(foreign, checkpoint, tmp_path / "out")
    recover_adapter(adapter, checkpoint, tmp_path / "expected")
    expected, found = (load_file(tmp_path / folder / WEIGHTS) for folder in ("expected", "out"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any("not named as PEFT names them" in note for note in report.notes)


def test_recovered_adapter_fills_every_place_on_the_base_model_and_moves_it(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    checkpoint, adapter = folders
    recover_adapter(renamed(adapter, tmp_path / "a", FOREIGN["DDP"]), checkpoint, tmp_path / "out")
    tokens, base = torch.arange(20)[None], make_pair().base
    before = base(tokens).logits
    assert (loaded(base, tmp_path / "out")(tokens).logits - before).abs().max() > 0.01


def extra(name: str, shape: tuple[int, ...]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: state | {name: torch.ones(shape, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (extra(f"{PREFIX}vision_tower.layers.0.self_attn.q_proj.lora_A.weight", (3, 24)), "vision_tower.*has no place"),
        (extra(f"{PREFIX}model.layers.0.self_attn.qq_proj.lora_A.weight", (3, 24)), "qq_proj"),
        (extra(f"{PREFIX}model.embed_tokens.lora_embedding_A", (3, 64)), "embed_tokens.lora_embedding_A has no place"),
        (extra(f"{PREFIX}score.weight", (2, 24)), "score.weight has no place"),
        (
            extra(f"{PREFIX}model.layers.0.mlp.up_proj.lora_A.other.weight", (3, 24)),
            r"has .*lora_A\.other\.weight and .*lora_A\.weight, which are both",
        ),
        (
            lambda state: {name: tensor for name, tensor in state.items() if "layers.2.mlp.up_proj.lora_B" not in name},
            r"has no .*layers\.2\.mlp\.up_proj\.lora_B\.weight",
        ),
        (
            lambda state: {name: tensor for name, tensor in state.items() if "lm_head" not in name},
            r"has no base_model\.model\.lm_head\.weight",
        ),
    ],
    ids=[
        "another tower",
        "no module",
        "not targeted",
        "another head",
        "two adapters",
        "half a pair",
        "no saved module",
    ],
)
def test_tensor_without_its_place_is_refused_by_name(
    tmp_path: Path,
    folders: tuple[Path, Path],
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    named: str,
) -> None:
    checkpoint, adapter = folders
    with pytest.raises(RequestFault, match=named):
        recover_adapter(changed(adapter, tmp_path / "a", change), checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"target_modules": ["q_proj"]}, "has no place in the model: adapter_config.json does not name"),
        ({"target_modules": ["query_key_value"]}, r"target_modules \['query_key_value'\], does not fit"),
        ({"r": 5}, r"has shape \(3, .*PEFT makes \(5, "),
        ({"r": "3"}, r'r = "3"; a positive whole number'),
        ({"r": 0}, "r = 0; a positive whole number"),
        ({"lora_alpha": "16"}, 'lora_alpha = "16"; a number'),
        ({"lora_alpha": float("nan")}, "lora_alpha = NaN"),
        ({"lora_alpha": 0}, "lora_alpha = 0; a number but 0"),
        ({"rank_pattern": {"q_proj": 2.5}}, r"rank_pattern of q_proj = 2\.5"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern = "),
        ({"modules_to_save": {"lm_head": True}}, "modules_to_save = "),
        ({"use_rslora": "no"}, 'use_rslora = "no"; true or false'),
    ],
    ids=str,
)
def test_config_that_does_not_fit_its_tensors_is_refused(
    tmp_path: Path, folders: tuple[Path, Path], values: dict[str, Any], named: str
) -> None:
    checkpoint, adapter = folders
    with pytest.raises(RequestFault, match=named):
        recover_adapter(with_config(adapter, tmp_path / "a", **values), checkpoint, tmp_path / "out")


def test_modules_that_are_targeted_and_have_nothing_are_said(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    checkpoint, adapter = folders
    part = changed(adapter, tmp_path / "a", lambda state: {n: t for n, t in state.items() if "layers.3." not in n})
    report = recover_adapter(part, checkpoint, tmp_path / "out")
    assert any("14 tensors are missing" in note and "layers.3." in note for note in report.notes)


def test_foreign_names_are_merged_where_single_weights_were_pruned(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    trained_sparse(checkpoint, tmp_path / "adapter")
    for folder, rename in (("plain", str), ("foreign", FOREIGN["language model"])):
        adapter = renamed(tmp_path / "adapter", tmp_path / folder, rename)
        recover_adapter(adapter, checkpoint, tmp_path / f"{folder}-merged", base_model=str(base))
    merged = [load_file(tmp_path / f"{folder}-merged/model.safetensors") for folder in ("plain", "foreign")]
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[0])
    other = renamed(tmp_path / "adapter", tmp_path / "a", lambda name: name.replace("model.layers", "tower.layers"))
    with pytest.raises(RequestFault, match="has no place"):
        recover_adapter(other, checkpoint, tmp_path / "out", base_model=str(base))


def test_name_that_could_be_of_two_modules_is_refused() -> None:
    found = AdapterPlaces(LORA.naming, {"model.a.weight": (1,), "a.weight": (1,)}, {}, 8, frozenset(), "embed")
    assert found.names(["a.weight", "model.a.weight"]) == {"a.weight": "a.weight", "model.a.weight": "model.a.weight"}
    with pytest.raises(RequestFault, match=r"module\.a\.weight could be a\.weight or model\.a\.weight"):
        found.names(["module.a.weight"])


def test_places_are_those_of_the_model_that_peft_adapts(folders: tuple[Path, Path]) -> None:
    checkpoint, adapter = folders
    config = json.loads((adapter / "adapter_config.json").read_text())
    tuned = lora(make_pair().pruned, modules_to_save=["lm_head"])
    expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(tuned).items()}
    masks = open_masks(checkpoint / "pruning_masks.safetensors")
    assert places(checkpoint, config, LORA.naming, masks).wanted == expected


def test_module_of_a_tensor() -> None:
    module_of = LORA.naming.module_of
    assert module_of(f"{PREFIX}model.layers.0.mlp.up_proj.lora_B.bias") == "model.layers.0.mlp.up_proj"
    assert module_of(f"{PREFIX}model.embed_tokens.lora_embedding_A") == "model.embed_tokens"
    assert module_of(f"{PREFIX}model.embed_tokens.base_layer.weight") == "model.embed_tokens"
    assert module_of(f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta") == "model.embed_tokens"
    assert module_of(f"{PREFIX}lm_head.weight") == "lm_head"
