"""docs/monitoring.md: what the service tells of itself; metrics from their declarations, alerts from their file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from publisher.monitoring.declared import METRICS, Extent, Metric
from publisher.reference.markdown import page, table

_ALERTS = Path(__file__).parents[2] / "docker" / "prometheus" / "alerts.yml"

_TEXT = """
## Logs

Every process logs to stderr: a JSON object a line, or lines for people at a terminal (`PUBLISHER_LOG_FORMAT`: `json`,
`console`; `auto` chooses). `PUBLISHER_LOG_LEVEL` is for the service's own code; libraries tell of warnings, and
`celery --loglevel` is for Celery's own lines. `publisher up` logs warnings unless it is told otherwise.

```text
{"timestamp": "…", "level": "info", "service": "api", "event": "POST /v1/variants → 201", "request_id": "req_…",
 "tenant": "ten_…", "key_id": "key_…", "method": "POST", "path": "/v1/variants", "status": 201, …}
{"timestamp": "…", "level": "info", "service": "job", "event": "stage prune finished", "tenant": "ten_…",
 "job": "job_…", "variant": "var_…", "attempt": 1, "stage": "prune", "worker": "celery@…", "seconds": 12.3, …}
```

`service` is `api`, `hub` (the Hub's own port), `worker`, or `job` (the process of one job). A request's `request_id`
is its `X-Request-Id`, or a new one; the answer has it, and every line of the request. What machines ask every few
seconds (`/healthz`, `/readyz`, `/metrics`) is logged at level `debug` alone. Paths come without their query.
uvicorn's options `--log-level` and `--no-access-log` still silence access lines. Values of secret settings, fields
with a secret's name, and what looks like a key, a token or a password in a URL are hidden in every line, tracebacks
included.

## Readiness

`/readyz` is 503 while database, broker, storage or disk are away, each with what is wrong. `workers` counts those
that live, and `capacity` says which queues' jobs no running worker holds. That is no reason for 503: the API accepts
jobs, and they wait.

## Metrics

<doors>

Those of the *installation* come from the database, with what happens in workers: every API process tells the same, so
with several take `max` over them, never `sum`. Those of a *process* are its own: `sum` them, or show them by
`instance`. Prometheus has to reach each process by itself: not through a load balancer, and not several that share
one port (`uvicorn --workers`). Counters of the installation begin at the upgrade that brought them, and deleting jobs
takes nothing back. Nothing is told by tenant or job.

<metrics>

`queue` is as in [workers.md](workers.md): the GiB that a job needs, or `cpu`. `waiting_for` is `turn`, `retry` (after
a failure), `worker`, `hub`, `credential` or `disk`. `outcome` is as in `GET /v1/jobs/{id}/attempts`, `blame` is
`request` or `infrastructure`. `lane`: `calls` to Hubs and other processes, `readings` of files. A worker's `capacity`
is the largest queue that it looks at. Peak memory is sampled each second; the processes of several devices that align
together are not in it.

## Alerts

`docker/prometheus/alerts.yml` holds the rules, `docker/prometheus/prometheus.yml` a configuration that reads them
(its `job_name` is what they expect), and `docker/grafana/dashboard.json` a dashboard to import.

<alerts>

## Traces

Where `OTEL_EXPORTER_OTLP_ENDPOINT` is set and `loram-publisher[otel]` installed, spans go there by OTLP over HTTP:
each request (FastAPI's), the dispatch of a job, each try of a job (below the request that asked for it, also hours
later), and each stage that is made. OpenTelemetry's own variables say headers, sampling (`OTEL_TRACES_SAMPLER`) and
names (`OTEL_SERVICE_NAME`, else `loram-publisher-api`, `-worker`, `-job`). A caller's `traceparent` is gone on from.
A receiver that is away costs a job two seconds at its end at the most, and nothing else.
"""


def monitoring_page() -> str:
    is_open = " and ".join(f"`{metric.name}`" for metric in METRICS if metric.is_open)
    parts = {"<doors>": _doors(is_open), "<metrics>": _metrics(), "<alerts>": _alerts()}
    text = _TEXT
    for place, part in parts.items():
        text = text.replace(place, part)
    return page("Watching it", text)


def _doors(is_open: str) -> str:
    """Who may read what."""
    lines = [
        ["nothing", f"`/metrics` tells everybody {is_open}, and the process's memory, CPU and files"],
        ["`PUBLISHER_METRICS_KEY`", "`/metrics` tells everything to who sends it as a bearer key, and others nothing"],
        [
            "`PUBLISHER_METRICS_PORT`",
            "each API process tells everything at `/metrics` of that port, of `PUBLISHER_METRICS_ADDRESS` (127.0.0.1), "
            "without a key",
        ],
    ]
    return table(["set", "what is told"], lines)


def _metrics() -> str:
    columns = ["metric", "kind", "labels", "whose", "what it is"]
    return table(columns, [_row(metric) for metric in METRICS])


def _row(metric: Metric) -> list[str]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    whose = "process" if metric.extent is Extent.PROCESS else "installation"
    return [f"`{metric.name}`", metric.kind.value, labels, whose, metric.help.rstrip(".")]


def _alerts() -> str:
    rows = [
        [f"`{rule['alert']}`", rule["labels"]["severity"], _plain(rule["annotations"]["action"])] for rule in _rules()
    ]
    return table(["alert", "severity", "what to do"], rows)


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(_ALERTS.read_text())["groups"]:
        yield from group["rules"]


def _plain(text: str) -> str:
    return text.strip().rstrip(".")
