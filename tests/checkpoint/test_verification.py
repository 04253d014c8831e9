"""Whatever is changed in a checkpoint that was really built has a line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from publisher.checkpoint.agreement import FORMS
from publisher.checkpoint.compression import METHOD
from publisher.checkpoint.masks import load_masks, save_masks
from publisher.checkpoint.verification import verify_checkpoint
from publisher.client.verify import verify
from publisher.configuration.signing_key import public_key_id
from publisher.loading.four_bit_everywhere import METHOD as EVERYWHERE
from publisher.manifest.manifest import Manifest
from tests.checkpoint.published import COMPRESSED, IN_4_BITS, build, make_base, make_keys, resealed
from tests.models import tiny_llama

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `4-bit` and `compressed`, which are signed."""
    folder = tmp_path_factory.mktemp("made")
    base, keys = make_base(folder / "base"), make_keys(folder)
    build(folder / "4-bit", base, IN_4_BITS, keys.key)
    build(folder / "compressed", base, COMPRESSED, keys.key)
    return folder


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "4-bit", tmp_path / "checkpoint"))


def run(checkpoint: Path, *options: object) -> Result:
    return CliRunner().invoke(verify, [str(checkpoint), *map(str, options)])


def signed_by(made: Path) -> tuple[object, ...]:
    return ("--signature", "--public-key", made / "key-public.pem")


@pytest.mark.parametrize("form", ["4-bit", "compressed"])
def test_what_was_built_is_whole_made_of_its_base_and_signed(made: Path, form: str) -> None:
    result = run(made / form, "--base", made / "base", *signed_by(made))
    assert result.exit_code == 0, result.output
    whole, of_base, signed = result.stdout.splitlines()
    assert "files are as they were published" in whole
    assert "of whose files" in of_base
    assert signed.endswith(make_id(made))


def make_id(made: Path) -> str:
    return public_key_id((made / "key-public.pem").read_bytes(), "")


def flipped(name: str, at: int = -1) -> Change:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return change


def config(**keys: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | keys))
        resealed(folder)

    return change


def narrower(folder: Path) -> None:
    """config.json says that a layer has one neuron fewer."""
    layers = json.loads((folder / "config.json").read_text())["per_layer_config"]
    layers["1"]["intermediate_size"] -= 1
    config(per_layer_config=layers)(folder)


def manifest(part: str, **keys: Any) -> Change:
    def change(folder: Path) -> None:
        old = getattr(Manifest.read(folder), part)
        resealed(folder, **{part: old.model_copy(update=keys)})

    return change


def one_kept_less(folder: Path) -> None:
    masks = load_masks(folder / "pruning_masks.safetensors")
    (layer, unit), kept = max(masks.kept.items(), key=lambda item: len(item[1]))
    kinds = {"kept": {**masks.kept, (layer, unit): kept[:-1]}}
    save_masks(
        type(masks)(masks.kinds, masks.kind_of, **kinds, prefix=masks.prefix), folder / "pruning_masks.safetensors"
    )
    resealed(folder)


def tensors(change: Callable[[dict[str, torch.Tensor]], object], file: str = "") -> Change:
    """The file of weights that holds layer 1's up_proj, written anew by somebody who fits the manifest to it."""

    def changed(folder: Path) -> None:
        paths = sorted(folder.glob("model*.safetensors"))
        path = next(path for path in paths if "model.layers.1.mlp.up_proj.weight" in load_file(path))
        content = load_file(path)
        change(content)
        save_file(content, path, metadata={"format": "pt"})
        resealed(folder)

    return changed


def other_note(content: dict[str, torch.Tensor]) -> None:
    """The note of a 4-bit weight says other axes of as many values."""
    name = "model.layers.1.mlp.up_proj.weight.quant_state.bitsandbytes__nf4"
    note = json.loads(bytes(content[name].tolist()))
    note["shape"] = note["shape"][::-1]
    content[name] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)


def other_recipe(folder: Path) -> None:
    stated = json.loads((folder / "provenance.intoto.json").read_text())
    stated["predicate"]["buildDefinition"]["externalParameters"]["recipe"]["seed"] = 7
    (folder / "provenance.intoto.json").write_text(json.dumps(stated))
    resealed(folder)


def statement(**changes: Any) -> Change:
    """The provenance with other values, each named by its path."""

    def change(folder: Path) -> None:
        stated = json.loads((folder / "provenance.intoto.json").read_text())
        for path, value in changes.items():
            *above, last = path.split("__")
            inside = stated
            for key in above:
                inside = inside[int(key) if key.isdigit() else key]
            inside[last] = value
        (folder / "provenance.intoto.json").write_text(json.dumps(stated))
        resealed(folder)

    return change


