"""What an adapter was trained on, and what it was recovered from, as its own adapter_config.json says.

Adapters of two checkpoints can have equal shapes: the same recipe with another seed keeps other heads and neurons. So
an adapter names the checkpoint by a **digest**: sha256 (hex) over one line `sha256␣␣name` for the masks file and each
weights file (`model*.safetensors`), sorted by name, with the digests that the manifest records. It costs nothing, also
for a checkpoint of which only the manifest is at hand; a card or tokenizer that changed does not change it.

It stands under `auto_mapping` in adapter_config.json: the one key of PEFT's configs that takes what it does not know
and comes out again when an adapter is loaded and saved, in 0.17 as in 0.21, also by programs that know nothing of this.

    "auto_mapping": {"loram": {"trained_on": {"checkpoint": "…", "masks": "…"}}}
    "auto_mapping": {"loram": {"recovered_from": {"checkpoint": "…", "masks": "…"}, "provenance": "verified",
                               "base": {"repo_id": "org/base", "revision": "…"}}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest

#: PEFT's key of adapter_config.json, and ours in it
PLACE, KEY = "auto_mapping", "loram"
#: Beside adapter_config.json: the update was masked when it was saved (masked.py). PEFT warns of keys in that file that
#: it does not know.
MARK_FILE = "loram_masked.json"
_TRAINED_ON, _RECOVERED_FROM = "trained_on", "recovered_from"


class Provenance(StrEnum):
    """Whether an adapter is known to be of a checkpoint."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    FORCED = "forced"


@dataclass(frozen=True)
class Tie:
    """A checkpoint: the digest of its masks and weights (see above), and its masks file's sha256."""

    checkpoint: str
    masks: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self | None:
        """None if the manifest does not name masks and weights."""
        names = sorted(name for name in manifest.files if name == MASKS or is_weights(name))
        if MASKS not in names or len(names) == 1:
            return None
        lines = "".join(f"{manifest.files[name].sha256}  {name}\n" for name in names)
        return cls(hashlib.sha256(lines.encode()).hexdigest(), manifest.files[MASKS].sha256)


def is_weights(name: str) -> bool:
    """Whether a file of a checkpoint holds weights, by its name."""
    return name.startswith("model") and name.endswith(".safetensors")


def tied(auto_mapping: Mapping[str, Any] | None, tie: Tie) -> dict[str, Any]:
    """What `auto_mapping` becomes of an adapter that was trained on the checkpoint of `tie`."""
    return {**(auto_mapping or {}), KEY: {_TRAINED_ON: asdict(tie)}}


def trained_on(config: Mapping[str, Any]) -> Tie | None:
    """What an adapter_config.json says that the adapter was trained on; None: nothing that can be read."""
    stated = _record(config).get(_TRAINED_ON)
    if not isinstance(stated, dict):
        return None
    values = [stated.get(name) for name in ("checkpoint", "masks")]
    return Tie(*map(str, values)) if all(isinstance(value, str) for value in values) else None


def settled(config: Mapping[str, Any], tie: Tie | None, *, where: object, force: bool = False) -> Provenance:
    """Whether the adapter of this adapter_config.json is of the checkpoint `tie`, which is called `where`.

    Raises RequestFault if it is of another one, unless `force`, and in any case if it is recovered already.
    """
    refuse_recovered(config)
    stated = trained_on(config)
    if stated is None or tie is None:
        return Provenance.UNVERIFIED
    if stated.checkpoint == tie.checkpoint:
        return Provenance.VERIFIED
    if force:
        return Provenance.FORCED
    named = config.get("base_model_name_or_path")
    same = " Their masks are equal, their weights are not." if stated.masks == tie.masks else ""
    raise RequestFault(
        f"The adapter was trained on checkpoint {stated.checkpoint[:12]}{f' ({named})' if named else ''}, and {where} "
        f"is checkpoint {tie.checkpoint[:12]}.{same}",
        way_out="Name the checkpoint, and the revision of it, that the adapter was trained on; --force recovers it "
        "nevertheless.",
    )


def refuse_recovered(config: Mapping[str, Any]) -> None:
    """Raise RequestFault for an adapter that recovery wrote: its update has its places in the base model already."""
    record = _record(config)
    source = record.get(_RECOVERED_FROM)
    if _RECOVERED_FROM not in record:
        return
    named = f" from checkpoint {source['checkpoint'][:12]}" if isinstance(source, dict) and source else ""
    raise RequestFault(
        f"This adapter was recovered already{named}: it is one for the base model "
        f"{config.get('base_model_name_or_path')}.",
        way_out="Load it there with PeftModel.from_pretrained.",
    )


def recovered(tie: Tie | None, provenance: Provenance, base: str, revision: str | None) -> dict[str, Any]:
    """What the recovered adapter says of itself, under `auto_mapping.loram`."""
    return {
        _RECOVERED_FROM: None if tie is None else asdict(tie),
        "provenance": str(provenance),
        "base": {"repo_id": base, "revision": revision},
    }


def _record(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whatever somebody else wrote there counts as nothing."""
    place = config.get(PLACE)
    record = place.get(KEY) if isinstance(place, dict) else None
    return record if isinstance(record, dict) else {}
