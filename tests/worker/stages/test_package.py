from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from publisher.checkpoint.masks import save_masks
from publisher.checkpoint.verification import verify_checkpoint
from publisher.corpus.source import CorpusSource
from publisher.manifest.manifest import Manifest, record, verify
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.checkpoint.pruned import MASKS, make_pair
from tests.checkpoint.published import make_keys
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.models import byte_tokenizer
from tests.worker.card.test_card import evaluation
from tests.worker.stages.conftest import RECIPE
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest, Invocation, PublishTarget
from worker.stages import package
from worker.stages.inputs import PackageInputs

Output = Callable[[], Path]

ALIGNMENT: dict[str, Any] = {
    "objective": "distillation",
    "optimizer": "adamw",
    "steps": 3,
    "step": 2,
    "skipped_steps": 1,
    "checks": [{"step": 2, "loss": 2.5}],
    "tokens": 300,
    "seconds": 1.5,
    "tokens_per_second": 200.0,
    "data_wait_share": 0.25,
    "peak_memory_bytes": 2**30,
    "optimizer_state_bytes": 2**20,
    "gradient_matching": 2.0,
}
#: of alignment.json, what the manifest does not repeat
STEP_BY_STEP = {"quantization_aware": False, "loss": [3.0, 2.5, 2.25], "gradient_cosine": [0.3, 0.35, 0.4]}


@pytest.fixture
def inputs(tmp_path: Path) -> PackageInputs:
    """What the stages before leave: the base model with its tokenizer, the pruned one, masks and reports."""
    pair = make_pair(vocab_size=260)
    pair.base.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "base" / "LICENSE.txt").write_text("Do good.")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# The base model\n")
    pair.pruned.save_pretrained(tmp_path / "quantized")
    save_masks(MASKS, tmp_path / "masks.safetensors")
    files = {path.name: record(path).model_dump() for path in (tmp_path / "base").iterdir()}
    (tmp_path / "base.json").write_text(json.dumps({"repo_id": "org/base", "revision": "c" * 40, "files": files}))
    (tmp_path / "alignment.json").write_text(json.dumps(ALIGNMENT | STEP_BY_STEP))
    (tmp_path / "evaluation.json").write_text(evaluation(64.0).model_dump_json())
    losses = {"probe_loss": [5.0, 4.5, 4.4], "direct_loss": [4.0, 3.6, 3.5]}
    (tmp_path / "probe_losses.json").write_text(json.dumps(losses))
    return PackageInputs(
        base=tmp_path / "base",
        base_json=tmp_path / "base.json",
        quantized=tmp_path / "quantized",
        masks=tmp_path / "masks.safetensors",
        alignment=tmp_path / "alignment.json",
        evaluation=tmp_path / "evaluation.json",
        stage_seconds={"fetch": 1.0, "prune": 2.5},
        probe_losses=tmp_path / "probe_losses.json",
    )


def request(**target: object) -> BuildRequest:
    publish = PublishTarget("https://hub.example", "org/small", False, "secret") if not target else None
    return BuildRequest(BaseModelSource("org/base", "c" * 40), RECIPE, {}, publish=publish)


def packaged(inputs: PackageInputs, folder: Path) -> Path:
    package.run(request(), inputs, folder, RecordingContext())
    return folder


def test_checkpoint_is_whole_and_says_what_it_is(inputs: PackageInputs, output: Output) -> None:
    folder = packaged(inputs, output())
    manifest = Manifest.read(folder)
    assert verify(folder) == []
    assert manifest.files.keys() == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {
        "loram.json"
    }
    assert (manifest.base.repo_id, manifest.base.commit) == ("org/base", "c" * 40)
    assert (manifest.recipe_digest, manifest.recipe["seed"]) == (RECIPE.digest, 0)
    assert manifest.evaluation is not None
    assert manifest.evaluation.certificate is not None
    assert manifest.evaluation.certificate.improves
    assert manifest.alignment is not None
    assert manifest.alignment.model_dump(exclude_defaults=True) == ALIGNMENT | {"first_loss": 3.0, "last_loss": 2.25}
    assert manifest.software["transformers"].startswith("5.23")