def linked_templates(folder: Path) -> None:
    """Templates that transformers takes, in a folder that neither manifest nor signature look into."""
    outside = folder.parent / "templates"
    outside.mkdir()
    (outside / "default.jinja").write_text("{{ evil }}")
    (folder / "additional_chat_templates").symlink_to(outside)


def file_in_index(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        content["weight_map"][min(content["weight_map"])] = name
        path.write_text(json.dumps(content))
        resealed(folder)

    return change


def index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    files = sorted(set(content["weight_map"].values()))
    name = next(name for name, file in sorted(content["weight_map"].items()) if file == files[0])
    content["weight_map"][name] = files[1]
    path.write_text(json.dumps(content))
    resealed(folder)


#: a change, and what the line that names it says
CHANGES: dict[str, tuple[Change, str]] = {
    "a byte of the weights": (
        flipped("model-00001-of-00003.safetensors"),
        "model-00001-of-00003.safetensors has sha256",
    ),
    "a byte of the masks": (flipped("pruning_masks.safetensors"), "pruning_masks.safetensors has sha256"),
    "a missing file": (
        lambda folder: (folder / "generation_config.json").unlink(),
        "generation_config.json is missing.",
    ),
    "an edited manifest": (flipped("loram.json", 300), "loram.json"),
    "a kept index less": (one_kept_less, "by the masks"),
    "width in config.json": (narrower, "intermediate_size 23 in config.json"),
    "hidden size in config.json": (config(hidden_size=64), "model.embed_tokens.weight has shape 320 × 32"),
    "no quantization in config.json": (
        config(quantization_config=None),
        "weights are stored as they are by config.json",
    ),
    "parameters": (manifest("parameters", pruned=1), "the checkpoint has 1 parameters by loram.json, "),
    "parameters of the base": (manifest("parameters", base=1), "the base model has 1 parameters by loram.json, "),
    "bytes": (manifest("bytes", checkpoint=1), "says that the checkpoint has 1 bytes of weights, and lists files of"),
    "bytes of the base": (manifest("bytes", base=1), "says that the base model has 1 bytes of weights"),
    "recipe": (lambda folder: resealed(folder, recipe_digest="0" * 64), "another digest than recipe_digest says"),
    "another base": (manifest("base", revision="d" * 40), "provenance.intoto.json has another recipe or base model"),
    "a note of a weight": (tensors(other_note), "model.layers.1.mlp.up_proj.weight has shape 32 × 24, and 24 × 32"),
    "a weight less": (
        tensors(lambda content: content.pop("model.layers.1.input_layernorm.weight")),
        "model.layers.1.… has no input_layernorm.weight",
    ),
    "a weight more": (
        tensors(lambda content: content.update({"model.layers.1.mlp.bias": torch.ones(2)})),
        "model.layers.1.… has mlp.bias, of which the masks know nothing",
    ),
    "provenance": (other_recipe, "provenance.intoto.json has another recipe or base model than the manifest"),
    "another kind of statement": (statement(predicateType="x"), "provenance.intoto.json is of another kind"),
    "software of the provenance": (
        statement(predicate__runDetails__builder__version={"torch": "1"}),
        "provenance.intoto.json has another builder, other software or another time",
    ),
    "a subject that is no name": (statement(subject__2__name=0.5), "provenance.intoto.json has sha256"),
    "index": (index, "holds model."),
    "a file that can be none": (file_in_index("model\0.safetensors"), "which is not a file beside it"),
    "layers that are none": (config(per_layer_config="x"), "per_layer_config in config.json is not"),
    "a layer that is none": (config(per_layer_config={"1": 7}), "per_layer_config in config.json is not"),
    "a link to a folder": (linked_templates, "additional_chat_templates is a link to a folder"),
    "another tokenizer": (lambda folder: (folder / "tekken.json").touch(), "tekken.json is not among the files"),
    "more weights": (lambda folder: (folder / "consolidated.safetensors").touch(), "consolidated.safetensors is not"),
    "a template": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ evil }}"),
        "chat_template.jinja is not among the files that loram.json names, and loading takes it.",
    ),
    "code": (lambda folder: (folder / "modeling_llama.py").touch(), "modeling_llama.py is not among the files"),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "adapter_config.json is not among",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_named_and_fails(checkpoint: Path, what: str) -> None:
    change, said = CHANGES[what]
    change(checkpoint)
    result = run(checkpoint)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr, result.stderr
    assert all(line.startswith(("Error: ", "Note: ", "compare ")) for line in result.stderr.splitlines())


def test_changes_of_compressed_weights_are_named(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "compressed", tmp_path / "checkpoint"))
    tensors(lambda content: content.update({"model.layers.1.mlp.up_proj.weight": torch.ones(5, dtype=torch.bfloat16)}))(
        folder
    )
    (problem,) = [line for line in verify_checkpoint(folder).problems if "up_proj" in line]
    assert (
        problem
        == "It contradicts itself: model.layers.1.mlp.up_proj.weight is stored as 5 values, and its mask keeps 768."
    )


