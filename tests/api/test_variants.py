"""Asking for variants: one request, one variant; nothing at all for a request that cannot succeed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.store import models as tables
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused, serve_api, write_corpus
from tests.manifest import contents
from tests.models import tiny_llama

SPARSE = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5, "protect_first": 1, "protect_last": 1}


def changed(body: Body, path: str, value: Any) -> Body:
    """A copy of the body with the value at `path` ("recipe.pruning.ratio") replaced."""
    copy = deepcopy(body)
    *way, last = path.split(".")
    target: Any = copy
    for part in way:
        target = target[int(part) if isinstance(target, list) else part]
    target[int(last) if isinstance(target, list) else last] = value
    return copy


def nothing_exists(client: httpx.Client) -> bool:
    return not client.get("/v1/variants").json()["items"] and not client.get("/v1/jobs").json()["items"]


def test_a_variant_comes_with_its_queued_job(client: httpx.Client, variant_body: Body) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    assert variant["job"]["state"] == "queued"
    assert variant["publication"] is None
    assert variant["recipe"]["pruning"]["criterion"] == "taylor"
    assert client.get(f"/v1/variants/{variant['id']}").json()["id"] == variant["id"]
    assert client.get(f"/v1/jobs/{variant['job']['id']}").json()["variant_id"] == variant["id"]


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("recipe.pruning.ratio", 1.2, "recipe.pruning.ratio", "1.2 is not valid: it should be less than 1"),
        ("recipe.pruning.ratio", 1, "recipe.pruning.ratio", "less than 1"),
        ("recipe.pruning.ratio", 0, "recipe.pruning.ratio", "greater than 0"),
        ("recipe.pruning.ratio", "half", "recipe.pruning.ratio", "'half'"),
        ("recipe.pruning.ration", 0.5, "recipe.pruning.ration", "did you mean ratio?"),
        ("recipe.pruning.method", "shave", "recipe.pruning.method", "'structured'"),
        ("recipe.pruning.calibration", None, "recipe.pruning", "magnitude and random do without"),
        ("recipe.pruning.criterion", "sparsegpt", "recipe.pruning", "does not go with method structured"),
        ("recipe.pruning.scope", "everywhere", "recipe.pruning.scope", "'uniform', 'global' or 'joint'"),
        ("recipe.pruning.round_to", 64, "recipe.pruning.round_to", "rounds everything up to the full width"),
        ("recipe.pruning", SPARSE | {"ratio": 0.01}, "recipe.pruning.ratio", "removes none of the 32 weights"),
        ("recipe.pruning", SPARSE | {"storage": "compressed"}, "recipe", "quantization.scheme nf4"),
        ("recipe.pruning.protect_first", 9, "recipe.pruning.protect_first", "4 decoder layers"),
        ("recipe.alignment.batch_tokens", 100, "recipe.alignment", "not a multiple"),
        ("recipe.alignment.corpora.0.weigth", 1, "recipe.alignment.corpora.0.weigth", "did you mean weight?"),
        ("recipe.evaluation.corpora.0", "poems", "recipe.evaluation.corpora.0", "no corpus 'poems'. Registered: novel"),
        ("recipe.alignment.tokens", 10**9, "recipe.alignment.corpora.0.name", "1,000,000,000 tokens are asked"),
        ("recipe.pruning.calibration.samples", 9999, "recipe.pruning.calibration.corpus", "639,936 tokens"),
        (
            "recipe.pruning.calibration",
            {"corpora": [{"name": "novel"}, {"name": "poems"}]},
            "recipe.pruning.calibration.corpora.1.name",
            "no corpus 'poems'",
        ),
        (
            "recipe.pruning.calibration",
            {"corpus": "novel", "corpora": [{"name": "novel"}]},
            "recipe.pruning.calibration",
            "both are given",
        ),
        ("recipe.alignment.corpora", {"name": "novel"}, "recipe.alignment.corpora", "it should be a list"),
        ("recipe.alignment.corpora", [1], "recipe.alignment.corpora.0", "1 is not valid: it should be an object"),
        ("publish.repo_id", "no-namespace", "publish.repo_id", "namespace/name"),
        ("publish.repo_id", "org/a b", "publish.repo_id", "'org/a b'"),
        ("publish.repo_id", "api/x", "publish.repo_id", "reserved"),
        ("publish.repository", "org/x", "publish.repository", "no field 'repository'"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_created(
    client: httpx.Client, variant_body: Body, path: str, value: Any, field: str, message: str
) -> None:
    response = client.post("/v1/variants", json=changed(variant_body, path, value))
    assert message in refused(response, 422, field)
    assert nothing_exists(client)


def test_an_unknown_base_model_is_not_found(client: httpx.Client, variant_body: Body) -> None:
    refused(client.post("/v1/variants", json=variant_body | {"base_model_id": "base_0"}), 404)
    assert nothing_exists(client)


def test_a_body_that_is_not_json_is_refused(client: httpx.Client) -> None:
    assert "not JSON" in refused(client.post("/v1/variants", content=b"{", headers=JSON), 422, "body")


def test_a_body_of_megabytes_is_refused(client: httpx.Client) -> None:
    refused(client.post("/v1/variants", content=b" " * 2_000_000, headers=JSON), 413)


def test_a_body_of_megabytes_in_pieces_is_refused(client: httpx.Client) -> None:
    pieces = (b" " * 100_000 for _ in range(20))
    refused(client.post("/v1/variants", content=pieces, headers=JSON), 413)


def test_a_corpus_without_held_out_text_cannot_evaluate(
    api: RunningApi, client: httpx.Client, variant_body: Body, tmp_path: Path
) -> None:
    path = write_corpus(api.roots / f"{tmp_path.name}.jsonl")
    created(client.post("/v1/corpora", json={"name": "all", "path": str(path), "held_out_fraction": 0}))
    body = changed(variant_body, "recipe.evaluation.corpora", ["all"])
    message = refused(client.post("/v1/variants", json=body), 422, "recipe.evaluation.corpora.0")
    assert "held_out_fraction" in message


def test_too_few_held_out_documents_to_certify_are_refused_before_anything_is_made(
    api: RunningApi, client: httpx.Client, variant_body: Body
) -> None:
    path = str(write_corpus(api.roots / "few.jsonl", documents=70))
    created(client.post("/v1/corpora", json={"name": "few", "path": path}))
    body = changed(variant_body, "recipe.evaluation.corpora", ["few"])
    message = refused(client.post("/v1/variants", json=body), 422, "recipe.evaluation.require_certificate")
    assert "holds out 7 documents, and a certificate takes at least 8" in message
    assert "held_out_fraction" in message
    assert nothing_exists(client)
    for allowed in ("unless_failed", False):
        made = created(
            client.post("/v1/variants", json=changed(body, "recipe.evaluation.require_certificate", allowed))
        )
        assert made["recipe"]["evaluation"]["require_certificate"] == allowed
    created(client.post("/v1/variants", json=changed(body, "recipe.evaluation.probe", False)))


def test_a_variant_tells_its_certificate_s_verdict(api: RunningApi, client: httpx.Client, variant_body: Body) -> None:
    made = created(client.post("/v1/variants", json=variant_body))
    assert made["certificate"] is None
    difference = {"documents": 12, "mean": 0.18, "standard_error": 0.02}
    certificate = contents.certificate(differences={"novel": difference})
    told = difference | {"verdict": "passed", "corpus": "novel"}
    finish(api, made["id"], contents.content(evaluation=contents.evaluation(certificate)))
    assert client.get(f"/v1/variants/{made['id']}").json()["certificate"] == told
    assert client.get("/v1/variants").json()["items"][0]["certificate"] == told
    claimed = contents.certificate(differences={}, improves=True, verdict="passed")
    finish(api, made["id"], contents.content(evaluation=contents.evaluation(claimed)))
    unstated = {"verdict": "not_stated", "corpus": "novel", "documents": None, "mean": None, "standard_error": None}
    assert client.get(f"/v1/variants/{made['id']}").json()["certificate"] == unstated


def finish(api: RunningApi, variant_id: str, manifest: dict[str, Any]) -> None:
    """As a worker does that has published."""
    with api.database.write() as session:
        session.get_one(tables.Variant, variant_id).manifest = manifest


def test_a_model_without_tokenizer_cannot_be_calibrated(
    api: RunningApi, client: httpx.Client, variant_body: Body, tmp_path: Path
) -> None:
    folder = tiny_llama(api.roots / tmp_path.name)
    (folder / "tokenizer.json").unlink()
    base = created(client.post("/v1/base-models", json={"path": str(folder)}))
    body = variant_body | {"base_model_id": base["id"]}
    assert "no tokenizer" in refused(client.post("/v1/variants", json=body), 422, "base_model_id")


def test_a_namespace_of_somebody_else_is_forbidden(
    api: RunningApi, client: httpx.Client, variant_body: Body, tmp_path: Path
) -> None:
    other = api.tenant()
    HfApi(endpoint=f"{api.url}/hub", token=other.key).create_repo(f"{other.name}/mine")
    body = changed(variant_body, "publish.repo_id", f"{other.name}/yours")
    refused(client.post("/v1/variants", json=body), 403, "publish.repo_id")
    assert nothing_exists(client)


def test_somebody_elses_variant_is_not_found(client: httpx.Client, stranger: httpx.Client, variant_body: Body) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    for path in (f"/v1/variants/{variant['id']}", f"/v1/variants/{variant['id']}/files"):
        refused(stranger.get(path), 404)
    assert nothing_exists(stranger)
    own = stranger.get("/hub/api/whoami-v2").json()["name"]
    refused(stranger.post("/v1/variants", json=changed(variant_body, "publish.repo_id", f"{own}/x")), 404)


def test_the_same_key_and_body_give_the_same_variant(client: httpx.Client, variant_body: Body) -> None:
    first = client.post("/v1/variants", json=variant_body, headers=KEY)
    again = client.post("/v1/variants", json=variant_body, headers=KEY)
    assert created(first) == created(again)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_defaults_written_out_are_the_same_body(client: httpx.Client, variant_body: Body) -> None:
    first = created(client.post("/v1/variants", json=variant_body, headers=KEY))
    spelled = changed(variant_body, "recipe.seed", 0)
    assert created(client.post("/v1/variants", json=spelled, headers=KEY))["id"] == first["id"]


def test_the_same_key_with_another_body_is_a_conflict(client: httpx.Client, variant_body: Body) -> None:
    created(client.post("/v1/variants", json=variant_body, headers=KEY))
    other = changed(variant_body, "recipe.seed", 1)
    refused(client.post("/v1/variants", json=other, headers=KEY), 409, "Idempotency-Key")
    assert len(client.get("/v1/variants").json()["items"]) == 1


def test_keys_of_two_tenants_do_not_meet(api: RunningApi, client: httpx.Client, variant_body: Body) -> None:
    created(client.post("/v1/variants", json=variant_body, headers=KEY))
    other = api.tenant()
    with other.client() as theirs:
        register_all(api, theirs)
        base = theirs.get("/v1/base-models").json()["items"][0]
        body = variant_body | {"base_model_id": base["id"], "publish": {"repo_id": f"{other.name}/x"}}
        created(theirs.post("/v1/variants", json=body, headers=KEY))


def test_without_a_key_two_requests_are_two_variants(client: httpx.Client, variant_body: Body) -> None:
    ids = {created(client.post("/v1/variants", json=variant_body))["id"] for _ in range(2)}
    assert len(ids) == 2


def register_all(api: RunningApi, client: httpx.Client) -> Body:
    created(client.post("/v1/corpora", json={"name": "novel", "path": str(api.roots / "novel.jsonl")}))
    return created(client.post("/v1/base-models", json={"path": str(api.roots / "tiny")}))


def send_at_once(tenant: Tenant, body: Body, times: int = 8) -> list[httpx.Response]:
    with tenant.client() as client, ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: client.post("/v1/variants", json=body, headers=KEY), range(times)))


def test_duplicates_at_the_same_time_make_one_variant(tenant: Tenant, client: httpx.Client, variant_body: Body) -> None:
    answers = [created(response) for response in send_at_once(tenant, variant_body)]
    assert len({answer["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_duplicates_at_the_same_time_make_one_variant_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    with serve_api(tmp_path, database_url=postgresql_url) as api:
        tiny_llama(api.roots / "tiny")
        write_corpus(api.roots / "novel.jsonl")
        tenant = api.tenant()
        with tenant.client() as client:
            base = register_all(api, client)
            publish = {"repo_id": f"{tenant.name}/x"}
            body = {"base_model_id": base["id"], "recipe": recipe(), "publish": publish}
            answers = [created(response) for response in send_at_once(tenant, body)]
            jobs = client.get("/v1/jobs").json()["items"]
    assert len({answer["id"] for answer in answers}) == 1
    assert len(jobs) == 1


def test_pages_hold_every_variant_once(client: httpx.Client, variant_body: Body) -> None:
    made = [created(client.post("/v1/variants", json=variant_body))["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.get("/v1/variants", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted(made, reverse=True)


@pytest.mark.parametrize("limit", ["0", "201", "many"])
def test_a_page_size_out_of_bounds_is_refused(client: httpx.Client, limit: str) -> None:
    refused(client.get("/v1/variants", params={"limit": limit}), 422, "limit")


KEY = {"Idempotency-Key": "same"}
JSON = {"Content-Type": "application/json"}
