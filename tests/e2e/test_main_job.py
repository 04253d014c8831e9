"""The whole path: register, plan, make a variant, publish; then somebody else trains on it and recovers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import snapshot_download

from publisher.checkpoint.verification import verify_checkpoint
from publisher.configuration.signing_key import public_key_id
from tests.e2e.conftest import KEY, Service, recipe

pytestmark = pytest.mark.e2e

DOWNSTREAM = """
import json, sys, torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
import publisher.checkpoint
from publisher.checkpoint.recovery import recover_adapter
repo, base, out = sys.argv[1:]
checkpoint = snapshot_download(repo)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint)
adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
ids = tokenizer("the ship sails on the sea " * 8, return_tensors="pt").input_ids
optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
losses = []
for _ in range(8):
    loss = adapted(input_ids=ids, labels=ids).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad(); losses.append(loss.item())
adapted.save_pretrained(out + "/adapter")
from pathlib import Path
report = recover_adapter(Path(out) / "adapter", Path(checkpoint), Path(out) / "recovered", base_model=base)
large = AutoModelForCausalLM.from_pretrained(base).eval()
alone = large(ids).logits
recovered = PeftModel.from_pretrained(large, out + "/recovered").eval()
config = json.load(open(out + "/recovered/adapter_config.json"))
print(json.dumps({"losses": losses, "moved": (recovered(ids).logits - alone).abs().max().item(),
                  "base": config["base_model_name_or_path"], "provenance": report.provenance,
                  "quantized": str(model.model.layers[0].mlp.up_proj.weight.dtype)}))
