"""The oracle run on families that people ask for, and what the data file says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.architecture.structure import Unit
from publisher.families.known import Family, known_families
from worker.families.oracle import TOLERANCE, examine, largest_difference
from worker.families.pair import Pair, exact, pruned_pair
from worker.families.reference import Float64, switched_off
from worker.families.tiny import causal_families

HEADS_AND_NEURONS, HEADS_AND_EXPERTS = ["kv_heads", "neurons"], ["kv_heads", "experts"]
DENSE = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo2", "granite",
    "smollm3", "starcoder2", "cohere", "cohere2", "glm4",
)  # fmt: skip
MIXTURES = ("mixtral", "qwen3_moe", "phimoe", "granitemoe")


def _known(family: str) -> Family:
    return next(found for found in known_families().families if found.family == family)


@pytest.mark.parametrize(
    ("family", "units"),
    [
        *((family, HEADS_AND_NEURONS) for family in DENSE),
        *((family, HEADS_AND_EXPERTS) for family in MIXTURES),
        ("olmoe", ["experts"]),
        ("deepseek_v3", ["kv_heads", "neurons", "experts"]),
        ("gpt_neox", ["neurons"]),
    ],
)
def test_the_oracle_holds_and_the_data_file_says_so(family: str, units: list[str]) -> None:
    found, known = examine(family), _known(family)
    assert (found.supported, found.reason, found.units) == (True, None, units)
    assert found.largest_difference is not None
    assert found.largest_difference < TOLERANCE
    rounding = {"largest_difference": None}
    assert found.model_copy(update=rounding) == known.model_copy(update=rounding)


@pytest.mark.parametrize("family", ["gpt2", "llama4", "gemma4_text", "hrm_text", "gemma3n_text"])
def test_what_cannot_be_pruned_has_the_same_reason_in_the_data_file(family: str) -> None:
    found = examine(family)
    assert not found.supported
    assert found.reason
    assert found == _known(family)


def test_the_data_file_names_every_family_of_transformers() -> None:
    assert [family.family for family in known_families().families] == causal_families()


def test_every_supported_family_is_within_the_tolerance() -> None:
    for family in known_families().families:
        if family.supported:
            assert family.largest_difference is not None
            assert family.largest_difference < TOLERANCE
            assert family.units


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pruned_pair("qwen3_moe", tmp_path)


@torch.no_grad()
def test_a_wrong_cut_shows(pair: Pair) -> None:
    """The reference is not the pruned model in disguise: with other units switched off it gives other logits."""
    other = {key: (kept + 1) % pair.geometry.kind(key[0]).units[key[1]] for key, kept in pair.kept.items()}
    with Float64():
        found = exact(pair.pruned)(pair.tokens).logits
        base = exact(pair.base)
        with switched_off(base, pair.geometry, other):
            wanted = base(pair.tokens).logits
    assert largest_difference(pair) < TOLERANCE
    assert (found - wanted).abs().max() > 1e-3


def test_layers_at_the_ends_stay_whole_and_others_lose_odd_numbers(pair: Pair) -> None:
    assert {layer for layer, _ in pair.kept} == {1, 2}
    assert {unit: len(kept) for (_, unit), kept in pair.kept.items()} == {Unit.KV_HEADS: 3, Unit.EXPERTS: 4}
