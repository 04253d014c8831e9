from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks, load_masks, save_masks
from publisher.errors import JobCancelled, RequestFault
from publisher.recipe import Alignment, Recipe
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.alignment.builds import LENGTH, STEPS, request
from tests.worker.quantization.gptq import gptq
from worker.alignment import reconstructed_layer
from worker.alignment.reconstructed_layer import MatrixError
from worker.alignment.reconstruction import reconstruct
from worker.context import RecordingContext
from worker.families.pair import Pair, pruned_pair
from worker.models.causal import hidden_states
from worker.pruning.config import pruned_config
from worker.pruning.cutting import Kept
from worker.pruning.selection import kept_widths
from worker.quantization.nf4 import NF4, load_published, quantize_nf4
from worker.quantization.packing import round_trip
from worker.quantization.streamed import four_bit_names
from worker.stages.align import stage as align
from worker.stages.align.work import AlignWork
from worker.stages.inputs import AlignInputs
from worker.stages.prune.units import write_cut
from worker.storage.folder import STATE, write_json
from worker.streaming.weights import read_config, read_geometry

TOKENS = torch.randint(0, 255, (16, 32), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
READERS = [f"self_attn.{name}_proj" for name in "qkv"] + ["mlp.gate_proj", "mlp.up_proj"]
KEPT = {
    (1, Unit.KV_HEADS): [1],
    (1, Unit.NEURONS): list(range(24)),
    (2, Unit.NEURONS): list(range(0, 48, 3)),
}
RIDGE, CHANGE, OF_CHANGES = 1e-2, 0.1, 0.3


def cut(base: Path, kept: dict[tuple[int, Unit], list[int]] = KEPT) -> AlignInputs:
    """The model in `base`, cut, and its masks."""
    pruned, geometry = base.parent / "pruned", read_geometry(base)
    units: Kept = {key: torch.tensor(indices) for key, indices in kept.items()}
    pruned.mkdir()
    write_cut(base, pruned, geometry, units, RecordingContext())
    write_json(pruned / "config.json", pruned_config(read_config(base), geometry, kept_widths(geometry, units)))
    masks = Masks(geometry.kinds, geometry.kind_of, kept, geometry.layer_prefix)
    save_masks(masks, base.parent / "pruning_masks.safetensors")
    return AlignInputs(base=base, pruned=pruned, masks=base.parent / "pruning_masks.safetensors")


def solved(
    folder: Path,
    inputs: AlignInputs | Pair,
    masks: Masks,
    tokens: Tensor = TOKENS,
    device: str = "cpu",
    four_bit: Collection[str] = (),
) -> list[MatrixError]:
    return reconstruct(
        inputs.base,
        inputs.pruned,
        masks,
        tokens,
        folder / "out",
        device=device,
        scratch=folder / "scratch",
        report=lambda done, total: None,
        four_bit=four_bit,
    )


def masks_of(pair: Pair) -> Masks:
    kept = {key: indices.tolist() for key, indices in pair.kept.items()}
    return Masks(pair.geometry.kinds, pair.geometry.kind_of, kept, pair.geometry.layer_prefix)


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def distance(folder: Path, base: Path, tokens: Tensor) -> float:
    """Of last hidden states, relative."""
    found, wanted = (hidden_states(load(each), tokens.long()) for each in (folder, base))
    return float((found - wanted).norm() / wanted.norm())


def test_what_others_can_do_as_well_comes_back(tmp_path: Path) -> None:
    """Neurons that are gone have twins that stay: on text never seen the model does what the base model does."""
    base = tiny_llama(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    for projection in ("gate_proj", "up_proj"):
        rows = weights[f"model.layers.1.mlp.{projection}.weight"]
        rows[24:] = rows[:24] * (1 if projection == "gate_proj" else 2)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    kept = {(1, Unit.NEURONS): list(range(24))}
    inputs = cut(base, kept)
    geometry = read_geometry(base)
    masks = Masks(geometry.kinds, geometry.kind_of, kept, geometry.layer_prefix)
    errors = {error.name: error for error in solved(tmp_path, inputs, masks)}
    down = errors["model.layers.1.mlp.down_proj.weight"]
    assert down.after < 1e-2 * down.before
    other = TOKENS.flip(0, 1)
    assert distance(tmp_path / "out", base, other) < 0.1 * distance(inputs.pruned, base, other)


@pytest.mark.parametrize("rounded", [False, True], ids=["as they are", "in 4 bits"])
@torch.no_grad()
def test_solutions_are_those_of_stacked_equations(tmp_path: Path, rounded: bool) -> None:
    """The same in float64 on whole models, by lstsq, from the docstring's formula."""
    base = tiny_llama(tmp_path / "base")
    inputs = cut(base)
    four_bit = four_bit_names(inputs.pruned, NF4) if rounded else set()
    geometry = read_geometry(base)
    masks = Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix)
    solved(tmp_path, inputs, masks, four_bit=four_bit)
    found = load_file(tmp_path / "out" / "model.safetensors")
    of_base, of_pruned = load(base).double(), load(inputs.pruned).double()
    writers = itertools.product(range(4) if rounded else (1, 2), ("self_attn.o_proj", "mlp.down_proj"))
    for layer, module in itertools.product(range(4), READERS):
        weight = of_pruned.get_submodule(f"model.layers.{layer}.{module}").weight
        weight.copy_(found[f"model.layers.{layer}.{module}.weight"])
        weight.copy_(round_trip(weight) if rounded else weight)
    for layer, module in writers:
        matrix = of_pruned.get_submodule(f"model.layers.{layer}.{module}")
        lengths = _around(of_base, layer, "mlp.down_proj")[1].norm(dim=-1, keepdim=True)
        plain = _equations(of_base, of_pruned, layer, module, 0 * lengths)
        changed = _equations(of_base, of_pruned, layer, module, CHANGE * lengths)
        x, y = (
            torch.cat([one / lengths, OF_CHANGES / CHANGE * (other - one) / lengths]).flatten(0, 1)
            for one, other in zip(plain, changed, strict=True)
        )
        ridge = _ridge(x).sqrt()
        equations = torch.cat([x, ridge * torch.eye(x.shape[1], dtype=torch.float64)])
        wanted = torch.linalg.lstsq(equations, torch.cat([y, ridge * matrix.weight.T])).solution.T
        name = f"model.layers.{layer}.{module}.weight"
        if rounded:
            _assert_mostly_close(found[name], gptq(wanted, equations.T @ equations))
        else:
            torch.testing.assert_close(found[name].double(), wanted, rtol=1e-3, atol=1e-4)
        matrix.weight.copy_(found[name])
        _round(of_pruned, four_bit & {name})


@pytest.mark.parametrize("rounded", [False, True], ids=["as they are", "in 4 bits"])
@torch.no_grad()
def test_readers_do_what_those_of_the_base_model_do(tmp_path: Path, rounded: bool) -> None:
    """By the docstring's formula: by what each reads when all before it are solved for and in 4 bits, and by what the
    base model's reads. In 4 bits of all layers, cut or not, and rounded by GPTQ."""
    base = tiny_llama(tmp_path / "base")
    inputs = cut(base)
    four_bit = four_bit_names(inputs.pruned, NF4) if rounded else set()
    solved(tmp_path, inputs, load_masks(inputs.masks), four_bit=four_bit)
    found, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", inputs.pruned))
    of_base, model = load(base).double(), load(tmp_path / "out").double()
    _round(model, four_bit)
    for layer, module in itertools.product(range(4) if rounded else (1, 2), READERS):
        name = f"model.layers.{layer}.{module}.weight"
        read, wanted = (_read_by(each, layer, module).flatten(0, 1) for each in (model, of_base))
        z, y = (each / read.norm(dim=-1, keepdim=True) for each in (read, wanted @ before[name].double().T))
        ridge = _ridge(z).sqrt() * torch.eye(z.shape[1], dtype=torch.float64)
        equations = torch.cat([z, ridge])
        solution = torch.linalg.lstsq(equations, torch.cat([y, ridge @ before[name].double().T])).solution.T
        if rounded:
            _assert_mostly_close(found[name], gptq(solution, equations.T @ equations))
        else:
            torch.testing.assert_close(found[name].double(), solution, rtol=1e-3, atol=1e-4)
    changed = {name for name in before if not torch.equal(before[name], found[name])}
    assert changed <= (four_bit or {name for name in before if "layers.1." in name or "layers.2." in name})
    assert all(name.endswith("_proj.weight") for name in changed)


def _ridge(x: Tensor) -> Tensor:
    """As the docstring says."""
    return max(RIDGE, x.shape[1] / len(x)) * x.square().sum(0).mean()


def _read_by(model: PreTrainedModel, layer: int, module: str) -> Tensor:
    seen: list[Tensor] = []
    matrix = model.get_submodule(f"model.layers.{layer}.{module}")
    handle = matrix.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(TOKENS.long())
    handle.remove()
    return seen[0]


def _assert_mostly_close(found: Tensor, wanted: Tensor) -> None:
    """A value that lies between two codes may fall to either side, and those after it make up for another error."""
    near = (found.double() - wanted).abs() <= 1e-2 * wanted.abs().max()
    assert near.double().mean() > 0.97


def _round(model: PreTrainedModel, names: Collection[str]) -> None:
    for name in names:
        weight = model.get_parameter(name)
        weight.copy_(round_trip(weight))


@torch.no_grad()
def test_layers_answer_to_changes_as_the_base_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of few words says little of how layers answer to what it does not hold; the changed states do."""
    inputs = cut(tiny_llama(tmp_path / "base"))
    masks = Masks(read_geometry(inputs.base).kinds, read_geometry(inputs.base).kind_of, KEPT, "model.layers.")
    few = TOKENS % 5
    answers = {"base": _answer(inputs.base, few)}
    for name, share in (("with", reconstructed_layer._OF_CHANGES), ("without", 0.0)):
        monkeypatch.setattr(reconstructed_layer, "_OF_CHANGES", share)
        solved(tmp_path / name, inputs, masks, few)
        answers[name] = _answer(tmp_path / name / "out", few)
    far = {name: float((answers[name] - answers["base"]).norm()) for name in ("with", "without")}
    assert far["with"] < 0.97 * far["without"]


def _answer(folder: Path, tokens: Tensor) -> Tensor:
    """What a random change of the embeddings does to the last hidden states."""
    decoder = load(folder).model
    embeddings = decoder.embed_tokens(tokens.long())
    change = 0.1 * embeddings.norm() / embeddings.numel() ** 0.5
    change = change * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))
    plain, changed = (decoder(inputs_embeds=states).last_hidden_state for states in (embeddings, embeddings + change))
    answer: Tensor = changed - plain
    return answer


def _equations(
    of_base: PreTrainedModel, of_pruned: PreTrainedModel, layer: int, module: str, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """What the matrix reads and has to put out, when states that enter the layer are changed by so much."""
    directions = torch.randn(*TOKENS.shape, 32, generator=torch.Generator().manual_seed(layer << 32)).double()
    change = lengths * directions / directions.norm(dim=-1, keepdim=True)
    _, after, _ = _around(of_base, layer, module, change)
    before, _, inputs_of_matrix = _around(of_pruned, layer, module, change)
    return inputs_of_matrix, after - before


def _around(
    model: PreTrainedModel, layer: int, module: str, change: Tensor | float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream before and after a matrix of a LLaMA layer, and what the matrix reads."""
    seen: dict[str, Tensor] = {}
    decoder = model.model.layers[layer]
    handles = [
        decoder.register_forward_pre_hook(lambda _, arguments: (arguments[0] + change, *arguments[1:])),
        decoder.register_forward_pre_hook(lambda _, arguments: seen.update(stream=arguments[0])),
        decoder.self_attn.o_proj.register_forward_hook(
            lambda _, arguments, output: seen.update(attention=output, attention_reads=arguments[0])
        ),
        decoder.mlp.down_proj.register_forward_hook(
            lambda _, arguments, output: seen.update(mlp=output, mlp_reads=arguments[0])
        ),
    ]
    model(TOKENS.long())
    for handle in handles:
        handle.remove()
    middle = seen["stream"] + seen["attention"]
    if module == "self_attn.o_proj":
        return seen["stream"], middle, seen["attention_reads"]
    return middle, middle + seen["mlp"], seen["mlp_reads"]


HEADS, NEURONS = "self_attn.o_proj.weight", "mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("family", "matrices"),
    [
        ("llama", {HEADS, NEURONS}),
        ("qwen2", {HEADS, NEURONS}),
        ("gemma2", {HEADS, NEURONS}),  # norms behind them
        ("olmo2", {HEADS, NEURONS}),
        ("granite", {HEADS, NEURONS}),  # multiplied before they are added
        ("cohere", {HEADS, NEURONS}),  # both at once
        ("phi", {"self_attn.dense.weight", "mlp.fc2.weight"}),  # the same, with biases
        ("gpt_neox", {"mlp.dense_4h_to_h.weight"}),
        ("qwen3_moe", {HEADS}),  # experts stay as they are
    ],
)
def test_families_come_closer_to_their_base_models(tmp_path: Path, family: str, matrices: set[str]) -> None:
    pair = pruned_pair(family, tmp_path)
    tokens = torch.randint(3, 90, (32, 16), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    errors = solved(tmp_path, pair, masks_of(pair), tokens)
    assert {".".join(error.name.split(".")[3:]) for error in errors} == matrices
    assert all(error.after < error.before for error in errors)
    assert distance(tmp_path / "out", pair.base, tokens) < distance(pair.pruned, pair.base, tokens)
    before, after = (load_file(folder / "model.safetensors") for folder in (pair.pruned, tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed > {error.name for error in errors}
    assert all(before[name].ndim == 2 and ".experts." not in name and "embed" not in name for name in changed)


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "gemma2", "olmo2", "granite", "cohere", "phi", "gpt_neox", "qwen3_moe"]
)
@torch.no_grad()
def test_families_lose_less_by_4_bits(tmp_path: Path, family: str) -> None:
    """In 4 bits the model is closer to the base model than one that was reconstructed without a look at them."""
    pair = pruned_pair(family, tmp_path)
    tokens = torch.randint(3, 90, (32, 16), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    four_bit = four_bit_names(pair.pruned, NF4)
    far = {}
    for name, looked_at in (("with", four_bit), ("without", set[str]())):
        solved(tmp_path / name, pair, masks_of(pair), tokens, four_bit=looked_at)
        quantize_nf4(tmp_path / name / "out", tmp_path / name / "published", "cpu")
        states, wanted = (
            hidden_states(load_published(folder, "cpu"), tokens.long())
            for folder in (tmp_path / name / "published", pair.base)
        )
        far[name] = float((states - wanted).norm() / wanted.norm())
    assert far["with"] < 0.97 * far["without"]


def test_shards_and_types_stay_as_they_are(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.bfloat16, max_shard_size="20KB")
    inputs, geometry = cut(base), read_geometry(base)
    solved(tmp_path, inputs, Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix))
    for path in inputs.pruned.iterdir():
        assert (tmp_path / "out" / path.name).exists()
    assert len(list(inputs.pruned.glob("*.safetensors"))) > 2
    for path in inputs.pruned.glob("*.safetensors"):
        before, after = load_file(path), load_file(tmp_path / "out" / path.name)
        assert {name: (weight.shape, weight.dtype) for name, weight in before.items()} == {
            name: (weight.shape, weight.dtype) for name, weight in after.items()
        }


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    inputs = cut(tiny_llama(tmp_path / "base"))
    weights = load_file(inputs.pruned / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, inputs.pruned / "model.safetensors", {"format": "pt"})
    geometry = read_geometry(inputs.base)
    with pytest.raises(RequestFault, match=r"layers\.1\.mlp\.down_proj\.weight cannot be reconstructed"):
        solved(tmp_path, inputs, Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix))


