"""Published checkpoints of a smaller SmolLM2: a manifest with every layer's widths, masks and a bill in the embedded
Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.numpy import save

from publisher.architecture.masks_file import FILE_NAME, FORMAT, PLACES
from publisher.architecture.structure import Unit
from publisher.architecture.structure_json import to_json
from publisher.jobs.transitions import PublishedFile
from publisher.recipe import Recipe
from publisher.store.models import Variant
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import FACTS, GEOMETRY, RECIPE, Account, Work, manifest
from tests.manifest import contents
from tests.worker.card.test_card import evaluation

LAYERS = GEOMETRY.layers
BILL = json.dumps({"metadata": {"component": {"licenses": [{"license": {"id": "Apache-2.0"}}]}}}).encode()


def kept() -> dict[tuple[int, Unit], list[int]]:
    """Of layers 4 to 27: one head of three, and fewer neurons the deeper they are."""
    found = {}
    for layer in range(4, LAYERS - 2):
        found[layer, Unit.KV_HEADS] = [layer % 3]
        chance = np.random.default_rng(layer)
        chosen = chance.choice(1536, size=1536 - 40 * layer, replace=False, p=_likely(layer))
        found[layer, Unit.NEURONS] = sorted(int(index) for index in chosen)
    return found


def _likely(layer: int) -> Any:
    weights = np.linspace(1, 1 + layer / 4, 1536)
    return weights / weights.sum()


def masks(units: Mapping[tuple[int, Unit], list[int]] | None = None) -> bytes:
    """A masks file as workers write it."""
    tensors = {
        f"{GEOMETRY.layer_prefix}{layer}.{PLACES[unit]}": np.array(indices, dtype=np.int32)
        for (layer, unit), indices in (kept() if units is None else units).items()
    }
    structure = to_json(GEOMETRY.kinds, GEOMETRY.kind_of, GEOMETRY.layer_prefix)
    return save(tensors, {"format": FORMAT, "structure": structure})


def measured(recovered: float = 64.0, **changes: Any) -> dict[str, Any]:
    """A manifest with all layers, a certificate on two corpora, and an alignment that used less than was asked for."""
    units = kept()
    widths = [contents.WIDTH | _left(units, layer) for layer in range(LAYERS)]
    return (
        manifest()
        | {
            "base_widths": [contents.WIDTH] * LAYERS,
            "widths": widths,
            "evaluation": evaluation(recovered).model_dump(mode="json"),
            "alignment": ALIGNED,
            "files": {FILE_NAME: {"size": 3, "sha256": "0" * 64}},
        }
        | changes
    )


ALIGNED = {
    "steps": 10,
    "tokens": 40_960,
    "seconds": 60.0,
    "peak_memory_bytes": 2**30,
    "gradient_matching": 1.0,
    "quantization_aware": True,
    "reconstruction": {
        "tokens": 65_536, "seconds": 5.0, "peak_memory_bytes": 2**30, "error_before": 0.5, "error_after": 0.3
    },
}  # fmt: skip


def _left(units: Mapping[tuple[int, Unit], list[int]], layer: int) -> dict[str, int]:
    heads, neurons = units.get((layer, Unit.KV_HEADS)), units.get((layer, Unit.NEURONS))
    return {
        "query_heads": 9 if heads is None else 3 * len(heads),
        "kv_heads": 3 if heads is None else len(heads),
        "neurons": 1536 if neurons is None else len(neurons),
    }


def publish(
    dashboard: RunningDashboard,
    account: Account,
    files: Mapping[str, bytes],
    *,
    name: str = "small",
    manifest: dict[str, Any] | None = None,
    recipe: Recipe = RECIPE,
    base_model_id: str | None = None,
) -> Work:
    """A variant whose job has published `files` to the embedded Hub."""
    work = account.job(f"{account.name}/{name}", base_model_id, recipe).start()
    return publish_as(dashboard, account, work, name, files, manifest)


def publish_as(
    dashboard: RunningDashboard,
    account: Account,
    work: Work,
    name: str,
    files: Mapping[str, bytes],
    manifest: dict[str, Any] | None = None,
) -> Work:
    """What the worker that has this job does at its end."""
    hub = HfApi(endpoint=f"{dashboard.url}/hub", token=account.key)
    repo = hub.create_repo(f"{hub.whoami()['name']}/{name}").repo_id
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    commit = hub.create_commit(repo, operations, commit_message="Publish").oid
    published = [PublishedFile(path, len(it), hashlib.sha256(it).hexdigest()) for path, it in sorted(files.items())]
    return work.succeed(
        measured() if manifest is None else manifest,
        published,
        endpoint=f"{dashboard.url}/hub",
        repo_id=repo,
        commit=str(commit),
    )


def sweep(dashboard: RunningDashboard, account: Account, vary: Mapping[str, list[Any]] | None = None) -> list[Work]:
    """A sweep that was asked for by the API, of three ratios; its id is `sweep_id` of each variant."""
    body = {
        "base_model_id": account.base_model(),
        "recipe": {"pruning": {"criterion": "magnitude"}},
        "vary": vary or {"pruning.ratio": [0.25, 0.5, 0.75]},
        "publish": {"repo_id": f"{account.name}/small-{{n}}"},
        "labels": {"study": "ratios"},
    }
    headers = {"Authorization": f"Bearer {account.key}"}
    answer = httpx.post(f"{dashboard.url}/v1/sweeps", json=body, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    return [Work(account.database, one["job_id"], one["id"]) for one in answer.json()["variants"]]


def sweep_id(work: Work) -> str:
    with work.database.read() as session:
        found = session.get_one(Variant, work.variant_id).sweep_id
    assert found is not None
    return found


def smaller(parameters: int, recovered: float, bytes: int = 85_301_888) -> dict[str, Any]:
    """A manifest of a variant that is more or less pruned, and carries over more or less well."""
    counts = {"base": FACTS.parameters, "pruned": parameters}
    return measured(recovered, parameters=counts, bytes={"base": FACTS.bytes, "checkpoint": bytes})
