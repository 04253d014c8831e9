"""Every operation of the service as a function that builds its call, by the names of the document.

Made from the OpenAPI document by `make docs`; changes belong into publisher/api.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from publisher.client import types
from publisher.client.call import OMIT, Call, Omit, Operation, Page, Streamed, place


def cancel_job(
    id: str,
) -> Call[types.JobAnswer]:
    """Cancel a job.

    A queued or paused one is cancelled at once; a running one stops within seconds and publishes nothing. One
    whose commit has been sent is cancelling until the Hub has said whether it was made: then it has succeeded,
    and says that the cancel came too late.

    id: which of the jobs
    """
    return Call(
        "POST",
        f"/v1/jobs/{place(id)}/cancel",
    )


def cancel_sweep(
    id: str,
) -> Call[types.SweepAnswer]:
    """Cancel every job of a sweep that has not ended. What was published stays.

    id: which of the sweeps
    """
    return Call(
        "POST",
        f"/v1/sweeps/{place(id)}/cancel",
    )


def change_base_model(
    id: str,
    *,
    labels: Mapping[str, str | None],
) -> Call[types.BaseModelAnswer]:
    """Change a base model's labels.

    labels: the ones to set, and with null the ones to take away
    id: which of the base models
    """
    return Call(
        "PATCH",
        f"/v1/base-models/{place(id)}",
        body={
            "labels": labels,
        },
    )


def change_corpus(
    id: str,
    *,
    labels: Mapping[str, str | None],
) -> Call[types.CorpusAnswer]:
    """Change a corpus's labels.

    labels: the ones to set, and with null the ones to take away
    id: which of the corpora
    """
    return Call(
        "PATCH",
        f"/v1/corpora/{place(id)}",
        body={
            "labels": labels,
        },
    )


def change_variant(
    id: str,
    *,
    labels: Mapping[str, str | None],
) -> Call[types.VariantAnswer]:
    """Change a variant's labels.

    labels: the ones to set, and with null the ones to take away
    id: which of the variants
    """
    return Call(
        "PATCH",
        f"/v1/variants/{place(id)}",
        body={
            "labels": labels,
        },
    )


def change_webhook(
    id: str,
    *,
    url: str | Omit = OMIT,
    events: Sequence[str] | Omit | None = OMIT,
    description: str | Omit = OMIT,
    enabled: bool | Omit = OMIT,
) -> Call[types.WebhookAnswer]:
    """Change a webhook's URL, events or description, disable it, or enable it again.

    url: where events are sent: https, at an address that everybody can reach
    events: those that are sent; null: all, those of later versions too
    description: to tell webhooks apart, one line
    enabled: false: nothing is sent; true: what still waits is sent
    id: which of the webhooks
    """
    return Call(
        "PATCH",
        f"/v1/webhooks/{place(id)}",
        body={
            "url": url,
            "events": events,
            "description": description,
            "enabled": enabled,
        },
    )


def create_api_key(
    *,
    name: str,
    scopes: Sequence[str] | Omit | None = OMIT,
    expires_at: float | Omit | None = OMIT,
) -> Call[types.NewApiKeyAnswer]:
    """Make a key. The answer is the only place where it is ever shown.

    Without `scopes` it may do what the key may that is sent; it can never do more, and ends with it at the
    latest.

    name: to tell keys apart, one line
    scopes: what it may do; null: what the key may that makes it
    expires_at: seconds since 1970, ahead of now; null: with the key that makes it, or when it is revoked
    """
    return Call(
        "POST",
        "/v1/api-keys",
        body={
            "name": name,
            "scopes": scopes,
            "expires_at": expires_at,
        },
    )


def create_sweep(
    *,
    base_model_id: str,
    recipe: types.Recipe | Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
    publish: types.SweepPublish | Mapping[str, Any],
    priority: int | Omit = OMIT,
    labels: Mapping[str, str] | Omit = OMIT,
    idempotency_key: str | None = None,
) -> Call[types.SweepAnswer]:
    """Make many variants of one recipe: all of them, or none if one could only fail.

    Their jobs wait in the order of the variants. Stages that several have in common are computed once on each
    machine: who needs one that is being made waits for it, and reuses it.

    base_model_id: what to prune
    recipe: what the variants have in common; what varies may be left out
    vary: field of the recipe → its values
    publish: Where the checkpoints go.
    priority: jobs of higher priority are taken first, of equal the oldest
    labels: words of your own to find it by: keys and values as Kubernetes has them
    idempotency_key: the same key and body gives the same answer, however often it is sent
    """
    return Call(
        "POST",
        "/v1/sweeps",
        headers={
            "Idempotency-Key": idempotency_key,
        },
        body={
            "base_model_id": base_model_id,
            "recipe": recipe,
            "vary": vary,
            "publish": publish,
            "priority": priority,
            "labels": labels,
        },
    )


def create_variant(
    *,
    base_model_id: str,
    recipe: types.Recipe | Mapping[str, Any],
    publish: types.PublishRequest | Mapping[str, Any],
    priority: int | Omit = OMIT,
    labels: Mapping[str, str] | Omit = OMIT,
    idempotency_key: str | None = None,
) -> Call[types.VariantAnswer]:
    """Make a variant: queues a job that prunes, aligns, quantizes, evaluates and publishes.

    Whatever can be checked is checked before anything is created. Follow `job.id` at `/v1/jobs/{id}/events`.

    base_model_id: a registered base model
    recipe: how the variant is made
    publish: where it goes
    priority: jobs of higher priority are taken first, of equal the oldest
    labels: to find it by
    idempotency_key: the same key and body gives the same answer, however often it is sent
    """
    return Call(
        "POST",
        "/v1/variants",
        headers={
            "Idempotency-Key": idempotency_key,
        },
        body={
            "base_model_id": base_model_id,
            "recipe": recipe,
            "publish": publish,
            "priority": priority,
            "labels": labels,
        },
    )


def create_webhook(
    *,
    url: str,
    events: Sequence[str] | Omit | None = OMIT,
    description: str | Omit = OMIT,
) -> Call[types.NewWebhookAnswer]:
    """Have events sent to a URL, signed as Standard Webhooks says. The secret is shown in this answer alone.

    url: where events are sent: https, at an address that everybody can reach
    events: those that are sent; null: all, those of later versions too
    description: to tell webhooks apart, one line
    """
    return Call(
        "POST",
        "/v1/webhooks",
        body={
            "url": url,
            "events": events,
            "description": description,
        },
    )


def delete_base_model(
    id: str,
) -> Call[None]:
    """Forget a base model that no variant uses. Its files stay where they are.

    id: which of the base models
    """
    return Call(
        "DELETE",
        f"/v1/base-models/{place(id)}",
    )


def delete_corpus(
    id: str,
) -> Call[None]:
    """Forget a corpus that no variant's recipe names. Its files stay where they are.

    id: which of the corpora
    """
    return Call(
        "DELETE",
        f"/v1/corpora/{place(id)}",
    )


def delete_hub_credential() -> Call[None]:
    """Forget the Hub of your own and its tokens: jobs publish to the service's again.

    What was published stays where it is. A job whose commit is under way waits for the token to come back.
    """
    return Call(
        "DELETE",
        "/v1/hub-credentials",
    )


def delete_job(
    id: str,
) -> Call[None]:
    """Forget a job that has ended, with its events, attempts and log. Its variant stays, and what it published.

    id: which of the jobs
    """
    return Call(
        "DELETE",
        f"/v1/jobs/{place(id)}",
    )


def delete_sweep(
    id: str,
) -> Call[None]:
    """Forget a sweep whose variants are all deleted.

    id: which of the sweeps
    """
    return Call(
        "DELETE",
        f"/v1/sweeps/{place(id)}",
    )


def delete_variant(
    id: str,
    *,
    publication: Literal["keep", "delete"] | None = None,
) -> Call[None]:
    """Forget a variant and its jobs, which must have ended.

    With `publication=delete` its checkpoint goes first: the repository of the embedded Hub, or of another Hub
    the files that it published, by a commit. That is refused where the repository holds more, or has moved on.
    Interrupted, the same request again finishes.

    id: which of the variants
    publication: what becomes of its checkpoint on the Hub
    """
    return Call(
        "DELETE",
        f"/v1/variants/{place(id)}",
        query={
            "publication": publication,
        },
    )


def delete_webhook(
    id: str,
) -> Call[None]:
    """Forget a webhook and its deliveries. What is on its way may still arrive.

    id: which of the webhooks
    """
    return Call(
        "DELETE",
        f"/v1/webhooks/{place(id)}",
    )


def download_log(
    id: str,
    *,
    q: str | None = None,
    attempt: int | None = None,
) -> Call[str]:
    """Download a job's log: a line for each message, with its time in UTC and its stage.

    id: which of the jobs
    q: text in the message, in any case
    attempt: number of one of the job's attempts
    """
    return Call(
        "GET",
        f"/v1/jobs/{place(id)}/log.txt",
        query={
            "q": q,
            "attempt": attempt,
        },
    )


def follow_all(
    *,
    after: int | None = None,
    kind: Sequence[types.EventKind] | None = None,
    all_of: Sequence[str] | None = None,
    last_event_id: int | None = None,
) -> Streamed:
    """Follow the events of all your jobs as Server-Sent Events.

    They are those of `/v1/jobs/{id}/events`; `data` also has `job_id`, and `seq`, the number within the job.
    `id` grows over all jobs: send the last one as `Last-Event-ID` to resume without loss or repeat. Without one
    the stream begins with what happens from now on. It never ends by itself.

    after: the same, where headers cannot be set
    kind: only events of this kind; may be repeated; all if left out
    all_of: every event of this job, whatever its kind; may be repeated
    last_event_id: number of the last event received
    """
    return Streamed(
        "GET",
        "/v1/events",
        query={
            "after": after,
            "kind": kind,
            "all_of": all_of,
        },
        headers={
            "Last-Event-ID": last_event_id,
        },
    )


def follow_job(
    id: str,
    *,
    after: int | None = None,
    last_event_id: int | None = None,
) -> Streamed:
    """Follow a job's events as Server-Sent Events.

    `id` counts from 1 without gaps, `event` is state, stage, progress, metric or log, `data` is JSON. The
    stream ends when the job has finished, or the key is revoked. To resume, send the last number as `Last-
    Event-ID`; browsers do by themselves, and stop asking at a 204.

    id: which of the jobs
    after: the same, where headers cannot be set
    last_event_id: number of the last event received
    """
    return Streamed(
        "GET",
        f"/v1/jobs/{place(id)}/events",
        query={
            "after": after,
        },
        headers={
            "Last-Event-ID": last_event_id,
        },
    )


def get_base_model(
    id: str,
) -> Call[types.BaseModelAnswer]:
    """Get a base model.

    id: which of the base models
    """
    return Call(
        "GET",
        f"/v1/base-models/{place(id)}",
    )


def get_corpus(
    id: str,
) -> Call[types.CorpusAnswer]:
    """Get a corpus.

    id: which of the corpora
    """
    return Call(
        "GET",
        f"/v1/corpora/{place(id)}",
    )


def get_health() -> Call[types.Health]:
    """Say that the process lives."""
    return Call(
        "GET",
        "/healthz",
    )


def get_hub_credential() -> Call[types.HubCredentialAnswer]:
    """Get the Hub of your own, without its tokens."""
    return Call(
        "GET",
        "/v1/hub-credentials",
    )


def get_job(
    id: str,
) -> Call[types.JobDetail]:
    """Get a job, with its place in the queue and when it is expected to start and to end.

    id: which of the jobs
    """
    return Call(
        "GET",
        f"/v1/jobs/{place(id)}",
    )


def get_job_metrics(
    id: str,
    *,
    points: int | None = None,
    name: Sequence[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
) -> Call[types.JobMetrics]:
    """Get what a job has measured so far, as series of at most `points` points.

    A series that is longer is thinned to points of its own: the first and the last, and the lowest and the
    highest of every stretch between, so that no spike is lost. `from_step` and `to_step` look closer.

    id: which of the jobs
    points: of each series, at most; a longer one is thinned
    name: only these series; may be repeated
    from_step: only steps from here on
    to_step: only steps up to here
    """
    return Call(
        "GET",
        f"/v1/jobs/{place(id)}/metrics",
        query={
            "points": points,
            "name": name,
            "from_step": from_step,
            "to_step": to_step,
        },
    )


def get_log(
    id: str,
    *,
    cursor: int | None = None,
    limit: int | None = None,
    q: str | None = None,
    attempt: int | None = None,
) -> Call[Page[types.LogLine]]:
    """Search a job's log. With `Accept: text/plain` all lines come at once, as `/log.txt` sends them.

    id: which of the jobs
    cursor: next_cursor of the page before
    limit: items per page
    q: text in the message, in any case
    attempt: number of one of the job's attempts
    """
    return Call(
        "GET",
        f"/v1/jobs/{place(id)}/log",
        query={
            "cursor": cursor,
            "limit": limit,
            "q": q,
            "attempt": attempt,
        },
    )


def get_me() -> Call[types.MeAnswer]:
    """Say whose key was sent, and what it may do. Every key may ask."""
    return Call(
        "GET",
        "/v1/me",
    )


def get_metrics() -> Call[str]:
    """Prometheus metrics. Where a key is set (PUBLISHER_METRICS_KEY) all of them, for who shows it; else this
    process, and jobs by state.
    """
    return Call(
        "GET",
        "/metrics",
    )


def get_quotas() -> Call[types.QuotasAnswer]:
    """Say what the tenant may have at once, and has. The service's operator sets it."""
    return Call(
        "GET",
        "/v1/quotas",
    )


