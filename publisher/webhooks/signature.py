"""Secrets of webhooks, and the headers by which a receiver knows who sent it something: Standard Webhooks."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

_SECRET_BYTES = 32


def new_secret() -> str:
    """`whsec_` and 256 random bits."""
    return f"whsec_{base64.b64encode(os.urandom(_SECRET_BYTES)).decode()}"


def signed_headers(message_id: str, at: float, body: str, secrets: Sequence[str]) -> dict[str, str]:
    """Headers of one try at `at` (seconds since 1970), with a signature by each of `secrets`: a receiver that knows one
    of them is content."""
    moment = datetime.fromtimestamp(at, UTC)
    signatures = [Webhook(secret).sign(message_id, moment, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(signatures),
    }
