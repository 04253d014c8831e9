"""Tokens with which a running job publishes to the embedded Hub: good for its repository, as long as its lease is.

A token says which lease it belongs to and nothing else. Whether that lease is still held, whose job it is and where it
publishes to is asked of the database with every use: so it needs no renewal, and ends with the try.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.jobs.leases import Lease
from publisher.signing.keyring import Keyring
from publisher.signing.signer import Signer
from publisher.store.database import database_now
from publisher.store.models import Job, Tenant, Variant
from publisher.store.states import ACTIVE

_PREFIX = "lpj_"


@dataclass(frozen=True)
class JobToken:
    """`lease_token`: None in tokens of releases that bound them to the job alone; a job may run while the service is
    replaced."""

    job_id: str
    lease_token: int | None


@dataclass(frozen=True)
class Holder:
    """Who a good token stands for, and the one repository that it is for."""

    tenant_id: str
    tenant_name: str
    repo_id: str


def sign_job_token(secret: bytes | Keyring, lease: Lease) -> str:
    """`lpj_<claims>.<HMAC-SHA256 of the claims>`, base64url; goes where the Hub takes an API key."""
    claims = _encode(json.dumps([lease.job_id, lease.token]).encode())
    return f"{_PREFIX}{claims}.{_encode(_signer(secret).sign(claims))}"


def read_job_token(secret: bytes | Keyring, token: str) -> JobToken | None:
    """What the token says; None if it is none of ours or was changed."""
    claims, _, mac = token.removeprefix(_PREFIX).partition(".")
    try:
        if not token.startswith(_PREFIX) or not _signer(secret).is_genuine(claims, _decode(mac)):
            return None
        match json.loads(_decode(claims)):
            case [str(job_id), int(lease_token)]:
                return JobToken(job_id, lease_token)
            case [str(), str(job_id), float(expires)] if time.time() < expires:
                return JobToken(job_id, None)
    except (ValueError, binascii.Error):
        return None
    return None


def holder_of(session: Session, token: JobToken) -> Holder | None:
    """None once the lease is over: the job has ended, is another worker's, or its worker was silent for too long."""
    held = [Job.state.in_(ACTIVE), Job.lease_expires_at > database_now()]
    if token.lease_token is not None:
        held.append(Job.lease_token == token.lease_token)
    row = session.execute(
        select(Tenant.id, Tenant.name, Variant.publish_repo_id)
        .join(Job, Job.tenant_id == Tenant.id)
        .join(Variant, Variant.id == Job.variant_id)
        .where(Job.id == token.job_id, *held)
    ).one_or_none()
    return None if row is None else Holder(*row)


def _signer(secret: bytes | Keyring) -> Signer:
    return Signer(secret, "job-token")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Raises ValueError for what `_encode` does not write."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        raise ValueError("not written as ours are")
    return data
