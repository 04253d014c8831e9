"""Xet, which this Hub does not speak: clients that ask for it are told how to upload without.

huggingface_hub decides on Xet alone, before it asks the Hub anything, and since 1.20 does not fall back. Its native
part shows neither body nor headers of an answer, only status and address: hence an address that says what to do.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from publisher.hub.access import CurrentHub
from publisher.hub.answers import refusal
from publisher.hub.uploads import MAX_INLINE_BYTES

router = APIRouter()

WHAT_TO_DO = "set-HF_HUB_DISABLE_XET=1-before-huggingface_hub-is-imported"
_SAID = (
    "This Hub has no Xet storage. Set HF_HUB_DISABLE_XET=1 in the environment before huggingface_hub is imported: "
    f"then it uploads over HTTP. Files of up to {MAX_INLINE_BYTES // 1024**2} MiB are taken either way."
)


@router.get("/api/models/{namespace}/{name}/xet-{kind}-token/{revision}")
def token(request: Request, hub: CurrentHub) -> Response:
    return RedirectResponse(f"{hub.url(request)}/no-xet/{WHAT_TO_DO}", status_code=307)


@router.get("/no-xet/{what_to_do}")
def no_xet() -> Response:
    return refusal(404, _SAID)
