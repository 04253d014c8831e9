"""Where a job publishes to, and with which token."""

from __future__ import annotations

import platform

from publisher.errors import CredentialFault
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import sign_job_token
from publisher.settings import Settings
from publisher.store.models import Variant
from worker.request import PublishTarget


def publish_target(variant: Variant, settings: Settings, lease: Lease) -> PublishTarget:
    """The token is made now: it is good for this repository, as long as the lease is. Raises CredentialFault without
    one."""
    if settings.hub_is_embedded:
        token = sign_job_token(settings.signing_secrets(), lease)
        advice = (
            f"The worker on {platform.node()} signs its jobs' tokens with its PUBLISHER_SECRET "
            "(unset: the file `secret` in its PUBLISHER_DATA_DIR): give it the one that the API has, and restart it."
        )
    else:
        advice = (
            f"Set PUBLISHER_HUB_TOKEN for the worker on {platform.node()} to a token that may write there, and "
            "restart it."
        )
        if settings.hub_token is None:
            raise CredentialFault(f"there is no token for {settings.hub_endpoint}.", way_out=advice)
        token = settings.hub_token.get_secret_value()
    return PublishTarget(
        settings.resolved_hub_endpoint,
        variant.publish_repo_id,
        private=variant.publish_private,
        token=token,
        embedded=settings.hub_is_embedded,
        advice=advice,
    )
