"""A tenant with a limit of requests: told how many are left, refused beyond it, wherever it calls."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from huggingface_hub.utils import parse_ratelimit_headers

from publisher.store import quotas
from publisher.store.models import Tenant as TenantRow
from publisher.store.quotas import REQUESTS_PER_MINUTE
from tests.api.conftest import RunningApi, Tenant, refused


@pytest.fixture
def limited(api: RunningApi) -> Iterator[httpx.Client]:
    """A client of a tenant of four requests a minute."""
    tenant: Tenant = api.tenant()
    with api.database.write() as session:
        quotas.set_limit(session, session.get_one(TenantRow, tenant.id), REQUESTS_PER_MINUTE, 4)
    with tenant.client() as client:
        yield client


def left(answer: httpx.Response) -> int:
    read = parse_ratelimit_headers(answer.headers)
    assert read is not None
    assert (read.limit, read.window_seconds) == (4, 60)
    return read.remaining


def test_answers_tell_what_is_left_and_beyond_it_when_to_come_again(limited: httpx.Client) -> None:
    answers = [limited.get("/v1/jobs"), limited.get("/v1/quotas"), limited.get("/v1/jobs/nothing")]
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert [left(answer) for answer in answers] == [3, 2, 1]
    shown = {item["name"]: item for item in answers[1].json()["items"]}[REQUESTS_PER_MINUTE.name]
    assert (shown["limit"], shown["used"]) == (4, 2)
    # the API and the embedded Hub count together
    assert left(limited.get("/hub/api/whoami-v2")) == 0
    beyond = limited.get("/v1/jobs")
    assert "4 requests a minute" in refused(beyond, 429)
    assert left(beyond) == 0
    assert 0 < int(beyond.headers["Retry-After"]) <= 120
    hub = limited.get("/hub/api/whoami-v2")
    assert (hub.status_code, hub.headers["Retry-After"]) == (429, beyond.headers["Retry-After"])
    assert "requests a minute" in hub.json()["error"]
    assert limited.get("/healthz").status_code == 200


def test_others_are_neither_refused_nor_told(limited: httpx.Client, client: httpx.Client) -> None:
    for _ in range(6):
        limited.get("/v1/jobs")
    answer = client.get("/v1/jobs")
    assert answer.status_code == 200
    assert "RateLimit" not in answer.headers
