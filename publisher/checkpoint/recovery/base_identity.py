"""Whether a model is the one that a checkpoint was pruned from, as far as its config.json tells.

Where it has the very file that the manifest names, it is, unless a file of weights says otherwise: those of another
training of the same family, or the checkpoint itself where only single weights were pruned. Else family and sizes have
to be those of the checkpoint: a copy in 4 bits or with another vocabulary is taken, and said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from publisher.checkpoint.integrity import CONFIG
from publisher.checkpoint.model_weights import ModelWeights
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.errors import PublisherError, RequestFault, UnsupportedModel
from publisher.families.describe import describe
from publisher.files.json_object import parse_object
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.repo_id import is_repo_id
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest, record
from publisher.weights.parameters import read_parameters

#: what pruning leaves as it is, and an adapter's tensors depend on
_SAME = ("model_type", "hidden_size", "num_hidden_layers")
#: what a copy of the base model may have, and no model that can be pruned
_OF_COPIES = ("quantization_config",)


def note_on_base(
    given: str | None, checkpoint: Path, manifest: Manifest, masks: PruningMasks, *, force: bool = False
) -> str | None:
    """What there is to say of base model `given` (a folder or repository; None: the manifest's), a sentence.

    None: it is the manifest's own, or has its config.json. Raises RequestFault if it is of another family or has other
    sizes, which `force` makes a sentence too.
    """
    name = given or manifest.base.repo_id
    if given is not None:
        _refuse_no_model(given)
        _refuse_checkpoint(given, manifest)
    content = _config_of(name) if given is not None or Path(name).is_dir() else None
    if content is None:
        return None if name == manifest.base.repo_id else _unread(name, manifest)
    stated = manifest.base.files.get(CONFIG)
    if stated is not None and hashlib.sha256(content).hexdigest() == stated.sha256:
        return _note_on_weights(Path(name), manifest)
    differences = _differences(_parsed(name, content), _parsed(checkpoint, _own(checkpoint)), manifest, masks)
    if not _can_describe():
        differences = chain(differences, _differences_of_files(Path(name), masks))
    difference = next(differences, None)
    if difference and not force:
        raise RequestFault(
            f"{name} is not the base model of this checkpoint, {manifest.base.repo_id}: {difference}.",
            way_out="Name with --base the model that the checkpoint was made from; --force takes it all the same.",
        )
    if difference:
        return f"Forced: {name} is not the base model of this checkpoint, {manifest.base.repo_id}: {difference}."
    if stated is None or name == manifest.base.repo_id:
        return None
    unchecked = "weights are the same" if _can_describe() else "layers and weights are the same (without transformers)"
    return (
        f"{name} has the family and sizes of the base model, {manifest.base.repo_id}, but not its {CONFIG}: that its "
        f"{unchecked} is not checked."
    )


def _differences_of_files(folder: Path, masks: PruningMasks) -> Iterator[str]:
    """Of weights that lie in a folder, by their headers, which need no transformers."""
    if not ModelWeights(folder).here:
        return
    yield from masks.unfit(read_parameters(folder).shapes, base=True)


def _can_describe() -> bool:
    return find_spec("transformers") is not None


def _refuse_no_model(given: str) -> None:
    """An adapter that names a folder that is none, or is empty, is loaded nowhere."""
    folder = Path(given)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise RequestFault(
                f"{given} is no model: it has no {CONFIG}.", field="base_model", way_out="Name the base model's folder."
            )
        return
    if not is_repo_id(given):
        raise RequestFault(
            f"{given or 'An empty name'} is neither a folder nor a repository's name.",
            field="base_model",
            way_out="Name the base model's folder, or its repository.",
        )


def _refuse_checkpoint(given: str, manifest: Manifest) -> None:
    """Where single weights were pruned, a checkpoint has the base model's own config.json."""
    if (Path(given) / manifests.FILE_NAME).is_file() and Manifest.read(Path(given)).files == manifest.files:
        raise RequestFault(
            f"{given} is the checkpoint, not the base model that it was made from, {manifest.base.repo_id}.",
            field="base_model",
            way_out="Name the base model with --base.",
        )


def _note_on_weights(folder: Path, manifest: Manifest) -> str | None:
    """Of a folder with the base model's config.json. Reads the smallest file of weights only: training changes all."""
    files = [name for name in manifest.base.files if name.endswith(".safetensors") and (folder / name).is_file()]
    name = min(files, key=lambda name: manifest.base.files[name].size, default=None)
    if name is None or record(folder / name) == manifest.base.files[name]:
        return None
    return (
        f"{folder} has the {CONFIG} of the base model, {manifest.base.repo_id}, but another {name}: what was "
        "trained is for weights that are not these."
    )


def _unread(name: str, manifest: Manifest) -> str:
    return f"{name} could not be read: that it is the base model, {manifest.base.repo_id}, is not checked."


def _config_of(name: str) -> bytes | None:
    """config.json of a folder or, where a Hub answers or it was downloaded before, of a repository."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / CONFIG).read_bytes() if (folder / CONFIG).is_file() else None
    try:
        with hub_faults(Asked(name, None, "HF_TOKEN")):
            return Path(hf_hub_download(name, CONFIG)).read_bytes()
    except (PublisherError, OSError):
        return None


def _own(checkpoint: Path) -> bytes:
    return (checkpoint / CONFIG).read_bytes()


def _parsed(where: object, content: bytes) -> dict[str, Any]:
    return parse_object(content, f"{CONFIG} of {where}")


def _differences(
    base: Mapping[str, Any], pruned: Mapping[str, Any], manifest: Manifest, masks: PruningMasks
) -> Iterator[str]:
    """What of the model of config `base` cannot be the base model's, a clause each."""
    for key in _SAME:
        if key in base and key in pruned and base[key] != pruned[key]:
            yield f"it has {key} {base[key]}, the checkpoint {pruned[key]}"
    if not _can_describe():
        return
    try:
        geometry = describe({key: value for key, value in base.items() if key not in _OF_COPIES})
    except UnsupportedModel as error:
        yield str(error).rstrip(".")
        return
    for layer, (found, stated) in enumerate(zip(geometry.full_widths, manifest.base_widths, strict=False)):
        if (found.kv_heads, found.neurons, found.experts) != (stated.kv_heads, stated.neurons, stated.experts):
            yield (
                f"its layer {layer} has {found.kv_heads} KV heads, {found.neurons} neurons, {found.experts} experts, "
                f"the base model's {stated.kv_heads}, {stated.neurons}, {stated.experts}"
            )
    if not masks.fit(geometry):
        yield "its layers have tensors of other names or shapes than the masks describe"
