"""Whether a model is the one that a checkpoint was pruned from, as far as its config.json tells.

Where it has the very file that the manifest names, it is. Else family and sizes have to be those of the checkpoint: a
copy in 4 bits or with another vocabulary is taken, and said. Weights are not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from publisher.architecture import describe
from publisher.checkpoint.integrity import CONFIG
from publisher.checkpoint.manifest import Manifest
from publisher.checkpoint.masks import Masks
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault, UnsupportedModel

#: what pruning leaves as it is, and an adapter's tensors depend on
_SAME = ("model_type", "hidden_size", "num_hidden_layers")
#: what a copy of the base model may have, and no model that can be pruned
_OF_COPIES = ("quantization_config",)


def note_on_base(
    given: str | None, checkpoint: Path, manifest: Manifest, masks: Masks | WeightMasks, *, force: bool = False
) -> str | None:
    """What there is to say of base model `given` (a folder or repository; None: the manifest's), a sentence.

    None: it is the manifest's own, or has its config.json. Raises RequestFault if it is of another family or has other
    sizes, which `force` makes a sentence too.
    """
    name = given or manifest.base.repo_id
    content = _config_of(name) if given is not None or Path(name).is_dir() else None
    if content is None:
        return None if name == manifest.base.repo_id else _unread(name, manifest)
    stated = manifest.base.files.get(CONFIG)
    if stated is not None and hashlib.sha256(content).hexdigest() == stated.sha256:
        return None
    difference = next(
        _differences(_parsed(name, content), _parsed(str(checkpoint), _own(checkpoint)), manifest, masks), None
    )
    if difference and not force:
        raise RequestFault(
            f"{name} is not the base model of this checkpoint, {manifest.base.repo_id}: {difference}.",
            way_out="Name with --base the model that the checkpoint was made from; --force takes it all the same.",
        )
    if difference:
        return f"Forced: {name} is not the base model of this checkpoint, {manifest.base.repo_id}: {difference}."
    if stated is None or name == manifest.base.repo_id:
        return None
    return (
        f"{name} has the family and sizes of the base model, {manifest.base.repo_id}, but not its {CONFIG}: that its "
        "weights are the same is not checked."
    )


def _unread(name: str, manifest: Manifest) -> str:
    return f"{name} could not be read: that it is the base model, {manifest.base.repo_id}, is not checked."


def _config_of(name: str) -> bytes | None:
    """config.json of a folder or, where a Hub answers or it was downloaded before, of a repository."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / CONFIG).read_bytes() if (folder / CONFIG).is_file() else None
    try:
        return Path(hf_hub_download(name, CONFIG)).read_bytes()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError):
        return None


def _own(checkpoint: Path) -> bytes:
    return (checkpoint / CONFIG).read_bytes()


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise RequestFault(f"{CONFIG} of {name} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise RequestFault(f"{CONFIG} of {name} is not a JSON object.")
    return config


def _differences(
    base: Mapping[str, Any], pruned: Mapping[str, Any], manifest: Manifest, masks: Masks | WeightMasks
) -> Iterator[str]:
    """What of the model of config `base` cannot be the base model's, a clause each."""
    for key in _SAME:
        if key in base and key in pruned and base[key] != pruned[key]:
            yield f"it has {key} {base[key]}, the checkpoint {pruned[key]}"
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
    if isinstance(masks, Masks) and (geometry.kinds, geometry.kind_of) != (masks.kinds, masks.kind_of):
        yield "its layers have tensors of other names or shapes than the masks describe"
