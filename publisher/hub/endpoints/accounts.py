"""Who am I; and the check of a model card's metadata that clients ask for before they upload it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from publisher.hub.access import KnownCaller
from publisher.hub.card import CardError, read_metadata
from publisher.hub.owner import Owner
from publisher.hub.protocol import CardText
from publisher.keys.scopes import Scope

router = APIRouter()


@router.get("/api/whoami-v2")
def who_am_i(caller: KnownCaller) -> dict[str, object]:
    return {
        "type": "user",
        "id": caller.tenant,
        "name": caller.name,
        "fullname": caller.name,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": caller.name, "role": _role(caller)}},
        # not of the protocol: what the key may do here and at the service's API
        "scopes": sorted(caller.rights),
    }


def _role(caller: Owner) -> str:
    """In the words of the protocol; `none`: public repositories alone."""
    if Scope.HUB_WRITE in caller.rights:
        return "write"
    return "read" if caller.may_read else "none"


@router.post("/api/validate-yaml")
def validate_card(card: CardText) -> JSONResponse:
    try:
        metadata = read_metadata(card.content)
    except CardError as error:
        problem = {"message": str(error)}
        return JSONResponse({"error": str(error), "errors": [problem], "warnings": []}, status_code=400)
    missing = {"message": "empty or missing yaml metadata in repo card"}
    return JSONResponse({"errors": [], "warnings": [] if metadata else [missing]})
