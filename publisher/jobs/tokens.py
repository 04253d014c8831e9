"""Tokens with which a running job publishes to the embedded Hub: signed, bound to one tenant, soon over."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass

from publisher.signing.signer import Signer, same

_PREFIX = "lpj_"


@dataclass(frozen=True)
class JobToken:
    """`expires` in seconds since 1970."""

    tenant_id: str
    job_id: str
    expires: float


def sign_job_token(secret: bytes, tenant_id: str, job_id: str, expires: float) -> str:
    """`lpj_<claims>.<HMAC-SHA256 of the claims>`, base64url; goes wherever an API key goes."""
    claims = _encode(json.dumps([tenant_id, job_id, expires]).encode())
    return f"{_PREFIX}{claims}.{_signature(secret, claims)}"


def read_job_token(secret: bytes, token: str) -> JobToken | None:
    """What the token says; None if it is none of ours, changed, or over."""
    claims, _, mac = token.removeprefix(_PREFIX).partition(".")
    if not token.startswith(_PREFIX) or not same(mac, _signature(secret, claims)):
        return None
    try:
        tenant_id, job_id, expires = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except (ValueError, binascii.Error):
        return None
    return JobToken(tenant_id, job_id, expires) if time.time() < expires else None


def _signature(secret: bytes, claims: str) -> str:
    return _encode(Signer(secret, "job-token").sign(claims))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