def get_readiness() -> Call[types.Readiness]:
    """Say whether database, broker and storage are there.

    503 while one is away. While only the broker is, requests are still accepted: their jobs wait in the
    database, as they do while no worker runs that holds them, which `capacity` says and which is no reason for
    503. What is told was found out in the background, at most a few seconds ago.
    """
    return Call(
        "GET",
        "/readyz",
    )


def get_sweep(
    id: str,
) -> Call[types.SweepAnswer]:
    """Get a sweep with its variants, what each varies, and what came of it.

    id: which of the sweeps
    """
    return Call(
        "GET",
        f"/v1/sweeps/{place(id)}",
    )


def get_variant(
    id: str,
) -> Call[types.VariantAnswer]:
    """Get a variant with its manifest.

    id: which of the variants
    """
    return Call(
        "GET",
        f"/v1/variants/{place(id)}",
    )


def get_webhook(
    id: str,
) -> Call[types.WebhookAnswer]:
    """Get a webhook.

    id: which of the webhooks
    """
    return Call(
        "GET",
        f"/v1/webhooks/{place(id)}",
    )


def list_api_keys(
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Call[Page[types.ApiKeyAnswer]]:
    """List keys, revoked and expired ones too.

    cursor: next_cursor of the page before
    limit: items per page
    """
    return Call(
        "GET",
        "/v1/api-keys",
        query={
            "cursor": cursor,
            "limit": limit,
        },
    )


def list_attempts(
    id: str,
    *,
    cursor: int | None = None,
    limit: int | None = None,
) -> Call[Page[types.AttemptAnswer]]:
    """List a job's attempts, those before a retry too. `?attempt=NUMBER` shows the log of one.

    id: which of the jobs
    cursor: next_cursor of the page before
    limit: items per page
    """
    return Call(
        "GET",
        f"/v1/jobs/{place(id)}/attempts",
        query={
            "cursor": cursor,
            "limit": limit,
        },
    )


def list_audit_log(
    *,
    cursor: str | None = None,
    limit: int | None = None,
    action: str | None = None,
    resource: str | None = None,
    key_id: str | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
) -> Call[Page[types.AuditAnswer]]:
    """List who did what, when, from where, to which thing. Entries outlive what they tell of.

    cursor: next_cursor of the page before
    limit: items per page
    action: job.cancel, or job for all done to jobs
    resource: what was changed, or is related to it: an id or a repository
    key_id: only what was done by this key
    created_after: done then or later, in seconds since 1970
    created_before: done before then, in seconds since 1970
    """
    return Call(
        "GET",
        "/v1/audit",
        query={
            "cursor": cursor,
            "limit": limit,
            "action": action,
            "resource": resource,
            "key_id": key_id,
            "created_after": created_after,
            "created_before": created_before,
        },
    )


def list_base_models(
    *,
    repo_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    label: Sequence[str] | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
) -> Call[Page[types.BaseModelAnswer]]:
    """List base models.

    repo_id: only of this repository
    cursor: next_cursor of the page before
    limit: items per page
    label: key:value; may be repeated, and all have to hold
    created_after: made then or later, in seconds since 1970
    created_before: made before then, in seconds since 1970
    """
    return Call(
        "GET",
        "/v1/base-models",
        query={
            "repo_id": repo_id,
            "cursor": cursor,
            "limit": limit,
            "label": label,
            "created_after": created_after,
            "created_before": created_before,
        },
    )


def list_corpora(
    *,
    cursor: str | None = None,
    limit: int | None = None,
    label: Sequence[str] | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
) -> Call[Page[types.CorpusAnswer]]:
    """List corpora.

    cursor: next_cursor of the page before
    limit: items per page
    label: key:value; may be repeated, and all have to hold
    created_after: made then or later, in seconds since 1970
    created_before: made before then, in seconds since 1970
    """
    return Call(
        "GET",
        "/v1/corpora",
        query={
            "cursor": cursor,
            "limit": limit,
            "label": label,
            "created_after": created_after,
            "created_before": created_before,
        },
    )


def list_families() -> Call[types.Families]:
    """List every family of transformers' causal language models, with what can be pruned of it or why it cannot.

    Found out by pruning a tiny model of each and comparing it with its base, not listed by hand.
    """
    return Call(
        "GET",
        "/v1/families",
    )


def list_jobs(
    *,
    state: Sequence[types.JobState] | None = None,
    variant_id: str | None = None,
    base_model_id: str | None = None,
    repo_id: str | None = None,
    sweep_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    label: Sequence[str] | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
) -> Call[Page[types.JobAnswer]]:
    """List jobs.

    state: only these states; may be repeated
    variant_id: only this variant's
    base_model_id: only of this base model
    repo_id: only of this repository
    sweep_id: only of this sweep
    cursor: next_cursor of the page before
    limit: items per page
    label: key:value; may be repeated, and all have to hold
    created_after: made then or later, in seconds since 1970
    created_before: made before then, in seconds since 1970
    """
    return Call(
        "GET",
        "/v1/jobs",
        query={
            "state": state,
            "variant_id": variant_id,
            "base_model_id": base_model_id,
            "repo_id": repo_id,
            "sweep_id": sweep_id,
            "cursor": cursor,
            "limit": limit,
            "label": label,
            "created_after": created_after,
            "created_before": created_before,
        },
    )


def list_sweeps(
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Call[Page[types.SweepSummary]]:
    """List sweeps, with how many of their jobs are in which state.

    cursor: next_cursor of the page before
    limit: items per page
    """
    return Call(
        "GET",
        "/v1/sweeps",
        query={
            "cursor": cursor,
            "limit": limit,
        },
    )


def list_variant_files(
    id: str,
) -> Call[types.VariantFiles]:
    """List the files of the published checkpoint; none before it is published.

    id: which of the variants
    """
    return Call(
        "GET",
        f"/v1/variants/{place(id)}/files",
    )


def list_variants(
    *,
    state: Sequence[types.JobState] | None = None,
    base_model_id: str | None = None,
    repo_id: str | None = None,
    sweep_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    label: Sequence[str] | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
) -> Call[Page[types.VariantSummary]]:
    """List variants.

    state: only these states; may be repeated
    base_model_id: only of this base model
    repo_id: only of this repository
    sweep_id: only of this sweep
    cursor: next_cursor of the page before
    limit: items per page
    label: key:value; may be repeated, and all have to hold
    created_after: made then or later, in seconds since 1970
    created_before: made before then, in seconds since 1970
    """
    return Call(
        "GET",
        "/v1/variants",
        query={
            "state": state,
            "base_model_id": base_model_id,
            "repo_id": repo_id,
            "sweep_id": sweep_id,
            "cursor": cursor,
            "limit": limit,
            "label": label,
            "created_after": created_after,
            "created_before": created_before,
        },
    )


def list_webhook_deliveries(
    id: str,
    *,
    state: Sequence[types.DeliveryState] | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Call[Page[types.DeliveryAnswer]]:
    """List what was sent, or is to be sent, to a webhook, and what became of the last try.

    id: which of the webhooks
    state: only these states; may be repeated
    cursor: next_cursor of the page before
    limit: items per page
    """
    return Call(
        "GET",
        f"/v1/webhooks/{place(id)}/deliveries",
        query={
            "state": state,
            "cursor": cursor,
            "limit": limit,
        },
    )


def list_webhooks(
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Call[Page[types.WebhookAnswer]]:
    """List webhooks.

    cursor: next_cursor of the page before
    limit: items per page
    """
    return Call(
        "GET",
        "/v1/webhooks",
        query={
            "cursor": cursor,
            "limit": limit,
        },
    )


def list_workers() -> Call[types.Workers]:
    """List workers, those that were seen last at first; one that is away for a day is forgotten."""
    return Call(
        "GET",
        "/v1/workers",
    )


def pause_job(
    id: str,
) -> Call[types.JobAnswer]:
    """Pause a job. A queued one is paused at once; a running one saves its state and stops within seconds.

    It keeps its place, costs no try, and holds no worker until it is resumed. One that publishes already is not
    paused.

    id: which of the jobs
    """
    return Call(
        "POST",
        f"/v1/jobs/{place(id)}/pause",
    )


def plan_variant(
    *,
    base_model_id: str,
    recipe: types.Recipe | Mapping[str, Any],
) -> Call[types.PlanAnswer]:
    """Plan a variant: parameters, bytes, memory, minutes per stage, workers that hold it. Nothing is created.

    base_model_id: a registered base model
    recipe: what is planned
    """
    return Call(
        "POST",
        "/v1/plans",
        body={
            "base_model_id": base_model_id,
            "recipe": recipe,
        },
    )


def put_hub_credential(
    *,
    endpoint: str,
    write_token: str,
    read_token: str | Omit | None = OMIT,
) -> Call[types.HubCredentialAnswer]:
    """Publish to a Hub of your own from now on, in the place of the service's.

    The Hub is asked whose token it is; one that it does not know, or that only reads, is refused. Tokens lie
    encrypted and are never answered. Jobs that wait for a credential go on.

    endpoint: the Hub's address, as for HF_ENDPOINT
    write_token: may write where variants are published
    read_token: for gated base models and datasets of the service's Hub; null: the service's own
    """
    return Call(
        "PUT",
        "/v1/hub-credentials",
        body={
            "endpoint": endpoint,
            "write_token": write_token,
            "read_token": read_token,
        },
    )


def read_variant_file(
    id: str,
    path: str,
) -> Streamed:
    """Read a file of the published checkpoint; `Range` gives a part. A Hub elsewhere is redirected to.

    id: which of the variants
    path: path of the file
    """
    return Streamed(
        "GET",
        f"/v1/variants/{place(id)}/files/{place(path, keep='/')}",
    )


def redeliver_webhook_event(
    id: str,
    delivery: str,
) -> Call[types.DeliveryAnswer]:
    """Send it again, whatever became of it, under the same webhook-id.

    id: which of the webhooks
    delivery: delivery
    """
    return Call(
        "POST",
        f"/v1/webhooks/{place(id)}/deliveries/{place(delivery)}/redeliver",
    )


def register_base_model(
    *,
    repo_id: str | Omit | None = OMIT,
    revision: str | Omit | None = OMIT,
    path: str | Omit | None = OMIT,
    published_as: str | Omit | None = OMIT,
    labels: Mapping[str, str] | Omit = OMIT,
) -> Call[types.BaseModelAnswer]:
    """Register a base model.

    Reads JSON files and the headers of the weights; of the weights only two tensors, if `config.json` says that
    they are one. The same commit again is answered 200 with what is there already; a folder under another name
    is another base model.

    repo_id: repository on the Hub
    revision: branch, tag or commit
    path: folder below an allowed root
    published_as: with path: namespace/name under which others get this model; what is published calls it so
    labels: words of your own to find it by: keys and values as Kubernetes has them
    """
    return Call(
        "POST",
        "/v1/base-models",
        body={
            "repo_id": repo_id,
            "revision": revision,
            "path": path,
            "published_as": published_as,
            "labels": labels,
        },
    )


def register_corpus(
    *,
    name: str,
    path: str | Omit | None = OMIT,
    dataset: str | Omit | None = OMIT,
    config: str | Omit | None = OMIT,
    split: str | Omit = OMIT,
    revision: str | Omit | None = OMIT,
    documents: int | Omit = OMIT,
    text_field: str | Omit = OMIT,
    held_out_fraction: float | Omit = OMIT,
    labels: Mapping[str, str] | Omit = OMIT,
) -> Call[types.CorpusAnswer]:
    """Register a corpus.

    Every document of files is read and counted. A dataset of the Hub is pinned to a commit and its first
    document read; the jobs read the others. The same name and source again is answered 200, with fresh counts;
    the same name with another source is a conflict.

    name: what recipes call it
    path: file or folder below an allowed root
    dataset: owner/name on the Hub
    config: the dataset's configuration
    split: of the dataset; it is split again
    revision: branch, tag or commit; pinned to its commit now
    documents: rows read from the dataset's beginning, at most
    text_field: column that holds the text
    held_out_fraction: share of the documents that is only ever used for evaluation
    labels: words of your own to find it by: keys and values as Kubernetes has them
    """
    return Call(
        "POST",
        "/v1/corpora",
        body={
            "name": name,
            "path": path,
            "dataset": dataset,
            "config": config,
            "split": split,
            "revision": revision,
            "documents": documents,
            "text_field": text_field,
            "held_out_fraction": held_out_fraction,
            "labels": labels,
        },
    )


def resume_job(
    id: str,
) -> Call[types.JobAnswer]:
    """Queue a paused job again, in its old place. It goes on from the state that it saved.

    id: which of the jobs
    """
    return Call(
        "POST",
        f"/v1/jobs/{place(id)}/resume",
    )


def retry_job(
    id: str,
) -> Call[types.JobAnswer]:
    """Queue a failed or cancelled job again. Finished stages are reused.

    id: which of the jobs
    """
    return Call(
        "POST",
        f"/v1/jobs/{place(id)}/retry",
    )


def revoke_api_key(
    id: str,
) -> Call[None]:
    """Revoke a key, at once and for good: the one that is sent, one that it made, or with the tenant's first key
    any.

    Every key may revoke itself; for others it needs the scope admin. The last one with the scope admin and
    without an end stays: nobody could get in to make another.

    id: which of the API keys
    """
    return Call(
        "DELETE",
        f"/v1/api-keys/{place(id)}",
    )


def rotate_webhook_secret(
    id: str,
) -> Call[types.NewWebhookAnswer]:
    """Replace a webhook's secret. For a while (a day, unless the operator says otherwise) messages carry a
    signature by the one of before as well.

    id: which of the webhooks
    """
    return Call(
        "POST",
        f"/v1/webhooks/{place(id)}/rotate-secret",
    )


def test_webhook(
    id: str,
) -> Call[types.DeliveryAnswer]:
    """Send a `webhook.test` event to this webhook, whatever it has subscribed to. What became of it is among its
    deliveries within a second or two.

    id: which of the webhooks
    """
    return Call(
        "POST",
        f"/v1/webhooks/{place(id)}/test",
    )


class Operations:
    """As methods of a client."""

    cancel_job = Operation(cancel_job)
    cancel_sweep = Operation(cancel_sweep)
    change_base_model = Operation(change_base_model)
    change_corpus = Operation(change_corpus)
    change_variant = Operation(change_variant)
    change_webhook = Operation(change_webhook)
    create_api_key = Operation(create_api_key)
    create_sweep = Operation(create_sweep)
    create_variant = Operation(create_variant)
    create_webhook = Operation(create_webhook)
    delete_base_model = Operation(delete_base_model)
    delete_corpus = Operation(delete_corpus)
    delete_hub_credential = Operation(delete_hub_credential)
    delete_job = Operation(delete_job)
    delete_sweep = Operation(delete_sweep)
    delete_variant = Operation(delete_variant)
    delete_webhook = Operation(delete_webhook)
    download_log = Operation(download_log)
    get_base_model = Operation(get_base_model)
    get_corpus = Operation(get_corpus)
    get_health = Operation(get_health)
    get_hub_credential = Operation(get_hub_credential)
    get_job = Operation(get_job)
    get_job_metrics = Operation(get_job_metrics)
    get_log = Operation(get_log)
    get_me = Operation(get_me)
    get_metrics = Operation(get_metrics)
    get_quotas = Operation(get_quotas)
    get_readiness = Operation(get_readiness)
    get_sweep = Operation(get_sweep)
    get_variant = Operation(get_variant)
    get_webhook = Operation(get_webhook)
    list_api_keys = Operation(list_api_keys)
    list_attempts = Operation(list_attempts)
    list_audit_log = Operation(list_audit_log)
    list_base_models = Operation(list_base_models)
    list_corpora = Operation(list_corpora)
    list_families = Operation(list_families)
    list_jobs = Operation(list_jobs)
    list_sweeps = Operation(list_sweeps)
    list_variant_files = Operation(list_variant_files)
    list_variants = Operation(list_variants)
    list_webhook_deliveries = Operation(list_webhook_deliveries)
    list_webhooks = Operation(list_webhooks)
    list_workers = Operation(list_workers)
    pause_job = Operation(pause_job)
    plan_variant = Operation(plan_variant)
    put_hub_credential = Operation(put_hub_credential)
    redeliver_webhook_event = Operation(redeliver_webhook_event)
    register_base_model = Operation(register_base_model)
    register_corpus = Operation(register_corpus)
    resume_job = Operation(resume_job)
    retry_job = Operation(retry_job)
    revoke_api_key = Operation(revoke_api_key)
    rotate_webhook_secret = Operation(rotate_webhook_secret)
    test_webhook = Operation(test_webhook)