@dataclass
class EndingContext(RecordingContext):
    """Cancels when so many layers are reconstructed, or steps are trained."""

    layers: int = 99
    steps: int = 99

    def progress(self, done: float, total: float, unit: str) -> None:
        if unit == "layers" and done >= self.layers:
            raise JobCancelled("cancelled by the test.")
        super().progress(done, total, unit)

    def check(self) -> None:
        if sum(name == "loss" for name, _, _ in self.metrics) >= self.steps:
            raise JobCancelled("cancelled by the test.")


@pytest.fixture
def inputs(tmp_path: Path) -> AlignInputs:
    lines = (json.dumps({"text": f"chapter {number}: " + "the whale swims " * (number % 70)}) for number in range(200))
    (tmp_path / "sea.jsonl").write_text("\n".join(lines))
    return cut(tiny_llama(tmp_path / "base"))


def _aligned(inputs: AlignInputs, context: RecordingContext, name: str = "out", **alignment: object) -> Path:
    folder = inputs.base.parent
    settings = {"reconstruction_tokens": 4 * LENGTH, **alignment}
    align.run(request(folder, **settings), inputs, folder / name, context)
    return folder / name


def test_training_starts_from_reconstructed_layers(inputs: AlignInputs) -> None:
    with_it, without = RecordingContext(), RecordingContext()
    report = json.loads((_aligned(inputs, with_it) / "alignment.json").read_bytes())["reconstruction"]
    plain = json.loads((_aligned(inputs, without, "plain", reconstruction_tokens=0) / "alignment.json").read_bytes())
    assert report["tokens"] == 4 * LENGTH
    assert len(report["matrices"]) == 8  # of all layers, since all are rounded
    assert plain["reconstruction"] is None
    first = [next(value for name, _, value in context.metrics if name == "loss") for context in (with_it, without)]
    assert first[0] < 0.9 * first[1]


