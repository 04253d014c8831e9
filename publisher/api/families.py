"""Families of models: which can be pruned, and why not."""

from __future__ import annotations

from fastapi import APIRouter

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.families.known import Families, known_families

router = APIRouter(prefix="/v1/families", tags=["families"])


@router.get("", responses=documented(401))
def list_families(caller: CurrentCaller) -> Families:
    """List every family of transformers' causal language models, with what can be pruned of it or why it cannot.

    Found out by pruning a tiny model of each and comparing it with its base, not listed by hand.
    """
    return known_families()
