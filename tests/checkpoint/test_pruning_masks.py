"""Both kinds of masks answer what is asked of either; the oracle is the pruned model itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from publisher.checkpoint.masks import save_masks
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.weight_masks import open_masks
from publisher.errors import RequestFault
from publisher.families.describe import describe
from publisher.weights.folder import StoredWeights
from tests.checkpoint.pruned import GEOMETRY, MASKS, SIZES, make_pair
from tests.checkpoint.sparse import write_masks, zero_pruned

WEIGHT = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PruningMasks]:
    """As they are read from files; those of single weights beside the model that they were made of."""
    folder = tmp_path_factory.mktemp("masks")
    save_masks(MASKS, folder / "units.safetensors")
    make_pair().base.save_pretrained(folder / "base")
    write_masks(folder / "base", folder / "weights.safetensors")
    zero_pruned(folder / "base", open_masks(folder / "weights.safetensors").update_masks)
    return {kind: open_masks(folder / f"{kind}.safetensors") for kind in ("units", "weights")}


def test_parameters_that_are_left_are_those_of_the_pruned_model(masks: dict[str, PruningMasks]) -> None:
    widths, parameters = masks["units"].left(GEOMETRY)
    assert parameters == sum(parameter.numel() for parameter in make_pair().pruned.parameters())
    assert [layer.neurons for layer in widths] == [20, 6, 8, 20]

    widths, parameters = masks["weights"].left(GEOMETRY)
    single = masks["weights"].update_masks
    assert single is not None
    stored = StoredWeights(single.path.parent / "base")
    assert parameters == sum(int(stored.read(name).count_nonzero()) for name in stored.entries)
    assert list(widths) == list(GEOMETRY.full_widths)


def test_an_update_of_a_matrix_is_masked_only_where_single_weights_were_pruned(masks: dict[str, PruningMasks]) -> None:
    assert masks["units"].update_masks is None
    assert masks["units"].mask_of(WEIGHT) is None
    mask = masks["weights"].mask_of(WEIGHT)
    assert mask is not None
    assert (mask.dtype, mask.shape) == (torch.bool, (20, 24))
    assert masks["weights"].mask_of("model.layers.0.mlp.up_proj.weight") is None
    assert [kind for kind, each in masks.items() if each.count_as_weights] == ["weights"]


def test_only_masks_of_units_shorten_parameters(masks: dict[str, PruningMasks]) -> None:
    found = masks["units"].parameter(f"base_model.model.{WEIGHT}")
    assert found is not None
    assert (found.full, found.left) == ((20, 24), (6, 24))
    assert masks["units"].parameter("model.layers.1.mlp.nothing.weight") is None
    assert masks["units"].layer_of("lm_head.weight") is None
    assert (masks["weights"].parameter(WEIGHT), masks["weights"].layer_of(WEIGHT)) == (None, None)


def test_tensor_of_a_layer_that_the_checkpoint_does_not_have_is_refused(masks: dict[str, PruningMasks]) -> None:
    with pytest.raises(RequestFault, match=r"layers\.4\.mlp\.up_proj\.weight is of layer 4, the checkpoint has"):
        masks["units"].layer_of("model.layers.4.mlp.up_proj.weight")


def test_another_structure_is_not_that_of_the_base_model(masks: dict[str, PruningMasks]) -> None:
    wider = describe(LlamaConfig(**(SIZES | {"intermediate_size": 24})).to_dict())
    assert masks["units"].fit(GEOMETRY)
    assert not masks["units"].fit(wider)
    assert not masks["units"].fit(replace(GEOMETRY, kind_of=GEOMETRY.kind_of[1:]))
    assert masks["weights"].fit(GEOMETRY)


def test_masks_that_a_path_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match="does not exist"):
        open_masks(tmp_path / "none.safetensors")