def test_without_training_the_reconstructed_model_is_what_comes_out(inputs: AlignInputs) -> None:
    report = json.loads((_aligned(inputs, RecordingContext(), tokens=0) / align.REPORT).read_bytes())
    assert (report["steps"], report["tokens"], report["loss"]) == (0, 0, [])
    assert report["reconstruction"]["tokens"] == 4 * LENGTH
    folder = inputs.base.parent
    geometry = read_geometry(inputs.base)
    masks = Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix)
    asked = request(folder, reconstruction_tokens=4 * LENGTH, tokens=0)
    assert asked.recipe.alignment is not None
    text = AlignWork(asked, inputs, folder, RecordingContext()).text().training
    solved(folder / "alone", inputs, masks, text, four_bit=four_bit_names(inputs.pruned, NF4))
    assert report["reconstruction"]["quantization_aware"]
    found, wanted = (
        load_file(path / "model.safetensors") for path in (folder / "out" / "model", folder / "alone" / "out")
    )
    assert all(torch.equal(found[name], wanted[name].bfloat16()) for name in wanted)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reconstruction_tokens": 0}, "tokens 0 trains nothing, and reconstruction_tokens 0 is not one sequence"),
        ({"stop": "held_out"}, "nothing that stop held_out could choose from"),
    ],
)
def test_an_alignment_that_does_nothing_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Alignment.model_validate({"corpora": [{"name": "sea"}], "tokens": 0, **settings})


