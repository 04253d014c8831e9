"""What Prometheus reads of a real server, and who may."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from publisher.monitoring import declared
from publisher.monitoring.declared import Extent, Kind
from tests.api.conftest import RunningApi, serve_api
from tests.servers import free_port, wait_until

KEY = "key-of-the-metrics-test"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    folder = tmp_path_factory.mktemp("watched")
    with serve_api(folder, metrics_key=KEY, metrics_port=free_port()) as api:
        yield api


def samples_of(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def scrape(api: RunningApi) -> list[Sample]:
    return samples_of(httpx.get(f"{api.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text)


def value(api: RunningApi, name: str, **labels: str) -> float:
    """The sum of those with these labels; -1 if there is none."""
    found = [each.value for each in scrape(api) if each.name == name and labels.items() <= each.labels.items()]
    return sum(found) if found else -1


def test_without_a_setting_metrics_are_open_as_before_and_no_more(api: RunningApi) -> None:
    answer = httpx.get(f"{api.url}/metrics")
    assert answer.status_code == 200
    told = {each.name for each in samples_of(answer.text) if each.name.startswith("publisher_")}
    assert told == {"publisher_jobs", "publisher_hub_damaged_files"}
    assert told == {metric.name for metric in declared.METRICS if metric.is_open}


@pytest.mark.parametrize("shown", [None, "Bearer wrong", f"Basic {KEY}", "Bearer -"])
def test_with_a_key_nothing_is_told_without_it(watched: RunningApi, shown: str | None) -> None:
    answer = httpx.get(f"{watched.url}/metrics", headers={"Authorization": shown} if shown else {})
    assert answer.status_code == 401
    assert "publisher_jobs" not in answer.text


def test_an_api_key_is_no_metrics_key(watched: RunningApi) -> None:
    with watched.tenant().client() as client:
        assert client.get("/metrics").status_code == 401


def test_a_port_of_its_own_tells_everything(watched: RunningApi) -> None:
    wait_until(lambda: value(watched, "publisher_hub_bytes") >= 0, "a count of the Hub's bytes", 10)
    text = httpx.get(f"http://127.0.0.1:{watched.settings.metrics_port}/metrics").text
    assert {each.name for each in samples_of(text)} == {each.name for each in scrape(watched)}


def test_whatever_is_told_is_declared_and_whatever_a_process_has_is_told(watched: RunningApi) -> None:
    httpx.get(f"{watched.url}/healthz")
    told = {each.name for each in scrape(watched) if each.name.startswith("publisher_")}
    assert told <= {name for metric in declared.METRICS for name in metric.exposed}
    own = {name for metric in declared.METRICS if metric.extent is Extent.PROCESS for name in metric.exposed}
    assert own <= told


def test_names_and_units_are_as_prometheus_has_them() -> None:
    for metric in declared.METRICS:
        assert metric.name.startswith("publisher_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.help.endswith((".", "…")), metric.name
        if metric.kind is Kind.HISTOGRAM:
            assert metric.name.endswith(("_seconds", "_bytes"))


def test_requests_are_counted_by_the_template_of_their_route(watched: RunningApi) -> None:
    labels = {"method": "GET", "route": "/v1/jobs/{id}", "status": "404"}
    before = max(0, value(watched, "publisher_http_requests_total", **labels))
    with watched.tenant().client() as client:
        for number in range(3):
            client.get(f"/v1/jobs/job_{number}")
        client.request("BREW", "/v1/jobs/job_1")
    assert value(watched, "publisher_http_requests_total", **labels) == before + 3
    counted = value(watched, "publisher_http_request_duration_seconds_count", method="GET", route="/v1/jobs/{id}")
    assert counted == before + 3
    assert value(watched, "publisher_http_requests_total", method="OTHER") == 1
    assert value(watched, "publisher_http_requests_total", method="BREW") == -1


def test_an_open_event_stream_is_told_and_so_is_its_end(watched: RunningApi) -> None:
    with watched.tenant().client() as client:
        with client.stream("GET", "/v1/events") as stream:
            pieces = stream.iter_raw()  # held: the stream ends with it
            next(pieces)
            assert value(watched, "publisher_event_streams_open") == 1
            assert value(watched, "publisher_http_requests_in_flight") == 2  # and the scrape itself
        wait_until(lambda: value(watched, "publisher_event_streams_open") == 0, "the stream's end", 10)


def test_what_is_reached_is_told(watched: RunningApi) -> None:
    told = {each.labels["dependency"]: each.value for each in scrape(watched) if each.name.endswith("dependency_up")}
    assert told == {"database": 1, "broker": 1, "storage": 1, "disk": 1}
    assert value(watched, "publisher_disk_free_bytes") > 0


def test_scrapes_at_once_do_not_stand_in_each_others_way(watched: RunningApi) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: bool(scrape(watched)), range(24)))