def test_another_base_model_is_named_file_by_file_and_by_its_shapes(made: Path, tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", intermediate_size=40)
    result = run(made / "4-bit", "--base", other)
    assert result.exit_code == 1
    assert "Base model: config.json has sha256" in result.stderr or "Base model: config.json has" in result.stderr
    assert "Base model: model.layers.0.mlp.up_proj.weight has shape 40 × 32, and 48 × 32 by the masks." in result.stderr


def test_a_base_model_of_other_weights_alone_is_named(made: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(made / "base", tmp_path / "base"))
    flipped("model-00001-of-00003.safetensors")(base)
    result = run(made / "4-bit", "--base", base)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert line.startswith("Error: Base model: model-00001-of-00003.safetensors has sha256 ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "model.sig").unlink(), "model.sig is missing: the checkpoint is not signed."),
        (lambda folder: (folder / "model.sig").write_text("{}"), "model.sig cannot be read as a signature (KeyError"),
        (lambda folder: (folder / "notes.txt").touch(), "model.sig is of other files: notes.txt was added."),
        (manifest("bytes", base=1), "model.sig is of other files: loram.json was changed."),
        (lambda folder: (folder / "README.md").unlink(), "model.sig is of other files: README.md is missing."),
        (linked_templates, "additional_chat_templates is a link to a folder: what is in it was not compared."),
    ],
    ids=["none", "no signature", "added", "changed", "missing", "linked"],
)
def test_signature_of_something_else_is_refused(made: Path, checkpoint: Path, change: Change, said: str) -> None:
    change(checkpoint)
    result = run(checkpoint, *signed_by(made))
    assert result.exit_code == 1
    assert f"Error: {said}" in result.stderr


def test_somebody_else_s_signature_is_refused_and_so_is_a_forged_one(
    made: Path, checkpoint: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path, "other")
    assert "made with another key" in run(checkpoint, "--signature", "--public-key", other.public).stderr
    bundle = json.loads((checkpoint / "model.sig").read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = other.key.id  # as if the other had signed it
    (checkpoint / "model.sig").write_text(json.dumps(bundle))
    result = run(checkpoint, "--signature", "--public-key", other.public)
    assert result.exit_code == 1
    assert "model.sig is not genuine: the key has not signed what it says." in result.stderr


def test_a_file_that_nothing_loads_is_a_note_and_the_hub_s_own_are_none(checkpoint: Path) -> None:
    (checkpoint / "notes.txt").touch()
    (checkpoint / ".cache" / "huggingface").mkdir(parents=True)
    (checkpoint / ".cache" / "huggingface" / "config.json.metadata").touch()
    (checkpoint / ".gitattributes").touch()
    result = run(checkpoint)
    assert result.exit_code == 0
    assert "Note: beside the checkpoint's own files there are notes.txt." in result.stderr
    assert "Note: it is signed; --signature --public-key FILE checks by whom." in result.stderr


def test_programs_get_a_document(made: Path, checkpoint: Path) -> None:
    whole = json.loads(run(checkpoint, "--json", *signed_by(made)).stdout)
    assert (whole["whole"], whole["problems"], whole["signed"], whole["signed_by"]) == (True, [], True, make_id(made))
    (checkpoint / "config.json").unlink()
    (checkpoint / "extra.bin").touch()
    result = run(checkpoint, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["whole"] is False
    (checkpoint / "config.json").write_text("{}")
    document = json.loads(run(checkpoint, "--json", *signed_by(made)).stdout)
    assert document["signed_by"] is None
    assert document["others"] == ["extra.bin"]
    assert any(problem.startswith("config.json has ") for problem in document["problems"])


@pytest.mark.parametrize("options", [["--signature"], ["--public-key", __file__]])
def test_a_signature_is_checked_with_a_key_that_somebody_names(made: Path, options: list[str]) -> None:
    result = run(made / "4-bit", *options)
    assert result.exit_code == 2
    assert "go together" in result.stderr


def test_what_is_no_public_key_is_one_line(made: Path) -> None:
    result = run(made / "4-bit", "--signature", "--public-key", made / "key.pem")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "key.pem holds no public key" in result.stderr


def test_a_checkpoint_from_before_signatures_and_provenance_is_whole(checkpoint: Path) -> None:
    for name in ("model.sig", "provenance.intoto.json", "bom.cdx.json"):
        (checkpoint / name).unlink()
    old = Manifest.read(checkpoint)
    kept = {name: file for name, file in old.files.items() if (checkpoint / name).is_file()}
    old.model_copy(update={"files": kept}).write(checkpoint)
    assert run(checkpoint).exit_code == 0


def test_forms_of_weights_are_those_of_who_writes_them() -> None:
    assert {"bitsandbytes", EVERYWHERE, METHOD} == FORMS.keys()