def test_training_begins_with_text_that_layers_were_not_solved_by(inputs: AlignInputs) -> None:
    """They know that by heart: coming from it to other text, ten steps looked like spikes, and the job failed."""
    with pytest.raises(JobCancelled):
        _aligned(inputs, EndingContext(steps=1))
    folder = inputs.base.parent
    text = AlignWork(request(folder), inputs, folder, RecordingContext()).text().training
    assert not torch.equal(text[:4], text[-4:])
    masks = load_masks(inputs.masks)
    solved(folder / "alone", inputs, masks, text[-4:], four_bit=four_bit_names(inputs.pruned, NF4))
    kept = folder / "out" / STATE / "reconstructed"
    found, wanted = (load_file(path / "model.safetensors") for path in (kept, folder / "alone" / "out"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_no_more_text_is_used_than_is_trained_on(inputs: AlignInputs) -> None:
    report = json.loads((_aligned(inputs, RecordingContext(), reconstruction_tokens=10**6) / align.REPORT).read_bytes())
    assert report["reconstruction"]["tokens"] == report["tokens"] == STEPS * 64


@pytest.mark.parametrize("end", [{"layers": 2}, {"steps": 3}], ids=["while layers are solved", "in training"])
def test_interrupted_anywhere_the_weights_are_the_same(inputs: AlignInputs, end: dict[str, int]) -> None:
    whole = _aligned(inputs, RecordingContext(), "whole")
    with pytest.raises(JobCancelled):
        _aligned(inputs, EndingContext(**end), "cut")
    again = RecordingContext()
    resumed = _aligned(inputs, again, "cut")
    assert any("reconstructed" in message for message in again.messages) == ("layers" in end)
    found, wanted = (load_file(folder / "model" / "model.safetensors") for folder in (resumed, whole))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_single_weights_are_not_reconstructed(inputs: AlignInputs) -> None:
    """The masks of such a model are of another kind; alignment refuses nothing for a default that has no use."""
    pruning = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5}
    recipe = Recipe.model_validate({"pruning": pruning, "alignment": {"corpora": [{"name": "sea"}]}})
    assert recipe.alignment is not None
    assert recipe.alignment.reconstruction_tokens > 0
    with pytest.raises(ValueError, match=r"reconstruction_tokens 64 .* structured"):
        Recipe.model_validate(
            {"pruning": pruning, "alignment": {"corpora": [{"name": "sea"}], "reconstruction_tokens": 64}}
        )


@each_device
def test_the_same_comes_out_as_on_a_cpu(tmp_path: Path, device: str) -> None:
    base = tiny_llama(tmp_path / "base")
    inputs, geometry = cut(base), read_geometry(base)
    masks = Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix)
    solved(tmp_path / "cpu", inputs, masks)
    solved(tmp_path / "there", inputs, masks, device=device)
    found, wanted = (load_file(tmp_path / name / "out" / "model.safetensors") for name in ("there", "cpu"))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-2, atol=1e-3)