def test_what_is_packaged_agrees_with_itself_and_says_how_it_was_made(inputs: PackageInputs, output: Output) -> None:
    """Counts are those of the geometry, and are compared with the headers of the files."""
    folder = output()
    began = datetime(2026, 11, 1, tzinfo=UTC)
    source = CorpusSource(name="moby", path=Path("/home/somebody/moby.jsonl"), expected_digest="b" * 64)
    recipe = Recipe.model_validate(
        RECIPE.model_dump() | {"evaluation": {"corpora": ["moby"]}, "quantization": {"scheme": "none"}}
    )
    asked = replace(request(), recipe=recipe, corpora={"moby": source}, invocation=Invocation("job_1", began))
    package.run(asked, inputs, folder, RecordingContext())
    assert verify_checkpoint(folder, base=inputs.base).problems == ()
    made = json.loads((folder / "provenance.intoto.json").read_text())["predicate"]
    assert made["runDetails"]["metadata"]["invocationId"] == "job_1"
    assert {"name": "corpus moby", "digest": {"sha256": "b" * 64}} in made["buildDefinition"]["resolvedDependencies"]
    component = json.loads((folder / "bom.cdx.json").read_text())["metadata"]["component"]
    assert component["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    for name in ("provenance.intoto.json", "bom.cdx.json", "loram.json", "README.md"):
        assert "somebody" not in (folder / name).read_text()
        assert str(inputs.base) not in (folder / name).read_text()


def test_base_model_s_own_bill_and_provenance_are_not_taken_over(inputs: PackageInputs, output: Output) -> None:
    for name in ("bom.cdx.json", "provenance.intoto.json"):
        (inputs.base / name).write_text("{}")
    folder = packaged(inputs, output())
    assert [(inputs.base / name).read_text() for name in ("bom.cdx.json", "provenance.intoto.json")] == ["{}", "{}"]
    assert json.loads((folder / "bom.cdx.json").read_text())["metadata"]["component"]["name"] == "org/small"


def test_another_key_packages_anew(tmp_path: Path) -> None:
    before = {stage: stage.value for stage in package.PACKAGE.needs}
    keys = [None, make_keys(tmp_path, "one").key, make_keys(tmp_path, "other").key]
    assert len({package.digest(replace(request(), signing_key=key), before) for key in keys}) == 3
    job = Invocation("job_1", datetime.now(UTC))
    assert package.digest(replace(request(), invocation=job), before) == package.digest(request(), before)


@pytest.mark.parametrize(
    ("matrices", "errors"),
    [([(0.8, 0.5), (0.6, 0.3)], (0.7, 0.4)), ([], None)],
    ids=["mean errors", "nothing could be solved for"],
)
def test_reconstruction_is_summed_up(
    inputs: PackageInputs, output: Output, matrices: list[tuple[float, float]], errors: tuple[float, float] | None
) -> None:
    assert inputs.alignment is not None
    found = [{"name": "w", "before": before, "after": after} for before, after in matrices]
    reconstruction = {"tokens": 64, "seconds": 1.0, "peak_memory_bytes": 1, "matrices": found}
    inputs.alignment.write_text(
        json.dumps(json.loads(inputs.alignment.read_bytes()) | {"reconstruction": reconstruction})
    )
    manifest = Manifest.read(packaged(inputs, output()))
    assert manifest.alignment is not None
    record = manifest.alignment.reconstruction
    assert (None if record is None else (record.error_before, record.error_after)) == (
        None if errors is None else pytest.approx(errors)
    )


def test_counts_are_those_of_the_weights(inputs: PackageInputs, output: Output) -> None:
    manifest = Manifest.read(packaged(inputs, output()))
    pair = make_pair(vocab_size=260)
    assert manifest.parameters.base == sum(p.numel() for p in pair.base.parameters())
    assert manifest.parameters.pruned == sum(p.numel() for p in pair.pruned.parameters())
    assert manifest.bytes.checkpoint == (inputs.quantized / "model.safetensors").stat().st_size
    assert [width.kv_heads for width in manifest.widths] == [3, 2, 3, 3]
    assert [width.neurons for width in manifest.widths] == [20, 6, 8, 20]


def test_kept_weights_count_where_single_ones_were_pruned(
    inputs: PackageInputs, output: Output, tmp_path: Path
) -> None:
    make_pair(vocab_size=260).base.save_pretrained(tmp_path / "sparse")
    masks = write_masks(tmp_path / "sparse", tmp_path / "weight_masks.safetensors")
    zero_pruned(tmp_path / "sparse", masks)
    changed = {"quantized": tmp_path / "sparse", "masks": masks.path}
    folder = packaged(PackageInputs(**(vars(inputs) | changed)), output())
    manifest = Manifest.read(folder)
    kept = sum(
        tensor.count_nonzero().item() for tensor in load_file(tmp_path / "sparse" / "model.safetensors").values()
    )
    assert (manifest.parameters.base, manifest.parameters.pruned) == (count(make_pair(vocab_size=260).base), kept)
    assert manifest.widths == manifest.base_widths
    sizes = [(folder / name).stat().st_size for name in ("model.safetensors", "pruning_masks.safetensors")]
    assert manifest.bytes.checkpoint == sum(sizes)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_checkpoint_loads_with_the_base_models_tokenizer(inputs: PackageInputs, output: Output) -> None:
    folder = packaged(inputs, output())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ messages }}"
    tokens = tokenizer("whale", return_tensors="pt").input_ids
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    expected = AutoModelForCausalLM.from_pretrained(inputs.quantized)
    torch.testing.assert_close(loaded(tokens).logits, expected(tokens).logits, rtol=0, atol=0)
    assert tokenizer.pad_token == "<pad>"
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # which every transformers knows
    for name in ("tokenizer.json", "LICENSE.txt"):
        assert (folder / name).read_bytes() == (inputs.base / name).read_bytes()
    for name in ("config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (inputs.quantized / name).read_bytes()


def test_weights_are_not_copied(inputs: PackageInputs, output: Output) -> None:
    folder = packaged(inputs, output())
    assert (folder / "model.safetensors").samefile(inputs.quantized / "model.safetensors")


def test_linked_base_files_become_real_ones(inputs: PackageInputs, output: Output, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in inputs.base.iterdir():
        (linked / path.name).symlink_to(path)
    folder = output()
    package.run(request(), PackageInputs(**(vars(inputs) | {"base": linked})), folder, RecordingContext())
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_card_shows_plots_licence_and_target(inputs: PackageInputs, output: Output) -> None:
    folder = packaged(inputs, output())
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "# org/small\n\n> **Certified" in card
    for name in ("kept", "alignment_loss", "perplexity", "probe"):
        assert f"](plots/{name}.png)" in card
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_licence_texts_and_further_templates_are_in_the_checkpoint(inputs: PackageInputs, output: Output) -> None:
    base = inputs.base
    terms = ("LICENSE", "NOTICE", "LICENSE.md", "USE_POLICY.md", "LICENSE.txt", "Notice.txt")
    for name in terms:
        (base / name).write_text("terms")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (base / "loram.json").write_text("an older checkpoint's")
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: some-community\nlicense_link: LICENSE\n---\n")
    folder = packaged(inputs, output())
    data = ModelCard.load(folder / "README.md").data
    assert (data.license, data.license_name, data.license_link) == ("other", "some-community", "LICENSE")
    assert [(folder / name).read_text() for name in terms] == ["terms"] * len(terms)
    recorded = Manifest.read(folder).files
    assert {*terms, "additional_chat_templates/tools.jinja"} <= recorded.keys()
    assert (base / "loram.json").read_text() == "an older checkpoint's"


def test_a_base_model_whose_card_is_broken_is_packaged_without_a_licence(inputs: PackageInputs, output: Output) -> None:
    (inputs.base / "README.md").write_bytes(b"---\nlicense: mit\n  tags: [a\n---\n# Mod\xe8le\n")
    context = RecordingContext()
    folder = output()
    package.run(request(), inputs, folder, context)
    assert ModelCard.load(folder / "README.md").data.license is None
    assert any("its licence is not named" in message for message in context.messages)


def test_card_and_plot_tell_that_gradients_were_matched(inputs: PackageInputs, output: Output) -> None:
    """Another picture than without; the manifest has the weight and not the number of each step."""
    folder = packaged(inputs, output())
    manifest = Manifest.read(folder)
    assert manifest.alignment is not None
    assert manifest.alignment.gradient_matching == 2.0
    assert "gradient_cosine" not in manifest.alignment.model_dump()
    assert "| Alignment, gradients matched |" in (folder / "README.md").read_text()
    assert inputs.alignment is not None
    inputs.alignment.write_text(json.dumps(ALIGNMENT | STEP_BY_STEP | {"gradient_cosine": [], "gradient_matching": 0}))
    other = packaged(inputs, output())
    pictures = [(each / "plots" / "alignment_loss.png").read_bytes() for each in (folder, other)]
    assert pictures[0] != pictures[1]
    assert "| Alignment |" in (other / "README.md").read_text()


def test_variant_without_alignment_and_evaluation_is_packaged(inputs: PackageInputs, output: Output) -> None:
    bare = PackageInputs(**(vars(inputs) | {"alignment": None, "evaluation": None, "probe_losses": None}))
    folder = output()
    package.run(request(target=None), bare, folder, RecordingContext())
    assert [path.name for path in (folder / "plots").iterdir()] == ["kept.png"]
    assert "**Not certified.**" in (folder / "README.md").read_text()
    assert verify(folder) == []


def test_digest_follows_every_input_and_the_target() -> None:
    before = {stage: stage.value for stage in package.PACKAGE.needs if stage is not Stage.ALIGN}
    digests = {package.digest(request(), before), package.digest(request(target=None), before)}
    digests |= {package.digest(request(), before | {stage: "other"}) for stage in package.PACKAGE.needs}
    assert len(digests) == 7


def test_failed_certificate_is_warned_of_where_the_checkpoint_is_built(inputs: PackageInputs, output: Output) -> None:
    assert inputs.evaluation is not None
    inputs.evaluation.write_text(evaluation(80.0).model_dump_json())
    folder, context = output(), RecordingContext()
    package.run(request(target=None), inputs, folder, context)
    assert any("certificate's verdict is failed" in message and "rises" in message for message in context.messages)
    assert "> ⚠️ **Warning" in (folder / "README.md").read_text()


def test_gains_of_documents_are_drawn(inputs: PackageInputs, output: Output, tmp_path: Path) -> None:
    losses = {"tokens": [10, 20, 30], "nats": {"base": [40.0, 80.0, 120.0], "recovered": [38.0, 79.0, 121.0]}}
    (tmp_path / "document_losses.json").write_text(json.dumps({"moby": losses}))
    measured = {"document_losses": tmp_path / "document_losses.json"}
    folder = packaged(PackageInputs(**(vars(inputs) | measured)), output())
    assert (folder / "plots" / "documents.png").stat().st_size > 1000
    assert "plots/documents.png" in (folder / "README.md").read_text()
    assert not (packaged(inputs, output()) / "plots" / "documents.png").exists()


def test_kept_shares_are_those_of_the_widths_or_of_the_masks(
    inputs: PackageInputs, output: Output, tmp_path: Path
) -> None:
    manifest = Manifest.read(packaged(inputs, output()))
    shares = MASKS.kept_shares(manifest)
    assert shares == {"attention heads": [1, 2 / 3, 1, 1], "MLP neurons": [1, 6 / 20, 8 / 20, 1]}
    make_pair(vocab_size=260).base.save_pretrained(tmp_path / "sparse")
    masks = write_masks(tmp_path / "sparse", tmp_path / "weight_masks.safetensors")
    assert list(masks.kept_shares(manifest).values()) == [pytest.approx([1, 0.5, 0.5, 1], abs=0.02)]


def test_files_of_the_base_model_s_owner_are_copied(inputs: PackageInputs, output: Output, tmp_path: Path) -> None:
    """The owner may write to them later, and have them open to everybody."""
    licence = inputs.base / "LICENSE.txt"
    owners = licence.rename(tmp_path / "owners")
    licence.symlink_to(owners)
    folder = output()
    package.run(request(), inputs, folder, RecordingContext())
    assert (folder / "LICENSE.txt").read_text() == "Do good."
    assert not (folder / "LICENSE.txt").samefile(owners)
    assert not (folder / "LICENSE.txt").is_symlink()
