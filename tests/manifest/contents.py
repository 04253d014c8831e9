"""Manifests as JSON, whole, for tests that have no checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from publisher.manifest.manifest import FORMAT_VERSION
from publisher.recipe import Recipe

Json = dict[str, Any]

RECIPE = Recipe.model_validate({"pruning": {"ratio": 0.65, "criterion": "magnitude"}})
WIDTH = {"query_heads": 9, "kv_heads": 3, "neurons": 1536, "experts": 0}
NARROW = WIDTH | {"query_heads": 3, "kv_heads": 1, "neurons": 537}
TRAINING = {"seconds": 3.0, "peak_memory_bytes": 10, "tokens": 40960}


def certificate(recovered: float = 64.0, corpus: str = "novel", **changes: object) -> Json:
    """Of a base model with perplexity 76.62, measured on twelve documents."""
    gain = {"documents": 12, "mean": math.log(76.62 / recovered), "standard_error": 0.02}
    return {
        "corpus": corpus,
        "budget": {"steps": 40, "batch_size": 4, "sequence_length": 256, "rank": 8, "learning_rate": 1e-3},
        "base": 76.62,
        "recovered": recovered,
        "training": TRAINING,
        "recovered_perplexity": {corpus: recovered},
        "base_perplexity": {corpus: 76.62},
        "differences": {corpus: gain},
    } | changes


def evaluation(certified: Mapping[str, object] | None = None) -> Json:
    return {
        "perplexity": {"novel": {"base": 76.62, "pruned": 419.1, "aligned": 131.7, "quantized": 140.2}},
        "held_out_tokens": {"novel": 16384},
        "bytes": {"base": 400, "pruned": 200, "aligned": 200, "quantized": 60},
        "certificate": certificate() if certified is None else dict(certified),
    }


def content(**changes: object) -> Json:
    """What `loram.json` holds, without the digest of its own."""
    return {
        "format_version": FORMAT_VERSION,
        "base": {"repo_id": "org/base", "revision": "c" * 40, "endpoint": "https://hub.example", "files": {}},
        "recipe": RECIPE.model_dump(mode="json"),
        "recipe_digest": RECIPE.digest,
        "parameters": {"base": 134_515_008, "pruned": 84_015_360},
        "bytes": {"base": 269_030_016, "checkpoint": 85_301_888},
        "base_widths": [WIDTH, WIDTH],
        "widths": [WIDTH, NARROW],
        "evaluation": evaluation(),
        "created_at": "2026-11-21T00:00:00Z",
        "files": {"model.safetensors": {"size": 3, "sha256": "0" * 64}},
    } | changes
