"""Jobs of a small random model on a real service, with all that they told: what forecasts are held against."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from publisher.client.client import Client
from tests.e2e.conftest import recipe, start_service, wait_ready, write_text
from tests.models import tiny_llama

#: 6 million parameters: large enough that stages take seconds
_CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
_KINDS = ("state", "stage", "progress")


class Told(BaseModel):
    """One event; `at` in seconds since 1970."""

    kind: str
    at: float
    data: dict[str, Any]


class Run(BaseModel):
    """`planned`: stage → seconds, as the plan said before it began. `stages`: as the job's row had them at its end."""

    recipe: str
    number: int
    planned: dict[str, float]
    events: list[Told]
    stages: dict[str, dict[str, Any]]


def recipes() -> dict[str, dict[str, Any]]:
    """Three that spend their time in different stages."""
    whole = recipe()
    alignment = whole["alignment"] | {"tokens": 65_536, "batch_tokens": 1024}
    evaluation = whole["evaluation"] | {"tokens": 8_192}
    evaluation["probe_budget"] = {"steps": 30, "batch_size": 4, "sequence_length": 64}
    evaluation["require_certificate"] = False
    weights = {"method": "unstructured", "criterion": "wanda", "ratio": 0.5, "calibration": {"corpus": "general"}}
    weights["calibration"] |= {"samples": 64, "sequence_length": 64}  # type: ignore[operator]
    return {
        "with align": whole | {"alignment": alignment, "evaluation": None},
        "without align": {"pruning": weights, "alignment": None, "evaluation": evaluation},
        "structured with evaluation": whole | {"alignment": alignment | {"tokens": 16_384}, "evaluation": evaluation},
    }


def record(runs: int) -> list[Run]:
    """Each recipe `runs` times, with other seeds, so that every stage that draws numbers is made anew."""
    with tempfile.TemporaryDirectory() as folder:
        service = start_service(Path(folder) / "service")
        try:
            wait_ready(service)
            with service.client() as client:
                return _record(client, Path(folder), runs)
        finally:
            service.stop()


def _record(client: Client, folder: Path, runs: int) -> list[Run]:
    base = client.post("/v1/base-models", {"path": str(tiny_llama(folder / "service" / "models" / "m", **_CONFIG))})
    for seed, name in enumerate(("general", "novel")):
        path = write_text(folder / "service" / "corpora" / f"{name}.jsonl", documents=900, seed=seed)
        client.post("/v1/corpora", {"name": name, "path": str(path)})
    return [
        _one(client, base["id"], name, number, asked | {"seed": number})
        for name, asked in recipes().items()
        for number in range(1, runs + 1)
    ]


def _one(client: Client, base_id: str, name: str, number: int, asked: dict[str, Any]) -> Run:
    plan = client.post("/v1/plans", {"base_model_id": base_id, "recipe": asked})
    body = {"base_model_id": base_id, "recipe": asked, "publish": {"repo_id": f"runs/r{number}-{len(name)}"}}
    job = client.post("/v1/variants", body)["job"]["id"]
    events = [Told(kind=each.kind, at=each.data["at"], data=each.data) for each in client.follow_job(job)]
    ended = client.get(f"/v1/jobs/{job}")
    print(name, number, ended["state"], round(events[-1].at - events[0].at, 1), json.dumps(ended["stages"]), flush=True)
    return Run(
        recipe=name,
        number=number,
        planned={stage: 60 * minutes for stage, minutes in plan["minutes"].items()},
        events=[event for event in events if event.kind in _KINDS],
        stages=ended["stages"],
    )
