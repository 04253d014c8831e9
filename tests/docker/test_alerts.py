"""Each alert fires when it should and is silent when all is well, evaluated by Prometheus' own tool."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.docker.promtool import RULES, Series, promtool, refuse_unless

#: alert → series on which it fires, and the same with all well; values of every minute, for more than two hours
SCENES: dict[str, tuple[Series, Series]] = {
    "LoramApiDown": ({'up{job="loram-publisher"}': "0x150"}, {'up{job="loram-publisher"}': "1x150"}),
    "LoramDependencyAway": (
        {'publisher_dependency_up{dependency="broker"}': "0x150"},
        {'publisher_dependency_up{dependency="broker"}': "1x150"},
    ),
    "LoramDiskLow": (
        {'publisher_dependency_up{dependency="disk"}': "0x150"},
        {'publisher_dependency_up{dependency="disk"}': "1x150"},
    ),
    "LoramWorkerDiskLow": (
        {
            'publisher_worker_disk_free_bytes{worker="w"}': "1000000000x150",
            'publisher_worker_heartbeat_age_seconds{worker="w", state="busy"}': "2x150",
        },
        {  # one that was shut down needs no disk
            'publisher_worker_disk_free_bytes{worker="w"}': "1000000000x150",
            'publisher_worker_heartbeat_age_seconds{worker="w", state="stopped"}': "2x150",
        },
    ),
    "LoramWorkerDied": (
        {'publisher_worker_heartbeat_age_seconds{worker="w", state="silent"}': "_x110 30+60x40"},
        {  # shut down, or silent for so long that everybody knows
            'publisher_worker_heartbeat_age_seconds{worker="a", state="stopped"}': "30+60x150",
            'publisher_worker_heartbeat_age_seconds{worker="b", state="silent"}': "30+60x150",
        },
    ),
    "LoramNoWorker": (
        {'publisher_queued_jobs{queue="64", waiting_for="worker"}': "3x150"},
        {'publisher_queued_jobs{queue="64", waiting_for="turn"}': "3x150"},
    ),
    "LoramQueueOld": (
        {'publisher_oldest_queued_job_age_seconds{queue="64", waiting_for="turn"}': "30000x150"},
        {
            'publisher_oldest_queued_job_age_seconds{queue="64", waiting_for="turn"}': "20000x150",
            'publisher_oldest_queued_job_age_seconds{queue="64", waiting_for="retry"}': "30000x150",
        },
    ),
    "LoramJobsWaitForHub": (
        {'publisher_oldest_queued_job_age_seconds{queue="8", waiting_for="credential"}': "4000x150"},
        {'publisher_oldest_queued_job_age_seconds{queue="8", waiting_for="credential"}': "3000x150"},
    ),
    # two API processes tell the same: it counts once
    "LoramLeasesExpire": (
        {'publisher_lease_expiries_total{queue="8", instance="a"}': "0+0.1x150"},
        {f'publisher_lease_expiries_total{{queue="8", instance="{each}"}}': "0+0.04x150" for each in "ab"},
    ),
    "LoramPublicationsFail": (
        {'publisher_publications_total{outcome="failed"}': "0x100 1+1x50"},
        {
            'publisher_publications_total{outcome="failed"}': "7x150",
            'publisher_publications_total{outcome="succeeded"}': "0+1x150",
        },
    ),
    "LoramJobsFail": (
        {'publisher_job_attempts_total{outcome="failed", stage="align", blame="infrastructure"}': "0+1x150"},
        {'publisher_job_attempts_total{outcome="failed", stage="align", blame="request"}': "0+1x150"},
    ),
    "LoramHubDamaged": ({"publisher_hub_damaged_files": "1x150"}, {"publisher_hub_damaged_files": "0x150"}),
    "LoramWebhooksLate": (
        {"publisher_webhook_delivery_late_seconds": "400x150"},
        {"publisher_webhook_delivery_late_seconds": "200x150"},
    ),
    "LoramApiErrors": (
        {
            'publisher_http_requests_total{instance="a", status="500"}': "0+1x150",
            'publisher_http_requests_total{instance="a", status="200"}': "0+9x150",
        },
        {
            'publisher_http_requests_total{instance="a", status="500"}': "0+1x150",
            'publisher_http_requests_total{instance="a", status="404"}': "0+99x150",
        },
    ),
    "LoramApiSlow": (
        {
            'publisher_http_request_duration_seconds_bucket{route="/v1/jobs", le="1"}': "0+8x150",
            'publisher_http_request_duration_seconds_bucket{route="/v1/jobs", le="5"}': "0+10x150",
            'publisher_http_request_duration_seconds_bucket{route="/v1/jobs", le="+Inf"}': "0+10x150",
        },
        {  # a base model that is registered may ask a Hub for long
            'publisher_http_request_duration_seconds_bucket{route="/v1/base-models", le="1"}': "0+8x150",
            'publisher_http_request_duration_seconds_bucket{route="/v1/base-models", le="5"}': "0+10x150",
            'publisher_http_request_duration_seconds_bucket{route="/v1/base-models", le="+Inf"}': "0+10x150",
        },
    ),
    "LoramEventLoopLate": (
        {"publisher_event_loop_delay_seconds": "1.5x150"},
        {"publisher_event_loop_delay_seconds": "0.5x150"},
    ),
}


def alerts() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_has_a_scene_and_says_what_happened_and_what_to_do() -> None:
    assert [rule["alert"] for rule in alerts()] == list(SCENES)
    for rule in alerts():
        assert set(rule["annotations"]) == {"summary", "action"}  # type: ignore[call-overload]
        assert rule["labels"]["severity"] in {"warning", "critical"}  # type: ignore[index]


def test_prometheus_takes_the_rules() -> None:
    assert f"{len(SCENES)} rules found" in promtool("check", "rules", str(RULES))


def test_prometheus_takes_the_configuration_that_reads_them() -> None:
    assert "SUCCESS" in promtool("check", "config", str(RULES.with_name("prometheus.yml")))


@pytest.mark.parametrize("alert", SCENES)
def test_an_alert_fires_when_it_should_and_is_silent_when_all_is_well(alert: str, tmp_path: Path) -> None:
    wrong, well = SCENES[alert]
    refuse_unless(tmp_path, wrong, {alert: True})
    refuse_unless(tmp_path, well, dict.fromkeys(SCENES, False))
