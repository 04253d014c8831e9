"""Where a job publishes to, and with which token: its tenant's Hub if there is one, or the service's."""

from __future__ import annotations

import platform

from sqlalchemy.orm import Session

from publisher.errors import CredentialFault
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import sign_job_token
from publisher.settings import Settings
from publisher.store import hub_credentials
from publisher.store.models import HubCredential, Variant
from worker.request import PublishTarget


def publish_target(session: Session, variant: Variant, settings: Settings, lease: Lease) -> PublishTarget:
    """Raises CredentialFault without a token, or where the tenant's cannot be opened here."""
    own = hub_credentials.find(session, variant.tenant_id)
    return _service_target(variant, settings, lease) if own is None else _own_target(own, variant, settings)


def target_at(session: Session, variant: Variant, settings: Settings, lease: Lease, endpoint: str) -> PublishTarget:
    """With the token for a Hub that was published to before, whatever is published to now.

    Raises CredentialFault if that is neither the tenant's Hub nor the service's: nobody else's token is sent there.
    """
    own = hub_credentials.find(session, variant.tenant_id)
    if own is not None and own.endpoint == endpoint:
        return _own_target(own, variant, settings)
    if settings.is_embedded_hub(endpoint) or settings.resolved_hub_endpoint == endpoint:
        return _service_target(variant, settings, lease)
    known = [settings.resolved_hub_endpoint] if own is None else [own.endpoint, settings.resolved_hub_endpoint]
    raise CredentialFault(
        f"{variant.publish_repo_id} was being published to {endpoint}, and workers have a token for "
        f"{' and '.join(known)} now: nobody can ask what became of it.",
        way_out="Set PUBLISHER_HUB_ENDPOINT back for one worker until the job has ended"
        f"{'' if own is None else f', or your Hub back by {hub_credentials.PUT}'}.",
    )


def _own_target(own: HubCredential, variant: Variant, settings: Settings) -> PublishTarget:
    return PublishTarget(
        own.endpoint,
        variant.publish_repo_id,
        private=variant.publish_private,
        token=hub_credentials.opened(own, settings.sealing_secrets()).write_token,
        advice=f"Send a token that may write there ({hub_credentials.PUT}): the job goes on by itself.",
        setting=f"your write token ({hub_credentials.PUT})",
        public_only=not settings.allow_private_addresses,
    )


def _service_target(variant: Variant, settings: Settings, lease: Lease) -> PublishTarget:
    """The embedded Hub's token is made now: it is good for this repository, as long as the lease is."""
    if settings.hub_is_embedded:
        token = sign_job_token(settings.signing_secrets(), lease)
        advice = (
            f"The worker on {platform.node()} signs its jobs' tokens with its PUBLISHER_SECRET "
            "(unset: the file `secret` in its PUBLISHER_DATA_DIR): give it the one that the API has, and restart it."
        )
    else:
        advice = (
            f"Set PUBLISHER_HUB_TOKEN for the worker on {platform.node()} to a token that may write there, and "
            f"restart it; or send one for a Hub of your own ({hub_credentials.PUT})."
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