"""


@pytest.fixture(scope="module")
def variant(service: Service, base_model: dict[str, Any], corpora: dict[str, Path]) -> dict[str, Any]:
    """A published variant of the tiny model, followed to its end through the event stream."""
    body = {"base_model_id": base_model["id"], "recipe": recipe(), "publish": {"repo_id": "e2e/tiny", "private": False}}
    with service.client() as client:
        made = client.post("/v1/variants", body, idempotency_key="main-job")
        again = client.post("/v1/variants", body, idempotency_key="main-job")
        assert again["id"] == made["id"]
        events = list(client.follow_job(made["job"]["id"]))
        assert events[-1].data["state"] == "succeeded", events[-1].data
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        return client.get(f"/v1/variants/{made['id']}") | {"events": events, "job": made["job"]}


def test_every_stage_ran_and_reported(variant: dict[str, Any]) -> None:
    # what other tests on this service already made may be reused
    done = [e.data["stage"] for e in variant["events"] if e.kind == "stage" and e.data["state"] != "started"]
    assert done == ["fetch", "calibrate", "prune", "align", "quantize", "evaluate", "package", "publish"]
    names = {event.data["name"] for event in variant["events"] if event.kind == "metric"}
    assert {"loss", "learning_rate", "tokens_per_second", "perplexity"} <= names


def test_plan_and_checkpoint_agree_on_parameters(
    service: Service, base_model: dict[str, Any], variant: dict[str, Any]
) -> None:
    with service.client() as client:
        plan = client.post("/v1/plans", {"base_model_id": base_model["id"], "recipe": recipe()})
    assert variant["manifest"]["parameters"] == plan["parameters"]
    assert plan["parameters"]["pruned"] < plan["parameters"]["base"] == base_model["parameters"]


def test_files_can_be_read_whole_and_in_ranges(service: Service, variant: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=service.url, headers=headers) as http:
        files = http.get(f"/v1/variants/{variant['id']}/files").json()["items"]
        assert {"config.json", "loram.json", "pruning_masks.safetensors", "README.md"} <= {f["path"] for f in files}
        for file in files:
            content = http.get(f"/v1/variants/{variant['id']}/files/{file['path']}").content
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
        part = http.get(f"/v1/variants/{variant['id']}/files/README.md", headers={"Range": "bytes=2-5"})
        assert part.status_code == 206
        assert len(part.content) == 4


def test_what_a_job_publishes_is_signed_says_which_job_it_was_and_shows_no_key(
    service: Service, base_model: dict[str, Any], variant: dict[str, Any], tmp_path: Path
) -> None:
    folder = snapshot_download("e2e/tiny", endpoint=f"{service.url}/hub", token=KEY, local_dir=tmp_path / "checkpoint")
    public = service.data / "key-public.pem"
    found = verify_checkpoint(Path(folder), base=service.data / "models" / "tiny", public_key=public)
    assert (found.problems, found.signed_by) == ((), public_key_id(public.read_bytes(), ""))
    made = json.loads((tmp_path / "checkpoint" / "provenance.intoto.json").read_text())["predicate"]
    assert made["runDetails"]["metadata"]["invocationId"] == variant["job"]["id"]
    named = {one["name"] for one in made["buildDefinition"]["resolvedDependencies"]}
    assert {"corpus general", "corpus novel"} <= named
    said = repr(variant) + (service.data / "up.log").read_text()
    assert (service.data / "key.pem").read_text().splitlines()[1] not in said


def test_a_downstream_user_recovers_an_adapter(
    service: Service, base_model: dict[str, Any], variant: dict[str, Any], tmp_path: Path
) -> None:
    environment = os.environ | {"HF_ENDPOINT": f"{service.url}/hub", "HF_HOME": str(tmp_path / "hf")}
    base = str(service.data / "models" / "tiny")
    done = subprocess.run(
        [sys.executable, "-c", DOWNSTREAM, "e2e/tiny", base, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["losses"][-1] < result["losses"][0]
    assert result["moved"] > 0
    assert result["base"] == base
    assert result["provenance"] == "verified"
    assert result["quantized"] == "torch.uint8"


def test_the_same_request_again_reuses_what_was_made(
    service: Service, base_model: dict[str, Any], variant: dict[str, Any]
) -> None:
    body = {"base_model_id": base_model["id"], "recipe": recipe(), "publish": {"repo_id": "e2e/tiny", "private": False}}
    with service.client() as client:
        made = client.post("/v1/variants", body)
        events = list(client.follow_job(made["job"]["id"]))
        again = client.get(f"/v1/variants/{made['id']}")
    assert events[-1].data["state"] == "succeeded"
    reused = {e.data["stage"] for e in events if e.kind == "stage" and e.data["state"] == "reused"}
    assert {"fetch", "calibrate", "prune", "align", "quantize", "evaluate"} <= reused
    assert again["publication"]["commit"] == variant["publication"]["commit"]


def test_a_certificate_that_does_not_pass_is_the_request_s_fault_and_one_attempt(
    service: Service, base_model: dict[str, Any], corpora: dict[str, Path]
) -> None:
    """A probe that learns nothing: what was computed stays, and a recipe that asks for less publishes it."""
    evaluation = recipe()["evaluation"]
    evaluation["probe_budget"] |= {"steps": 2, "learning_rate": 1e-7}
    body = {
        "base_model_id": base_model["id"],
        "recipe": recipe(alignment=None, evaluation=evaluation),
        "publish": {"repo_id": "e2e/useless", "private": False},
    }
    with service.client() as client:
        made = client.post("/v1/variants", body)
        events = list(client.follow_job(made["job"]["id"]))
        job = client.get(f"/v1/jobs/{made['job']['id']}")
        evaluation["require_certificate"] = False
        again = client.post("/v1/variants", body)
        rest = list(client.follow_job(again["job"]["id"]))
        published = client.get(f"/v1/variants/{again['id']}")
    failure = events[-1].data["failure"]
    assert (job["state"], job["attempt"]) == ("failed", 1)
    assert (failure["blame"], failure["stage"]) == ("request", "publish")
    assert "the certificate's verdict is" in failure["message"]
    assert "require_certificate" in failure["way_out"]
    assert published["certificate"]["verdict"] in {"negligible", "not_significant", "failed"}
    made_anew = {e.data["stage"] for e in rest if e.kind == "stage" and e.data["state"] == "finished"}
    assert made_anew == {"package", "publish"}


def test_what_a_job_leaves_is_the_owner_s_alone(service: Service, variant: dict[str, Any]) -> None:
    """Database, blobs, stages, messages and locks, of API, Hub and worker."""
    roots = [
        path for path in service.data.iterdir() if path.name.startswith(("publisher.db", "hub", "stages", "broker"))
    ]
    assert {"hub", "stages", "broker", "publisher.db"} <= {root.name for root in roots}
    kept = [path for root in roots for path in (root, *root.rglob("*")) if not path.is_symlink()]
    assert [path for path in kept if path.lstat().st_mode & 0o077] == []
