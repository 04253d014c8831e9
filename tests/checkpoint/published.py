"""Checkpoints as `publisher build` makes them of a tiny model, signed: by the stages themselves, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurve, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from publisher.configuration.signing_key import ModelKey
from publisher.manifest.manifest import Manifest, record
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from tests.worker.stages.building import prose, request_for
from worker.context import RecordingContext
from worker.stages.pipeline import run_pipeline
from worker.storage.folder import RECORD
from worker.storage.store import StageStore

#: nothing reads text, so that building takes a second
PRUNING = {"criterion": "magnitude", "ratio": 0.5, "protect_first": 1, "protect_last": 1}
IN_4_BITS = {"pruning": PRUNING, "alignment": None, "evaluation": None, "quantization": {"scheme": "nf4"}}
SPARSE = {"method": "unstructured", "storage": "compressed"}
COMPRESSED = IN_4_BITS | {"pruning": PRUNING | SPARSE, "quantization": {"scheme": "none"}}


@dataclass(frozen=True)
class Keys:
    """A private key, and files with both halves."""

    key: ModelKey
    private: Path
    public: Path


def make_keys(folder: Path, name: str = "key", curve: EllipticCurve | None = None) -> Keys:
    made = generate_private_key(curve or SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    private.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return Keys(ModelKey.read(private.read_text(), str(private)), private, public)


def make_base(folder: Path) -> Path:
    base = tiny_llama(folder, dtype=torch.bfloat16, max_shard_size="40KB")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# The base model\n")
    return base


def build(folder: Path, base: Path, recipe: Mapping[str, Any], key: ModelKey | None) -> Path:
    """A folder as OUT of `publisher build`."""
    request = replace(
        request_for(base, prose(folder.parent / "prose.jsonl"), Recipe.model_validate(recipe)), signing_key=key
    )
    store = StageStore(folder.parent / f"{folder.name}-stages")
    made = run_pipeline(request, store, lambda stage: RecordingContext(), Stage.PACKAGE)[Stage.PACKAGE]
    return Path(shutil.copytree(made, folder, ignore=shutil.ignore_patterns(RECORD)))


def resealed(checkpoint: Path, **keys: Any) -> Path:
    """The manifest with other values, and digests that fit all files: somebody who knows what he does."""
    manifest = Manifest.read(checkpoint)
    files = {name: record(checkpoint / name) for name in manifest.files}
    manifest.model_copy(update={"files": files, **keys}).write(checkpoint)
    return checkpoint
