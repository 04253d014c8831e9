"""Rules and dashboard ask for what the service tells, and a worker that dies is noticed by what a real one tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from publisher.monitoring import declared
from publisher.store.database import Database
from tests.api.conftest import RunningApi, serve_api
from tests.docker.promtool import ROOT, RULES, promtool, refuse_unless
from tests.jobs.rows import last_seen
from worker.jobs.registration import Measurement, Registration

KEY = "key-of-the-dashboard-test"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboard.json"
#: of Prometheus itself and of its client library
_OTHERS = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
_SCRAPED = {"job", "instance", "le"}
_WORD = re.compile(r"(?<![\w$\"])([a-z_]+:?[a-z_]*)\s*\{([^}]*)\}|\b(publisher_\w+)\b")


def rules() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def labels_by_name() -> dict[str, set[str]]:
    known = {name: set(metric.labels) | _SCRAPED for metric in declared.METRICS for name in metric.exposed}
    return known | _OTHERS


def unknown(expression: str) -> Iterator[str]:
    """Metrics that there are not, and labels that a metric does not have."""
    known = labels_by_name()
    for selected, matchers, alone in _WORD.findall(expression):
        name = selected or alone
        if name not in known:
            yield name
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if label not in known.get(name, set()):
                yield f"{name}{{{label}}}"
    grouped = {
        label.strip() for some in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in some.split(",")
    }
    names = {name for name in known if re.search(rf"\b{name}\b", expression)}
    yield from grouped - set().union(*(known[name] for name in names))


@pytest.mark.parametrize("expression", [*rules(), *queries()])
def test_rules_and_dashboard_ask_for_nothing_that_is_not_told(expression: str) -> None:
    assert list(unknown(expression)) == []


def test_what_is_not_told_would_be_found() -> None:
    assert list(unknown('sum by (quue) (publisher_jobs{stat="x"}) + publisher_nothing')) == [
        *("publisher_jobs{stat}", "publisher_nothing", "quue")
    ]


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", str(file))


def test_panels_have_places_of_their_own_and_every_metric_is_on_one() -> None:
    placed = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(placed)) == len(placed)
    assert len({panel["id"] for panel in panels()}) == len(panels())
    text = " ".join(queries())
    assert [metric.name for metric in declared.METRICS if metric.name not in text] == []


@pytest.fixture
def api(tmp_path: Path) -> Iterable[RunningApi]:
    with serve_api(tmp_path, metrics_key=KEY) as running:
        yield running


def start_worker(database: Database, api: RunningApi, name: str) -> Registration:
    """As a worker's process keeps its row, from its start."""
    measured = Measurement("cpu", 1e9, 1e9, 8 * 2**30)
    registration = Registration(database, api.settings, name, measured)
    registration.refresh()
    registration.start()
    return registration


def scraped(api: RunningApi, values: str) -> dict[str, str]:
    """What the service tells now of its workers, as series that stay so."""
    text = httpx.get(f"{api.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {_selector(each): values.format(each.value) for each in samples if each.name.startswith("publisher_worker")}


def _selector(sample: Sample) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}}"


def test_the_alert_of_a_worker_that_died_fires_for_it_and_not_for_one_that_was_shut_down(
    api: RunningApi, tmp_path: Path
) -> None:
    stopped, died = (start_worker(api.database, api, name) for name in ("celery@stopped", "celery@died"))
    alert = "LoramWorkerDied"
    refuse_unless(tmp_path, scraped(api, "{}x150"), {alert: False})
    stopped.stop()
    last_seen(api.database, "celery@stopped", 300)
    refuse_unless(tmp_path, scraped(api, "{}x150"), {alert: False})
    died._stop.set()  # killed: nothing is told any more
    died._thread.join()
    last_seen(api.database, "celery@died", 300)
    series = scraped(api, "{}x150")
    assert any('state="silent"' in each and "celery@died" in each for each in series)
    refuse_unless(tmp_path, series, {alert: True})
